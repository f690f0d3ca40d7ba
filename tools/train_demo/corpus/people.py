"""Names, and remembering what the user said about themselves earlier in the chat."""

# ruff: noqa: E501, SIM905 - long lines and split strings keep the word lists readable
from __future__ import annotations

import random

from .sample import Exchange, ask, expand, loosen, pick

NAMES = """Alice Bob Carol Dave Eve Frank Grace Henry Ivy Jack Kate Liam Mia Noah Olivia Peter
Quinn Rose Sam Tom Uma Victor Wendy Xavier Yara Zoe Adam Bella Charlie Diana Edward Fiona George
Hannah Isaac Julia Kevin Laura Mark Nina Oscar Paul Rachel Simon Tina Ursula Vera William Yusuf
Anna Ben Clara Daniel Emma Felix Gina Hugo Irene James Karen Leo Maria Nathan Otto Petra Robert
Sarah Thomas Vincent Walter Amir Bianca Carlos Dmitri Elena Fatima Gustav Hiro Ingrid Jamal Kenji
Lena Mohammed Nadia Omar Priya Rafael Sofia Tariq Viktor Wei Yuki Zara Andrew Betty Chris Donna
Erik Flora Gloria Harry Isabel John Kim Linda Max Nancy Oliver Pamela Ralph Susan Ted Valerie
Aisha Boris Chloe Diego Esther Fred Greta Helen Ian Jane Karl Lucy Martin Nora Patrick Ruth Steve
Teresa Anton Bruno Cecilia Dora Emil Francis Gabriel Heidi Igor Joseph Klara Lucas Monica Nikolai
Olga Pablo Rita Stefan Tanja Ulrich Vanessa Willem Ahmed Beatrice Colin Deborah Ethan Freya Gordon
Holly Jasper Kira Logan Megan Nelson Ophelia Philip Rebecca Scott Tracy""".split()

_ONSETS = """b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh st t th tr v w y z""".split()
_VOWELS = "a e i o u a e i o ai ee ia ie ou ea y".split()
_CODAS = ["", "", "", "", "n", "r", "l", "s", "m", "th", "nd", "ck", "x", "t", "ra", "lia", "ner"]


def name(rng: random.Random) -> str:
    """A name from the list, or one made of syllables so that copying must be learnt."""
    if rng.random() < 0.3:
        return rng.choice(NAMES)
    syllables = [
        rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.choice([1, 2, 2, 2, 3]))
    ]
    made = "".join(syllables) + rng.choice(_CODAS)
    if rng.random() < 0.2:
        made = made.lstrip("bcdfghjklmnpqrstvwyz") or made
    return made.capitalize()


INTRODUCTION = [
    "[Hi, |Hello, |Hello! |Hi! |Hey, |]my name is {n}.",
    "My name is {n}.",
    "My name is {n}.",
    "My name's {n}.",
    "[Hi, |Hello, |Hi! |Hello! |]I am {n}.",
    "[Hi, |Hello, |Hi! |Hello! |Hey, |]I'm {n}.",
    "[Please call|You can call|Call] me {n}.",
    "I am called {n}.",
    "[Hi|Hello], {n} here.",
    "[Hello|Hi|Hey] there, my name is {n}[.|!]",
    "My name is {n}, nice to meet you.",
    "My friends call me {n}.",
    "[Please remember|Remember] that my name is {n}.",
    "My name is {n} and I live in a small town.",
]
GREETING = [
    "Nice to meet you, {n}!",
    "Hello, {n}! Nice to meet you.",
    "Hello, {n}! How can I help you?",
]
WHO_AM_I = [
    "What's my name?",
    "What is my name?",
    "[Do you [know|remember]|Can you tell me|Tell me|Say] my name[?|]",
    "[And what|So what|What] is my name?",
    "What was my name[ again|]?",
    "[What|So what] did I say my name was?",
    "[Do you [know|remember]|Tell me|Can you tell me] what my name is[?|]",
    "Who am I?",
    "What am I called?",
    "[Do you still remember|Have you forgotten] my name?",
    "[Which|What] name did I [give you|tell you]?",
]

