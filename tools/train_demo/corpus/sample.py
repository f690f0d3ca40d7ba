"""What a skill produces, and the small tools with which it varies its wording."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
Exchange = list[Message]
"""One user message and all that follows until the next one, tool calls included."""


@dataclass(frozen=True)
class Sample:
    """One training text: a chat (rendered through the template) or, without messages, raw text."""

    messages: list[Message] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""


def ask(question: str, answer: str) -> Exchange:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def expand(rng: random.Random, pattern: str, **slots: object) -> str:
    """Choose one of every innermost `[a|b|]` group, then fill `{slots}`."""
    while (match := _GROUP.search(pattern)) is not None:
        choice = rng.choice(match.group(1).split("|"))
        pattern = pattern[: match.start()] + choice + pattern[match.end() :]
    return pattern.format(**slots) if slots else pattern


def pick(rng: random.Random, patterns: list[str], **slots: object) -> str:
    return expand(rng, rng.choice(patterns), **slots)


def loosen(rng: random.Random, question: str, *, keep_case: bool = False) -> str:
    """Write a question as people type: lower case, no question mark, a greeting, a please."""
    roll = rng.random()
    if roll < 0.12 and question.endswith("?"):
        question = question[:-1]
    elif roll < 0.16 and question[-1] not in "?.!":
        question += "."
    elif roll < 0.20 and question[-1] in ".":
        question = question[:-1]
    if not keep_case and rng.random() < 0.12:
        question = question.lower()
    if rng.random() < 0.07:
        opening = rng.choice(_OPENINGS)
        starts_freely = not keep_case and question[:2] != "I "
        question = opening + (question[0].lower() + question[1:] if starts_freely else question)
    if rng.random() < 0.05:
        end = question[-1] if question[-1] in "?.!" else ""
        question = question.rstrip("?.!") + ", " + rng.choice(["please", "thanks"]) + end
    return question


def article(noun: str) -> str:
    """The noun with its indefinite article."""
    return ("an " if noun[0].lower() in "aeiou" and noun[:4] != "unic" else "a ") + noun


def capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


_GROUP = re.compile(r"\[([^\[\]]*)\]")
_OPENINGS = [
    "Please ", "Hey, ", "Hi, ", "Hello, ", "So, ", "Okay, ", "Now, ", "Well, ", "Hi! ",
    "Question: ", "Quick question: ", "One more thing: ", "Tell me: ", "I have a question: ",
    "Can you answer this: ",
]  # fmt: skip
