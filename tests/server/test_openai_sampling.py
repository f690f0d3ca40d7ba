"""Sampler, constraint and scheduling fields of /v1, by the names other servers gave them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from quintet.engine.request import Priority
from quintet.errors import RequestError
from quintet.sampling import Constraint
from quintet.sampling.params import SamplingParams
from quintet.server.bodies import parse_body
from quintet.server.dialects.openai.bodies import ChatBody, CompletionBody
from quintet.server.dialects.openai.chat import chat_requests
from quintet.server.dialects.openai.completions import completion_requests
from quintet.server.errors import UnsupportedParameterError
from quintet.server.keep_alive import keep_alive_s
from quintet.server.requests import GenerationRequest

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
USER = {"role": "user", "content": "Hi"}


def requests(**fields: Any) -> list[GenerationRequest]:
    """The same fields on both routes, which must agree."""
    chat = chat_requests(parse_body(ChatBody, {"model": "m", "messages": [USER], **fields}))
    body = {"model": "m", "prompt": "a", "max_tokens": -1, **fields}
    completion = completion_requests(parse_body(CompletionBody, body))
    assert chat[0].params == completion[0].params
    assert chat[0].options == completion[0].options
    return chat


def params(**fields: Any) -> SamplingParams:
    return requests(**fields)[0].params


def test_every_sampler_of_the_engine_can_be_set():
    """What vLLM and llama-server call it reaches the sampler on both routes."""
    assert params(
        typical_p=0.9, top_n_sigma=1.5, dynatemp_range=0.5, dynatemp_exponent=2, xtc_threshold=0.2,
        xtc_probability=0.5, dry_multiplier=0.8, dry_base=2, dry_allowed_length=3,
        dry_penalty_last_n=64, dry_sequence_breakers=["\n"], repeat_last_n=32, repeat_penalty=1.2,
        include_stop_str_in_output=True, samplers=["penalties", "dry", "typ_p", "top_n_sigma",
        "xtc", "temperature"], stop=["x"],
    ) == SamplingParams(
        max_tokens=None, typical_p=0.9, top_n_sigma=1.5, dynatemp_range=0.5, dynatemp_exponent=2.0,
        xtc_threshold=0.2, xtc_probability=0.5, dry_multiplier=0.8, dry_base=2.0,
        dry_allowed_length=3, dry_penalty_last_n=64, dry_sequence_breakers=["\n"],
        penalty_last_n=32, repetition_penalty=1.2, include_stop_str_in_output=True, stop=["x"],
        sampler_order=["penalties", "dry", "typical_p", "top_n_sigma", "xtc", "temperature"],
    )  # fmt: skip
    mirostat = params(mirostat=2, mirostat_tau=4, mirostat_eta=0.2)
    assert (mirostat.mirostat, mirostat.mirostat_tau, mirostat.mirostat_eta) == (2, 4.0, 0.2)


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"typical_p": 1.1}, "typical_p"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repeat_penalty": 1.1, "repetition_penalty": 1.1}, "repeat_penalty"),
        ({"repeat_last_n": -2}, "repeat_last_n"),
        ({"samplers": ["top_k", "warp"]}, "samplers"),
        ({"samplers": ["top_k"], "top_p": 0.5}, "samplers"),
        ({"samplers": "kp"}, "samplers"),
        ({"mirostat": 3}, "mirostat"),
        ({"mirostat": 1, "top_k": 5}, "top_k"),
        ({"dry_sequence_breakers": ["a" * 41]}, "dry_sequence_breakers"),
        ({"xtc_probability": "1"}, "xtc_probability"),
        ({"priority": 0.5}, "priority"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "1"}, "timeout"),
        ({"keep_alive": []}, "keep_alive"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": [1]}, "guided_choice"),
        ({"guided_regex": 1}, "guided_regex"),
        ({"guided_json": 1}, "guided_json"),
        ({"guided_regex": "a" * 70_000}, "guided_regex"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs"),
        ({"grammar": "root ::= 'a'", "guided_regex": "a"}, "grammar"),
        ({"response_format": {"type": "json_object"}, "guided_json": SCHEMA}, "guided_json"),
    ],
)
def test_a_refusal_names_the_field_the_client_sent(fields: dict[str, Any], parameter: str):
    """Where the engine calls a parameter by another name, the client does not read that one."""
    with pytest.raises(RequestError) as caught:
        requests(**fields)
    assert (caught.value.parameter or "").split(".")[0] == parameter
    assert str(caught.value).startswith(parameter)


@pytest.mark.parametrize(
    "fields",
    [
        {"allowed_token_ids": [1]},
        {"bad_words": ["x"]},
        {"use_beam_search": True},
        {"truncate_prompt_tokens": 5},
        {"structured_outputs": {"structural_tag": {}}},
    ],
)
def test_samplers_the_engine_lacks_are_refused(fields: dict[str, Any]):
    """Rather than ignored: each of them would change the answer."""
    with pytest.raises(UnsupportedParameterError):
        requests(**fields)


@pytest.mark.parametrize(
    ("fields", "constraint"),
    [
        ({"guided_json": SCHEMA}, Constraint.json_schema(SCHEMA)),
        ({"guided_json": '{"type": "object"}'}, Constraint.json_object()),
        ({"guided_regex": "[ab]+"}, Constraint.regex("[ab]+")),
        ({"guided_choice": ["yes", "no"]}, Constraint.choice(["yes", "no"])),
        ({"guided_grammar": 'root ::= "a"'}, Constraint.gbnf('root ::= "a"')),
        ({"guided_grammar": 'start: "a"'}, Constraint.lark('start: "a"')),
        ({"grammar": 'root ::= "a"'}, Constraint.gbnf('root ::= "a"')),
        ({"grammar": ""}, None),
        ({"json_schema": SCHEMA}, Constraint.json_schema(SCHEMA)),
        ({"structured_outputs": {"json": SCHEMA}}, Constraint.json_schema(SCHEMA)),
        ({"structured_outputs": {"regex": "a"}}, Constraint.regex("a")),
        ({"structured_outputs": {"choice": ["a"]}}, Constraint.choice(["a"])),
        ({"structured_outputs": {"grammar": 'root ::= "a"'}}, Constraint.gbnf('root ::= "a"')),
        ({"structured_outputs": {"json_object": True}}, Constraint.json_object()),
        ({"structured_outputs": {}}, None),
    ],
)
def test_guided_decoding_in_all_spellings(fields: dict[str, Any], constraint: Constraint | None):
    """vLLM's older and newer fields and llama-server's are one constraint to the engine."""
    found = params(**fields).constraint
    assert found == constraint
    if found is not None:
        assert found.parameter.split(".")[0] in fields


def test_priority_and_timeout_reach_the_engine():
    """vLLM's priorities count downwards from the most urgent; a time limit is in seconds."""
    assert requests()[0].options == {}
    assert requests(priority=0)[0].options == {}
    assert requests(priority=-3)[0].options == {"priority": Priority.HIGH}
    assert requests(priority=7, timeout=1.5)[0].options == {
        "priority": Priority.LOW,
        "timeout_s": 1.5,
    }


