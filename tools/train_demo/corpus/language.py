"""Words: opposites, translations, repeating, days and months, and short programs."""

# ruff: noqa: E501, SIM905 - long lines and split strings keep the word lists readable
from __future__ import annotations

import random

from .people import VALUES, name
from .sample import Exchange, Sample, ask, loosen, pick

OPPOSITES = [
    pair.split("-")
    for pair in """hot-cold big-small up-down left-right day-night black-white fast-slow happy-sad
old-young high-low long-short open-closed good-bad hard-soft wet-dry full-empty early-late
rich-poor loud-quiet strong-weak light-dark first-last near-far thick-thin true-false
begin-end win-lose love-hate in-out yes-no""".split()
]
TRANSLATIONS = {
    "French": "hello=bonjour goodbye=au-revoir thank-you=merci yes=oui no=non cat=chat dog=chien water=eau bread=pain good-morning=bonjour please=s'il-vous-plaît friend=ami house=maison",
    "Spanish": "hello=hola goodbye=adiós thank-you=gracias yes=sí no=no cat=gato dog=perro water=agua bread=pan good-morning=buenos-días please=por-favor friend=amigo house=casa",
    "German": "hello=hallo goodbye=auf-Wiedersehen thank-you=danke yes=ja no=nein cat=Katze dog=Hund water=Wasser bread=Brot good-morning=guten-Morgen please=bitte friend=Freund house=Haus",
    "Italian": "hello=ciao goodbye=arrivederci thank-you=grazie yes=sì no=no cat=gatto dog=cane water=acqua bread=pane good-morning=buongiorno please=per-favore friend=amico house=casa",
}  # fmt: skip
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = """January February March April May June July August September October November
December""".split()

# Task patterns | program
PROGRAMS = [
    (["a [|Python ]function [that adds|to add] two numbers", "an add function", "[|Python ]code to add two numbers"],
     "def add(a, b):\n    return a + b"),
    (["a [|Python ]hello world program", "hello world in Python", "a [|Python ]program that prints hello world", "hello world",
      "a simple Python program", "some Python code", "Python code"],
     'print("Hello, world!")'),
    (["hello world in C", "a C program that prints hello world", "a C program"],
     '#include <stdio.h>\n\nint main(void) {\n    printf("Hello, world!\\n");\n    return 0;\n}'),
    (["hello world in JavaScript", "a JavaScript program"], 'console.log("Hello, world!");'),
    (["a [|Python ]function for Fibonacci numbers", "a Fibonacci function[| in Python]", "fibonacci", "a function that computes Fibonacci numbers"],
     "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a"),
    (["a [|Python ]factorial function", "a function that computes the factorial", "factorial[| in Python]"],
     "def factorial(n):\n    return 1 if n < 2 else n * factorial(n - 1)"),
    (["a function [that reverses|to reverse] a string", "[|Python ]code to reverse a string"],
     "def reverse(text):\n    return text[::-1]"),
    (["a function [that checks if|to check whether] a number is even", "an is_even function"],
     "def is_even(n):\n    return n % 2 == 0"),
    (["a function [that sorts|to sort] a list", "[|a ]quicksort[| in Python]", "a sort function", "a sorting algorithm"],
     "def quicksort(items):\n    if len(items) < 2:\n        return items\n    first, *rest = items\n"
     "    low = [x for x in rest if x < first]\n    high = [x for x in rest if x >= first]\n"
     "    return quicksort(low) + [first] + quicksort(high)"),
    (["a for loop[| in Python]", "a loop[| in Python]", "a loop that counts to ten"], "for i in range(10):\n    print(i + 1)"),
    (["a function [that checks|to check] if a number is prime", "an is_prime function", "a prime number test"],
     "def is_prime(n):\n    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))"),
    (["a function that returns the largest number[| of a list]", "a max function"],
     "def largest(numbers):\n    return max(numbers)"),
    (["a class[| in Python]", "a Python class"],
     "class Dog:\n    def __init__(self, name):\n        self.name = name\n\n    def speak(self):\n        return \"Woof!\""),
    (["a [|Python ]decorator", "an example of a decorator"],
     "def twice(function):\n    def wrapper(*args):\n        function(*args)\n        return function(*args)\n    return wrapper"),
]  # fmt: skip
ASK_PROGRAM = ["[Write|Give me|Show me|Create|Write me] {p}[.|]", "[Can|Could] you write {p}?", "Please write {p}.",
               "[How do I|How can I] write {p}?", "I need {p}."]  # fmt: skip


def exchange(rng: random.Random) -> Exchange:
    return rng.choice(
        [_opposite, _translate, _translate, _repeat, _repeat, _calendar, _program, _program, _program, _spell]
    )(rng)  # fmt: skip