_FACTS: list[tuple[str, str, str]] = [
    ("My favourite [colour|color] is {v}.", "What is my favourite colour?", "colour"),
    (
        "I [love|like] the colour {v} most.",
        "[Which|What] colour do I like[ most| best|]?",
        "colour",
    ),
    ("My favourite animal is the {v}.", "What is my favourite animal?", "animal"),
    ("My favourite food is {v}.", "What is my favourite food?", "food"),
    ("I live in {v}.", "Where do I live?", "city"),
    ("I am from {v}.", "Where am I from?", "city"),
    ("My [dog|cat] is called {v}.", "What is my [dog|cat] called?", "pet"),
    ("I am {v} years old.", "How old am I?", "age"),
    ("My lucky number is {v}.", "What is my lucky number?", "number"),
    ("The secret word is {v}.", "What is the secret word?", "word"),
    ("I work as a {v}.", "What is my job?", "job"),
    ("My favourite fruit is the {v}.", "What is my favourite fruit?", "fruit"),
]
_REPLIES = {
    "colour": "Your favourite colour is {v}.",
    "animal": "Your favourite animal is the {v}.",
    "food": "Your favourite food is {v}.",
    "fruit": "Your favourite fruit is the {v}.",
    "age": "You are {v} years old.",
    "number": "Your lucky number is {v}.",
    "word": "The secret word is {v}.",
    "job": "You work as a {v}.",
}
VALUES = {
    "colour": "red blue green yellow orange purple pink black white brown grey gold silver".split(),
    "animal": """cat dog horse tiger lion bear wolf fox rabbit elephant whale dolphin owl eagle penguin
koala panda mouse frog turtle""".split(),
    "food": """pizza pasta rice bread soup cheese chocolate salad curry noodles pancakes sushi
fish""".split(),
    "fruit": "apple banana cherry mango peach pear plum lemon orange grape melon".split(),
    "city": """Paris London Berlin Rome Madrid Tokyo Oslo Vienna Boston Chicago Sydney Lisbon
Dublin Prague Seoul Toronto Cairo Lima Athens Warsaw Munich Milan Geneva Porto""".split(),
    "job": """teacher doctor nurse baker farmer painter pilot driver writer gardener cook lawyer
programmer carpenter singer""".split(),
}  # fmt: skip
VALUES["word"] = [*VALUES["animal"], *VALUES["fruit"], "river", "window", "candle", "thunder"]


def memory(rng: random.Random) -> tuple[Exchange, Exchange]:
    """A statement and a later question about it; other exchanges may come between."""
    if rng.random() < 0.6:
        who = name(rng)
        said = pick(rng, INTRODUCTION, n=who)
        question = loosen(rng, pick(rng, WHO_AM_I))
        reply = "You are {n}." if question.lower().startswith("who") else "Your name is {n}."
        greeting = GREETING[0] if rng.random() < 0.7 else pick(rng, GREETING)
        return ask(_lowered(rng, said, who), greeting.format(n=who)), ask(
            question, reply.format(n=who)
        )
    return _fact(rng)


def at_once(rng: random.Random) -> Exchange:
    """Name and question in one message."""
    who = name(rng)
    said = pick(rng, INTRODUCTION, n=who)
    return ask(f"{said} {pick(rng, WHO_AM_I[:8])}", f"Your name is {who}.")


def nameless(rng: random.Random) -> Exchange:
    """Asked for a name that was never given."""
    return ask(loosen(rng, pick(rng, WHO_AM_I)), "You have not told me your name yet.")


def _fact(rng: random.Random) -> tuple[Exchange, Exchange]:
    statement, question, kind = rng.choice(_FACTS)
    value = _value(rng, kind)
    statement = expand(rng, statement, v=value)
    question = expand(rng, question)
    if kind == "pet":
        pet = "dog" if "dog" in statement else "cat"
        question = (
            f"What is my {pet} called?" if rng.random() < 0.6 else f"What is my {pet}'s name?"
        )
        reply = f"Your {pet} is called {value}."
    elif kind == "city":
        verb = "live in" if "live" in statement else "are from"
        question = "Where do I live?" if "live" in statement else "Where am I from?"
        reply = f"You {verb} {value}."
    else:
        reply = _REPLIES[kind].format(v=value)
    heard = rng.choice(["I will remember that.", "Thank you for telling me. I will remember that."])
    prefix = rng.choice(["", "", "", "Please remember: ", "Remember this: "])
    return ask(prefix + statement, heard), ask(loosen(rng, question), reply)


def _value(rng: random.Random, kind: str) -> str:
    if kind == "age":
        return str(rng.randint(5, 99))
    if kind == "number":
        return str(rng.randint(1, 999))
    if kind == "pet" or (kind == "city" and rng.random() < 0.4):
        return name(rng)
    if kind == "word" and rng.random() < 0.5:
        return name(rng).lower()
    return rng.choice(VALUES[kind])


def _lowered(rng: random.Random, said: str, who: str) -> str:
    """At times all lower case but the name, at times without the full stop."""
    if rng.random() < 0.12:
        said = said.lower().replace(who.lower(), who)
    if rng.random() < 0.1:
        said = said.rstrip(".!")
    return said
