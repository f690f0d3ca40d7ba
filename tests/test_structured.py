"""Constraints, tools and thinking through LLM and AsyncLLM, on the packaged model."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from quintet import LLM, AsyncLLM, RequestError, SamplingParams
from quintet.engine.output import RequestOutput
from quintet.sampling import Constraint

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 24},
                "unit": {"enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"$ref": "#/$defs/zone"}},
            "required": ["zone"],
            "$defs": {"zone": {"enum": ["UTC", "CET"]}},
        },
    },
}
TOOLS = [WEATHER, TIME]
SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
GREEDY = SamplingParams(max_tokens=96, temperature=0)
NAMED = {"type": "function", "function": {"name": "get_time"}}


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    """The packaged model."""
    with LLM("demo", num_threads=1) as llm:
        yield llm


def wild(constraint: Constraint | None = None, seed: int = 0, max_tokens: int = 256) -> Any:
    """Sampling that would never give valid JSON by itself."""
    return SamplingParams(temperature=1.5, seed=seed, max_tokens=max_tokens, constraint=constraint)


def random_schema(choices: random.Random, depth: int = 0) -> dict[str, Any]:
    """A schema whose instances are short."""
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const", "pattern"]
    if depth < 3:
        kinds += ["object"] * 4 + ["array", "array", "anyOf", "tuple", "ref"]
    kind = choices.choice(kinds if depth else ["object", "array", "anyOf"])
    if kind == "enum":
        return {"enum": choices.sample(["red", "green", 7, None, True, -1.5, "a b"], 3)}
    if kind == "const":
        return {"const": choices.choice(["x", 3, {"a": [1, None]}, False])}
    if kind == "pattern":
        return {"type": "string", "pattern": choices.choice(["^[a-c]{2,4}$", "^\\d+-\\d$", "q"])}
    if kind == "string":
        return {"type": "string", "minLength": choices.randint(0, 2), "maxLength": 8}
    if kind == "integer":
        low = choices.randint(-20, 10)
        return {"type": "integer", "minimum": low, "maximum": low + choices.randint(0, 40)}
    if kind == "number":
        return {"type": "number", "exclusiveMinimum": 0, "maximum": choices.randint(1, 99)}
    if kind == "array":
        low = choices.randint(0, 2)
        items = random_schema(choices, depth + 1)
        return {"type": "array", "items": items, "minItems": low, "maxItems": low + 1}
    if kind == "tuple":
        items = [random_schema(choices, depth + 1) for _ in range(2)]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": 2}
    if kind == "anyOf":
        return {"anyOf": [random_schema(choices, depth + 1) for _ in range(2)]}
    if kind == "ref":
        return {"$ref": "#/$defs/shared"}
    if kind == "object":
        names = choices.sample(["name", "age", "x-y", "ü", "tags", "a b"], choices.randint(1, 3))
        return {
            "type": "object",
            "properties": {name: random_schema(choices, depth + 1) for name in names},
            "required": names[: choices.randint(0, len(names))],
            "additionalProperties": False,
        }
    return {"type": kind}


def test_answers_follow_random_schemas(llm: LLM) -> None:
    """Whatever the model wants to say at temperature 1.5, what ends by itself is valid."""
    choices = random.Random(4)
    schemas = [
        {**random_schema(choices), "$defs": {"shared": {"type": "integer", "multipleOf": 3}}}
        for _ in range(60)
    ]
    params = [wild(Constraint.json_schema(schema), seed) for seed, schema in enumerate(schemas)]
    outputs = llm.generate(["Data:"] * len(schemas), params)
    num_ended = 0
    for schema, output in zip(schemas, outputs, strict=True):
        assert output.finish_reason in ("stop", "length")
        if output.finish_reason == "stop":
            num_ended += 1
            jsonschema.validate(json.loads(output.text), schema, jsonschema.Draft202012Validator)
    assert num_ended > 50


def test_json_mode_gives_objects(llm: LLM) -> None:
    """Any JSON object may come, and nothing else."""
    outputs = llm.generate(
        ["Say something: "] * 8, [wild(Constraint.json_object(), i) for i in range(8)]
    )
    ended = [output.text for output in outputs if output.finish_reason == "stop"]
    assert ended
    assert all(isinstance(json.loads(text), dict) for text in ended)


@pytest.mark.parametrize(
    "pattern", [r"\d{4}-\d{2}-\d{2}", r"(yes|no), [a-z]{3,9}\.", r"[A-Z][^\n\"]{0,12}!"]
)
def test_answers_match_a_regex(llm: LLM, pattern: str) -> None:
    """The whole answer matches, by Python's own `re`."""
    params = [wild(Constraint.regex(pattern), seed) for seed in range(8)]
    for output in llm.generate(["When? "] * 8, params):
        assert output.finish_reason == "stop"
        assert re.fullmatch(pattern, output.text, re.ASCII)


