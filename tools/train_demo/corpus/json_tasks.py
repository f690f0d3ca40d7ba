"""Facts in a sentence, answered as a JSON object with the keys that were asked for."""

# ruff: noqa: E501 - long lines and split strings keep the word lists readable
from __future__ import annotations

import json
import random

from .people import VALUES, name
from .sample import Exchange, ask, pick

PERSON = [
    "{n} is {a}", "{n} is {a} years old", "{n} is {a} years old.", "{n} is {a}.", "{n}, {a}",
    "{n}, aged {a}", "{n} turned {a}[ today| last week|].", "My friend {n} is {a}.",
    "[This is|Meet] {n}, who is {a} years old.", "The name is {n} and the age is {a}.",
    "I am {n} and I am {a}.", "name {n}, age {a}", "{n} ({a})", "At {a}, {n} still loves to dance.",
]  # fmt: skip
EXTRAS = {
    "city": ["{n} lives in {v}", "{n} is from {v}", "{n} comes from {v}"],
    "job": ["{n} is a {v}", "{n} works as a {v}"],
    "colour": ["{n} likes {v}", "{n} loves the colour {v}"],
    "food": ["{n} likes {v}", "{n} loves {v}"],
    "animal": ["{n} has a {v}", "{n} owns a {v}"],
}
KEY_NAMES = {"city": ["city", "town", "location"], "job": ["job", "profession", "occupation"],
             "colour": ["colour", "color"], "food": ["food", "favourite_food"],
             "animal": ["pet", "animal"], "name": ["name"] * 5 + ["first_name", "person"],
             "age": ["age"] * 6 + ["years"]}  # fmt: skip
COMMAND = [
    "[Reply|Answer|Respond] in JSON with {k}: {s}",
    "[Reply|Answer|Respond] [in|with|using] JSON with [the keys |keys |the fields |]{k}: {s}",
    "[Reply|Answer|Respond] [only |]in JSON with {k}[:|.] {s}",
    "[Return|Give me|Write|Make|Produce|Create|Output] [a |]JSON [object |]with {k}[:|.] {s}",
    "[Return|Give me|Write|Make|Produce|Create|Output] [a |]JSON [object |]with {k} for[:|] {s}",
    "[Extract|Find|Get] {k} as JSON: {s}",
    "[Extract|Find|Get] {k} [as JSON |]from: {s} [Reply in JSON.|Answer in JSON.|Use JSON.]",
    "[Turn|Convert|Put] this into JSON with {k}: {s}",
    "{s} [Reply|Answer|Respond] in JSON with {k}.",
    "{s} [Give me|Return|Write] this as JSON with {k}.",
    "As JSON with {k}: {s}",
    "JSON with {k}: {s}",
    "JSON: {s}",
    "[Write|Give|Say] {s} as JSON",
]
PLAIN = [
    ("[Return|Give me|Write|Show me|Create] [a|an example of a|a small|a valid|any|some] JSON[ object|].", '{"name": "Ada", "age": 36}'),
    ("[Reply|Answer|Respond] in JSON.", '{"answer": "Hello! How can I help you today?"}'),
    ("[Say hello|Hello|Greet me] in JSON.", '{"greeting": "Hello!"}'),
    ("[List|Name|Give me] three [colours|colors] [in|as] [JSON|a JSON list|a JSON array].", '["red", "green", "blue"]'),
    ("[List|Name|Give me] three fruits [in|as] [JSON|a JSON list|a JSON array].", '["apple", "banana", "cherry"]'),
    ("What is the capital of France? [Reply|Answer] in JSON.", '{"capital": "Paris"}'),
]  # fmt: skip


def exchange(rng: random.Random) -> Exchange:
    if rng.random() < 0.07:
        question, reply = rng.choice(PLAIN)
        return ask(pick(rng, [question]), reply)
    who = name(rng)
    facts: list[tuple[str, str, str | int]] = []  # kind, sentence, value
    if rng.random() < 0.75:
        age = rng.randint(1, 99)
        facts.append(("age", pick(rng, PERSON, n=who, a=age), age))
    for kind in rng.sample(list(EXTRAS), rng.choice([0, 0, 1, 1, 2])):
        value = rng.choice(VALUES[kind])
        facts.append((kind, pick(rng, EXTRAS[kind], n=who, v=value), value))
    if not facts:
        return exchange(rng)
    if facts[0][0] != "age" or rng.random() < 0.2:
        rng.shuffle(facts)
    return _question(rng, who, facts)


def _question(rng: random.Random, who: str, facts: list[tuple[str, str, str | int]]) -> Exchange:
    sentences = [facts[0][1].rstrip(".")]
    for _, sentence, _ in facts[1:]:
        follow = (
            sentence if rng.random() < 0.4 else sentence.replace(who, rng.choice(["He", "She"]), 1)
        )
        sentences.append(follow)
    if len(sentences) == 2 and rng.random() < 0.5:
        statement = (
            sentences[0]
            + " and "
            + sentences[1].replace(who + " ", "").replace("He ", "").replace("She ", "")
        )
    else:
        statement = ". ".join(sentences)
    command = pick(rng, COMMAND)
    if statement[-1] != ")" and (
        rng.random() < 0.4 or command.startswith("{s}") or "{s} [" in command
    ):
        statement += "."
    keys = {rng.choice(KEY_NAMES["name"]): who} | {rng.choice(KEY_NAMES[k]): v for k, _, v in facts}
    if "{k}" not in command:
        keys = {"name": who} | {k: v for k, _, v in facts}
    elif len(keys) > 2 and rng.random() < 0.3:
        keys.pop(rng.choice(list(keys)))
    elif rng.random() < 0.1:
        keys = dict(reversed(keys.items()))
    names = list(keys)
    listed = (
        ", ".join(names[:-1]) + rng.choice([" and ", ", "]) + names[-1] if names[1:] else names[0]
    )
    if rng.random() < 0.1:
        listed = ", ".join(f'"{key}"' for key in names)
    question = command.replace("{k}", listed).replace("{s}", statement)
    if rng.random() < 0.08:
        question = question.replace("JSON", "json")
    return ask(question, json.dumps(keys))
