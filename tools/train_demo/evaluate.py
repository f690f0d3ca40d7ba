"""
Asks a stored demo model in wordings it has and has not seen, and prints pass rates per skill.

    python tools/train_demo/evaluate.py src/quintet/hub/data/demo.gguf [--failures]
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from answering import Answerer
from corpus import heldout
from corpus.capitals import CAPITALS
from corpus.sample import Message

Check = Callable[[str], bool]
GET_WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather for a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "City name"}},
            "required": ["city"],
        },
    },
}


@dataclass(frozen=True)
class Question:
    messages: list[Message]
    check: Check


@dataclass(frozen=True)
class Suite:
    name: str
    questions: list[Question]
    tools: list[dict[str, Any]] | None = None
    max_new_tokens: int = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--failures", action="store_true", help="print what failed")
    arguments = parser.parse_args()
    answerer = Answerer(arguments.gguf)
    print("| skill | asked | passed |\n| --- | ---: | ---: |")
    for suite in suites(random.Random(7)):
        chats = [question.messages for question in suite.questions]
        answers = answerer.chats(chats, suite.tools, suite.max_new_tokens)
        pairs = list(zip(suite.questions, answers, strict=True))
        failed = [(q, a) for q, a in pairs if a.endswith("[...]") or not q.check(a)]
        print(f"| {suite.name} | {len(pairs)} | {len(pairs) - len(failed)} |", flush=True)
        if arguments.failures:
            for question, answer in failed[:8]:
                print(f"    {question.messages[-1]['content']!r} -> {answer!r}")


def suites(rng: random.Random) -> list[Suite]:
    held_out = heldout.CAPITAL
    countries = list(CAPITALS.items())
    cities = [city for city in CAPITALS.values() if "." not in city][:40]
    pairs = [(rng.randint(0, 20), rng.randint(0, 20)) for _ in range(80)]
    sums = [(a, b) for a, b in pairs if a + b <= 20]
    differences = [(max(pair), min(pair)) for pair in pairs]
    people = [(name, rng.randint(2, 90)) for name in heldout.NAMES]
    return [
        Suite("capitals, plain wording",
              [single(f"What is the capital of {c}?", has(t)) for c, t in countries]),
        Suite("capitals, held-out wordings",
              [single(held_out[i % 3].format(c=c), has(t)) for i, (c, t) in enumerate(countries)]),
        Suite("sums to 20, plain wording",
              [single(f"What is {a} plus {b}?", number(a + b)) for a, b in sums]),
        Suite("sums to 20, held-out wordings",
              [single(w.format(a=a, b=b), number(a + b)) for a, b in sums for w in heldout.SUM]),
        Suite("differences to 20, plain wording",
              [single(f"What is {a} minus {b}?", number(a - b)) for a, b in differences]),
        Suite("differences to 20, held-out wordings",
              [single(heldout.DIFFERENCE[i % 2].format(a=a, b=b), number(a - b))
               for i, (a, b) in enumerate(differences)]),
        Suite("name recalled, plain wording, held-out names",
              [named(n, f"My name is {n}.", "What's my name?") for n, _ in people]),
        Suite("name recalled, held-out wordings and names",
              [named(n, heldout.INTRODUCTION[i % 2].format(n=n), heldout.WHO_AM_I[i // 2 % 2])
               for i, (n, _) in enumerate(people)]),
        Suite("name and age as JSON, plain wording, held-out names",
              [single(f"Reply in JSON with name and age: {n} is {a}", is_json(n, a))
               for n, a in people]),
        Suite("name and age as JSON, held-out wordings and names",
              [single(heldout.JSON[i % 3].format(n=n, a=a), is_json(n, a))
               for i, (n, a) in enumerate(people)]),
        Suite("weather tool call, plain wording",
              [single(f"What is the weather in {c}?", calls_weather(c)) for c in cities],
              [GET_WEATHER]),
        Suite("weather tool call, held-out wordings",
              [single(heldout.WEATHER[i % 3].format(c=c), calls_weather(c))
               for i, c in enumerate(cities)], [GET_WEATHER]),
        Suite("answer from the tool's response", [reported(c, rng) for c in cities], [GET_WEATHER]),
        Suite("no call when a tool is of no use",
              [single(f"What is the capital of {c}?", has(t)) for c, t in countries[:40]],
              [GET_WEATHER]),
        Suite("story, held-out wordings", [single(q, is_story) for q in heldout.STORY],
              max_new_tokens=320),
        Suite("haiku, held-out wordings", [single(q, has_lines(3)) for q in heldout.HAIKU]),
        Suite("poem, held-out wordings", [single(q, has_lines(4)) for q in heldout.POEM],
              max_new_tokens=80),
        Suite("small talk, held-out wordings",
              [single(q, has(word)) for q, word in heldout.TALK.items()]),
        Suite("what is ..., held-out wordings",
              [single(q, has(word)) for q, word in heldout.KNOWLEDGE.items()]),
        Suite("unknown, held-out questions",
              [single(q, has("do not know")) for q in heldout.UNKNOWN]),
    ]  # fmt: skip


def single(question: str, check: Check) -> Question:
    return Question([{"role": "user", "content": question}], check)


def named(name: str, said: str, question: str) -> Question:
    return Question([
        {"role": "user", "content": said},
        {"role": "assistant", "content": f"Nice to meet you, {name}!"},
        {"role": "user", "content": question},
    ], has(name))  # fmt: skip


def reported(city: str, rng: random.Random) -> Question:
    degrees, sky = rng.randint(-5, 35), rng.choice(["sunny", "cloudy", "rainy"])
    call = {"function": {"name": "get_weather", "arguments": {"city": city}}}
    response = json.dumps({"temperature": degrees, "condition": sky})
    return Question([
        {"role": "user", "content": f"What is the weather in {city}?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": response},
    ], lambda answer: sky in answer and str(degrees) in answer and city in answer)  # fmt: skip


def has(text: str) -> Check:
    return lambda answer: text.lower() in answer.lower()


def number(value: int) -> Check:
    """The last number of the answer is the result."""
    return lambda answer: re.findall(r"-?\d+", answer)[-1:] == [str(value)]


def is_json(name: str, age: int) -> Check:
    def check(answer: str) -> bool:
        try:
            return bool(json.loads(answer) == {"name": name, "age": age})
        except json.JSONDecodeError:
            return False

    return check


def calls_weather(city: str) -> Check:
    def check(answer: str) -> bool:
        match = re.fullmatch(r"<tool_call>\n(.*)\n</tool_call>", answer)
        if match is None:
            return False
        try:
            call = json.loads(match.group(1))
        except json.JSONDecodeError:
            return False
        return bool(call == {"name": "get_weather", "arguments": {"city": city}})

    return check


def is_story(answer: str) -> bool:
    """Five or more sentences, and a hero who is named more than once."""
    sentences = re.findall(r"[.!?]\"?(?:\s|$)", answer)
    names = re.findall(r"named ([A-Z]\w+)", answer)
    return len(sentences) >= 5 and bool(names) and answer.count(names[0]) >= 3


def has_lines(count: int) -> Check:
    return lambda answer: len([line for line in answer.splitlines() if line.strip()]) == count


if __name__ == "__main__":
    main()