def test_a_stop_string_and_n_work_with_a_constraint(llm: LLM) -> None:
    """Every one of several answers has a matcher of its own; a stop string still cuts."""
    params = SamplingParams(
        temperature=1.5,
        seed=1,
        n=4,
        max_tokens=40,
        constraint=Constraint.regex("[a-z]{5}-[a-z]{5}"),
    )
    (output,) = llm.generate(["x"], params)
    texts = [choice.text for choice in output.choices]
    assert len(set(texts)) > 1
    assert all(re.fullmatch("[a-z]{5}-[a-z]{5}", text) for text in texts)
    stopped = SamplingParams(temperature=0, stop="-", constraint=params.constraint)
    assert re.fullmatch("[a-z]{5}", llm.generate(["x"], stopped)[0].text)


def test_a_bad_constraint_is_a_request_error(llm: LLM) -> None:
    """Nothing is computed, and the other prompts are not started either."""
    num_requests = llm.stats().num_requests
    params = [wild(), wild(Constraint.regex("("))]
    with pytest.raises(RequestError, match="constraint"):
        llm.generate(["a", "b"], params)
    assert llm.stats().num_requests == num_requests


def check_calls(output: RequestOutput, names: set[str]) -> None:
    """The calls are valid, and there is nothing else."""
    assert output.text == ""
    assert output.tool_calls
    for call in output.tool_calls:
        assert call.name in names
        jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("choice", ["required", NAMED])
def test_tool_choice_is_enforced(llm: LLM, choice: Any, temperature: float) -> None:
    """A required or named call comes with arguments that follow its schema."""
    names = {"get_time"} if choice is NAMED else {"get_weather", "get_time"}
    for seed in range(4):
        params = SamplingParams(temperature=temperature, seed=seed, max_tokens=256)
        one = llm.chat(QUESTION, params, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
        assert one.finish_reason == "stop"
        assert len(one.tool_calls) == 1
        check_calls(one, names)
    many = llm.chat(QUESTION, GREEDY, tools=TOOLS, tool_choice=choice)
    if many.finish_reason == "stop":
        check_calls(many, names)


def test_tool_choice_none_hides_the_tools(llm: LLM) -> None:
    """The same answer as without tools, and no call in it."""
    hidden = llm.chat(QUESTION, GREEDY, tools=TOOLS, tool_choice="none")
    assert hidden.text == llm.chat(QUESTION, GREEDY).text
    assert hidden.tool_calls == ()


@pytest.mark.parametrize(
    "options",
    [
        {"tool_choice": "required"},
        {"tools": [], "tool_choice": "required"},
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "nope"}}},
        {"tools": TOOLS, "tool_choice": "get_time"},
        {"tools": TOOLS, "tool_choice": {"name": "get_time"}},
        {"tools": "get_time"},
        {"tools": [{"type": "function"}]},
        {"tools": [{"name": 1}]},
        {"tools": [{"name": "f", "parameters": "string"}]},
        {"tools": TOOLS * 200},
    ],
)
def test_tools_that_make_no_sense_are_refused(llm: LLM, options: dict[str, Any]) -> None:
    """Broken tools and choices without a tool are the request's error."""
    with pytest.raises(RequestError) as error:
        llm.chat(QUESTION, GREEDY, **options)
    assert error.value.parameter in ("tools", "tool_choice")


