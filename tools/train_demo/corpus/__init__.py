"""The training text: skills, their shares, and how exchanges are joined into chats."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from . import (
    arithmetic,
    capitals,
    facts,
    heldout,
    json_tasks,
    language,
    people,
    poems,
    smalltalk,
    stories,
    tool_calls,
)
from .sample import Exchange, Message, Sample

__all__ = ["Sample", "draw"]

# Share of exchanges; what is hard to learn (copying, facts) gets more.
SKILLS: list[tuple[float, Callable[[random.Random], Exchange]]] = [
    (15, capitals.exchange),
    (50, arithmetic.exchange),
    (13, facts.exchange),
    (11, smalltalk.exchange),
    (5, smalltalk.unknown),
    (25, json_tasks.exchange),
    (5, stories.exchange),
    (5, poems.exchange),
    (6, language.exchange),
    (1, people.at_once),
    (1, people.nameless),
]
RAW = [(5, stories.raw), (3, capitals.raw), (4, facts.raw), (1, language.raw), (1, smalltalk.raw)]
SYSTEM_PROMPTS = [
    "You are a helpful assistant.", "You are a helpful assistant.", "You are a helpful assistant.",
    "You are a helpful AI assistant.", "You are helpful.", "You are a friendly assistant.",
    "You are a Python expert.", "You are a helpful coding assistant.", "You are an assistant.",
    "You are a concise assistant.", "Be brief.", "Answer briefly.", "Be helpful.",
    "You are Quintet, a small demo model.", "You are a teacher.", "You are a storyteller.",
    "You are a helpful and honest assistant. Answer in one sentence.", "You are a poet.",
    "You are a chatbot on a web site.", "Always answer politely.", "You are a helpful assistant"
    " with access to tools.", "Reply in English.", "You are an expert.", "Help the user.",
]  # fmt: skip


def draw(rng: random.Random) -> Sample:
    """One training sample; never one that asks in a held-out wording."""
    while True:
        sample = _draw(rng)
        asked = [m["content"] for m in sample.messages if m["role"] == "user"]
        if not any(normalise(question) in _HELD_OUT for question in asked):
            return sample


def normalise(question: str) -> str:
    """Lower case without punctuation: wordings that differ only in these count as the same."""
    return re.sub(r"[^a-z0-9+*/ -]", "", question.lower()).strip()


def _draw(rng: random.Random) -> Sample:
    roll = rng.random()
    if roll < 0.07:
        return _weighted(rng, RAW)(rng)
    if roll < 0.20:
        tools, turns = tool_calls.chat(rng)
        return Sample(messages=_system(rng, 0.3) + turns, tools=tools)
    if roll < 0.33:
        return Sample(messages=_system(rng, 0.35) + _memory_chat(rng))
    count = rng.choices([1, 2, 3, 4, 6, 9], [70, 14, 8, 4, 2.5, 1.5])[0]
    turns = [message for _ in range(count) for message in _weighted(rng, SKILLS)(rng)]
    return Sample(messages=_system(rng, 0.35) + turns)


def _memory_chat(rng: random.Random) -> list[Message]:
    """A statement, a question about it, and up to a few other exchanges between them."""
    statement, question = people.memory(rng)
    between = rng.choices([0, 1, 2, 4], [60, 22, 13, 5])[0]
    before = rng.choices([0, 1], [88, 12])[0]
    turns = [m for _ in range(before) for m in _weighted(rng, SKILLS[:5])(rng)]
    turns += statement
    for _ in range(between):
        turns += _weighted(rng, SKILLS[:-2])(rng)
    turns += question
    if rng.random() < 0.1:
        turns += _weighted(rng, SKILLS[:-2])(rng)
    return turns


def _system(rng: random.Random, share: float) -> list[Message]:
    if rng.random() >= share:
        return []
    return [{"role": "system", "content": rng.choice(SYSTEM_PROMPTS)}]


def _weighted(rng: random.Random, options: list) -> Callable:  # type: ignore[type-arg]
    return rng.choices([maker for _, maker in options], [weight for weight, _ in options])[0]


_HELD_OUT = {normalise(question) for question in heldout.all_wordings()}