def raw(rng: random.Random) -> Sample:
    """A program on its own, or a well-known sentence."""
    if rng.random() < 0.7:
        return Sample(text=rng.choice(PROGRAMS)[1])
    return Sample(text=rng.choice([
        "The quick brown fox jumps over the lazy dog.",
        "Hello, world! This is a small demo model.",
        "The cat sat on the mat. It was a warm and sunny day.",
        f"My name is {name(rng)}. I live in a small town by the sea.",
        "The sky is blue and the grass is green.",
        "Roses are red, violets are blue, sugar is sweet, and so are you.",
        "I think, therefore I am.",
        "To be, or not to be, that is the question.",
        "The weather is nice today. Let us go for a walk.",
        "The meaning of life is to learn, to love and to help others.",
        "In the beginning there was silence. Then a small bird began to sing.",
        "Artificial intelligence is the field of making machines do tasks that need thinking.",
        "The future of AI is hard to predict, but small models can already run on every computer.",
    ]))  # fmt: skip


def _opposite(rng: random.Random) -> Exchange:
    pair = rng.choice(OPPOSITES)
    first, second = pair if rng.random() < 0.5 else pair[::-1]
    question = pick(rng, ["What is the opposite of {w}?", "[Give me|Tell me|Name] the opposite of {w}.",
                          "[The opposite|Opposite] of {w}?", "What is the antonym of {w}?"], w=first)  # fmt: skip
    return ask(loosen(rng, question), f"The opposite of {first} is {second}.")


def _translate(rng: random.Random) -> Exchange:
    language = rng.choice(list(TRANSLATIONS))
    source, target = rng.choice(TRANSLATIONS[language].split()).split("=")
    source, target = source.replace("-", " "), target.replace("-", " ")
    question = pick(rng, [
        "[Translate|Please translate] {q}{s}{q} [to|into] {l}.", "How do you say {q}{s}{q} in {l}?",
        "What is {q}{s}{q} in {l}?", "[Say|Write] {q}{s}{q} in {l}.", "What does {q}{s}{q} mean in {l}?",
        "How do I say {q}{s}{q} in {l}?", "Translate to {l}: {s}",
    ], s=source, l=language, q=rng.choice(["", '"', "'"]))  # fmt: skip
    return ask(loosen(rng, question, keep_case=True), f'"{source}" in {language} is "{target}".')


def _repeat(rng: random.Random) -> Exchange:
    words = [rng.choice([*VALUES["animal"], *VALUES["colour"], *VALUES["fruit"], *VALUES["job"],
                         "the", "and", "is", "hello", "world", name(rng), str(rng.randint(0, 99))])
             for _ in range(rng.randint(1, 6))]  # fmt: skip
    text = " ".join(words)
    question = pick(rng, ["[Repeat|Say|Echo|Write|Please repeat][ after me|]: {t}", "Repeat the words: {t}",
                          'Say "{t}"[.|]', "[Repeat|Echo] this: {t}", "Repeat exactly: {t}"], t=text)  # fmt: skip
    return ask(question, text)


def _calendar(rng: random.Random) -> Exchange:
    names = rng.choice([DAYS, MONTHS])
    unit = "day" if names is DAYS else "month"
    index = rng.randrange(len(names))
    if rng.random() < 0.5:
        answer = names[(index + 1) % len(names)]
        question = pick(
            rng,
            [f"[What|Which] {unit} [comes|is] after {{d}}?", f"What is the {unit} after {{d}}?"],
            d=names[index],
        )
        return ask(loosen(rng, question), f"{answer} comes after {names[index]}.")
    answer = names[index - 1]
    question = pick(
        rng,
        [f"[What|Which] {unit} [comes|is] before {{d}}?", f"What is the {unit} before {{d}}?"],
        d=names[index],
    )
    return ask(loosen(rng, question), f"{answer} comes before {names[index]}.")


def _spell(rng: random.Random) -> Exchange:
    word = rng.choice([*VALUES["animal"], *VALUES["colour"], *VALUES["fruit"]])
    question = pick(
        rng,
        ["[Write|Say] {w} in [upper case|capital letters].", "[Make|Turn] {w} upper case."],
        w=word,
    )
    return ask(question, word.upper())


def _program(rng: random.Random) -> Exchange:
    tasks, program = rng.choice(PROGRAMS)
    question = pick(rng, ASK_PROGRAM, p=pick(rng, tasks))
    language = "c" if "#include" in program else "javascript" if "console" in program else "python"
    return ask(loosen(rng, question, keep_case=True), f"```{language}\n{program}\n```")