def test_a_tool_with_a_hostile_schema_is_refused(llm: LLM) -> None:
    """A schema that does not compile is an error that names the tools."""
    bad = {"name": "f", "parameters": {"properties": {"a": {"type": "string", "pattern": "("}}}}
    with pytest.raises(RequestError) as error:
        llm.chat(QUESTION, GREEDY, tools=[bad], tool_choice="required")
    assert error.value.parameter == "tools"


def test_tool_choice_and_constraint_exclude_each_other(llm: LLM) -> None:
    """Which form the answer should have would be anyone's guess."""
    params = SamplingParams(constraint=Constraint.json_object())
    with pytest.raises(RequestError, match="tool_choice"):
        llm.chat(QUESTION, params, tools=TOOLS, tool_choice="required")


def test_with_a_schema_the_model_may_call_or_answer(llm: LLM) -> None:
    """Under "auto" a JSON schema leaves both open; a bias shows each."""
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    call = llm.tokenizer.token_to_id("<tool_call>")
    assert call is not None
    for bias in (100.0, -100.0):
        params = SamplingParams(
            temperature=0,
            max_tokens=160,
            logit_bias={call: bias},
            constraint=Constraint.json_schema({**schema, "additionalProperties": False}),
        )
        output = llm.chat(QUESTION, params, tools=[WEATHER], parallel_tool_calls=False)
        assert output.finish_reason == "stop"
        if output.tool_calls:
            check_calls(output, {"get_weather"})
        else:
            assert json.loads(output.text) == {"a": 1}
        if bias > 0:
            assert output.tool_calls


def test_chunks_carry_what_the_output_has(llm: LLM) -> None:
    """A stream's deltas add up to the whole answer's calls and text."""
    output = llm.chat(QUESTION, GREEDY, tools=TOOLS, tool_choice=NAMED, parallel_tool_calls=False)
    chunks = list(
        llm.stream_chat(QUESTION, GREEDY, tools=TOOLS, tool_choice=NAMED, parallel_tool_calls=False)
    )
    deltas = [delta for chunk in chunks for delta in chunk.tool_calls]
    assert [delta.name for delta in deltas if delta.name] == ["get_time"]
    assert "".join(delta.arguments for delta in deltas) == output.tool_calls[0].arguments
    assert len(deltas) > 2
    assert "".join(chunk.text for chunk in chunks) == output.text


def test_async_llm_gives_the_same(llm: LLM) -> None:
    """Calls, thoughts and constrained answers are the same in both interfaces."""
    regex = SamplingParams(temperature=0, constraint=Constraint.regex("[a-z]{20}"))

    async def main() -> None:
        async with AsyncLLM("demo", num_threads=1) as other:
            options = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
            ours = llm.chat(QUESTION, GREEDY, **options)
            theirs = await other.chat(QUESTION, GREEDY, **options)
            assert [(c.name, c.arguments) for c in ours.tool_calls] == [
                (c.name, c.arguments) for c in theirs.tool_calls
            ]
            assert (ours.text, ours.reasoning) == (theirs.text, theirs.reasoning)
            chunks = [chunk async for chunk in other.stream_chat(QUESTION, GREEDY, **options)]
            arguments = "".join(d.arguments for chunk in chunks for d in chunk.tool_calls)
            assert arguments == ours.tool_calls[0].arguments
            assert (await other.generate("x", regex))[0].text == llm.generate("x", regex)[0].text
            with pytest.raises(RequestError):
                await other.generate("x", wild(Constraint.regex("(")))

    asyncio.run(main())


def test_an_isolated_model_takes_constraints_too() -> None:
    """The worker compiles; what does not compile is refused before it is queued."""
    with LLM("demo", num_threads=1, isolated=True) as llm:
        output = llm.chat(
            QUESTION, GREEDY, tools=TOOLS, tool_choice="required", parallel_tool_calls=False
        )
        check_calls(output, {"get_weather", "get_time"})
        with pytest.raises(RequestError) as error:
            llm.generate("x", wild(Constraint.regex("(")))
        assert error.value.parameter == "constraint"
        assert llm.stats().num_requests == 1
