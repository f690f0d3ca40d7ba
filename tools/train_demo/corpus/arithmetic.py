"""Sums and differences of numbers to 20, small products, comparing and counting."""

# ruff: noqa: SIM905 - long lines and split strings keep the word lists readable
from __future__ import annotations

import random

from .sample import Exchange, ask, loosen, pick

WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen twenty""".split()

SUM = [
    "[What is|What's|Calculate|Compute|How much is|What does|Tell me|Work out|Find] {a} plus {b}?",
    "[What is|What's|Calculate|Compute|How much is|Solve|] {a} + {b}[?| = ?| =]",
    "{a}+{b}[?|=|=?]",
    "[Add|Please add|Can you add|Sum] {a} and {b}.",
    "[What is|Give me|Find|Calculate] the sum of {a} and {b}[?|.]",
    "[What do you get|What is the result] if you add {b} to {a}?",
    "{a} plus {b} [is|equals|makes][ what|]?",
    "[What do|What do the numbers] {a} and {b} [make|add up to|give][ together|]?",
    "I have {a} apples and get {b} more. How many [apples |]do I have[ now|]?",
    "What does {a} plus {b} [equal|make]?",
    "If I have {a} and add {b}, what do I get?",
]
DIFFERENCE = [
    "[What is|What's|Calculate|Compute|How much is|Tell me|Work out|Find] {a} minus {b}?",
    "[What is|What's|Calculate|Compute|How much is|Solve|] {a} - {b}[?| = ?| =]",
    "{a}-{b}[?|=|=?]",
    "[Subtract|Take|Take away] {b} from {a}.",
    "[What is|Give me|Find|Calculate] the difference [between|of] {a} and {b}[?|.]",
    "[What do you get|What is the result] if you [take|subtract] {b} from {a}?",
    "{a} minus {b} [is|equals|makes][ what|]?",
    "[How much is|What is] {a} take away {b}?",
    "I have {a} apples and [eat|lose|give away] {b}. How many [apples |]are left?",
    "What does {a} minus {b} [equal|make]?",
    "[What is|How much is] {b} less than {a}?",
]
PRODUCT = [
    "[What is|What's|Calculate|Compute|How much is] {a} times {b}?",
    "[What is|Calculate|] {a} [*|x] {b}[?| = ?|]",
    "[Multiply|Please multiply] {a} by {b}.",
    "{a} times {b}[?| is what?]",
    "[What is|Give me] the product of {a} and {b}?",
]
LARGER = [
    "[Which|What] is [larger|bigger|greater|more], {a} or {b}?",
    "[Which|What] number is [larger|bigger|greater], {a} or {b}?",
    "Is {a} [larger|bigger|greater|more] than {b}?",
]
COUNT = [
    "Count [from {a} |]to {b}[.|]",
    "[Can you|Please] count [from {a} |]to {b}[?|]",
    "Count [up |][from {a} |][up |]to {b} for me.",
    "[List|Say|Write] the numbers from {a} to {b}.",
]


def exchange(rng: random.Random) -> Exchange:
    roll = rng.random()
    if roll < 0.47:
        return _sum(rng)
    if roll < 0.87:
        return _difference(rng)
    if roll < 0.93:
        a, b = rng.randint(0, 10), rng.randint(0, 10)
        question = pick(rng, PRODUCT, a=_written(rng, a), b=_written(rng, b))
        return ask(loosen(rng, question.strip()), f"{a} times {b} is {a * b}.")
    if roll < 0.96:
        return _larger(rng)
    return _count(rng)


def _sum(rng: random.Random) -> Exchange:
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    if a + b > 20 and rng.random() < 0.8:
        a, b = 20 - a, 20 - b
    question = pick(rng, SUM, a=_written(rng, a), b=_written(rng, b))
    return ask(loosen(rng, question.strip()), f"{a} plus {b} is {a + b}.")


def _difference(rng: random.Random) -> Exchange:
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    if a < b and rng.random() < 0.9:
        a, b = b, a
    question = pick(rng, DIFFERENCE, a=_written(rng, a), b=_written(rng, b))
    return ask(loosen(rng, question.strip()), f"{a} minus {b} is {a - b}.")


def _larger(rng: random.Random) -> Exchange:
    a, b = rng.sample(range(21), 2)
    question = pick(rng, LARGER, a=a, b=b)
    if question.startswith("Is"):
        verdict = "Yes" if a > b else "No"
        relation = "larger" if a > b else "smaller"
        return ask(loosen(rng, question), f"{verdict}, {a} is {relation} than {b}.")
    return ask(loosen(rng, question), f"{max(a, b)} is larger than {min(a, b)}.")


def _count(rng: random.Random) -> Exchange:
    first, last = 1, rng.randint(3, 15)
    question = pick(rng, COUNT, a="A", b=last)
    if "A" in question.split():
        first = rng.randint(1, last - 2)
        question = question.replace("A", str(first))
    numbers = ", ".join(str(n) for n in range(first, last + 1))
    return ask(loosen(rng, question), numbers)


def _written(rng: random.Random, number: int) -> str:
    return WORDS[number] if rng.random() < 0.2 else str(number)