def test_no_effort_switches_thinking_off():
    """reasoning_effort "none" is the switch; any other effort is left to the model."""

    def thinking(**fields: Any) -> bool | None:
        body = parse_body(ChatBody, {"model": "m", "messages": [USER], **fields})
        return chat_requests(body)[0].prompt.enable_thinking

    assert thinking(reasoning_effort="none") is False
    assert thinking(reasoning_effort="high") is None
    assert thinking(reasoning_effort="none", enable_thinking=True) is True


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), (0, 0.0), (300, 300.0), (1.5, 1.5), (-1, math.inf), ("10", 10.0),
        ("-1", math.inf), ("5m", 300.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("-1m", math.inf),
        ("250ms", 0.25), ("+2s", 2.0), ("0", 0.0), (".5s", 0.5),
    ],
)  # fmt: skip
def test_keep_alive_is_seconds_or_a_duration(value: Any, seconds: float | None):
    """Numbers and Go's durations; negative ones mean for ever."""
    assert keep_alive_s(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "m", "5 m", "5mm", "h5", "1e3s", "5m-1s", "x" * 100])
def test_other_durations_are_refused(value: str):
    """Anything else names the field."""
    with pytest.raises(RequestError) as caught:
        keep_alive_s(value)
    assert caught.value.parameter == "keep_alive"
