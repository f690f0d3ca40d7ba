"""Bad values on every protocol: the right 4xx in its own shape, and a normal answer after each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from .fake import FakeEngine
from .harness import run, serving

MESSAGES = [{"role": "user", "content": "Hello"}]

# Values that no field of these types takes: JSON has one type for each, and nothing is converted.
WRONG: dict[type, list[Any]] = {
    str: [7, True, [], {}, [None]],
    int: ["7", 1.5, True, [], {}, 2**70, -(2**70)],
    float: ["7", True, [], {}, [0.5]],
    bool: ["yes", 1, 0, "true", [], {}],
    list: ["x", 7, True, {"0": "x"}],
    dict: ["x", 7, True, []],
}


@dataclass(frozen=True)
class Route:
    """
    A path and what it refuses.

    Args:
        path: asked with POST.
        good: a body it answers.
        types: of fields; each gets all values of other types.
        bad: fields with further values that are refused.
    """

    path: str
    good: dict[str, Any]
    types: dict[str, type]
    bad: dict[str, list[Any]]


OPENAI_SAMPLING: dict[str, type] = {
    "temperature": float, "top_p": float, "top_k": int, "seed": int, "max_tokens": int,
    "stream": bool, "presence_penalty": float, "logit_bias": dict,
}  # fmt: skip
OPENAI_RANGES: dict[str, list[Any]] = {
    "model": [None, "", "x" * 257], "temperature": [-1, 1e308], "top_p": [-0.1, 1.1],
    "max_tokens": [2**31, -2], "n": [0, -1, 17, 1.0], "stop": ["", ["a"] * 17, [""], [7]],
    "frequency_penalty": [9, -9], "presence_penalty": [9, -9], "logit_bias": [{"x": 1}, {"1": "a"}],
    "response_format": [{"type": "prose"}, {}, {"type": 7}], "seed": [2**64, -(2**63) - 1],
}  # fmt: skip

PROTOCOLS: dict[str, list[Route]] = {
    "openai": [
        Route(
            "/v1/chat/completions",
            {"model": "m", "messages": MESSAGES},
            {**OPENAI_SAMPLING, "model": str, "messages": list, "tools": list, "logprobs": bool},
            {
                **OPENAI_RANGES,
                "messages": [None, [], [None], [{}], [{"role": "user", "content": 7}],
                             [{"role": "nobody", "content": "Hi"}], [[MESSAGES]],
                             [{"role": "user", "content": [{"type": "text", "text": {}}]}]],
                "tools": [[{}], [{"type": "function"}], [None]],
                "tool_choice": ["always", 7, {"type": "function"}],
                "top_logprobs": [21, -1], "reasoning_effort": ["maximal"],
            },
        ),
        Route(
            "/v1/completions",
            {"model": "m", "prompt": "Hello"},
            {**OPENAI_SAMPLING, "echo": bool},
            {**OPENAI_RANGES, "prompt": [None, {}, 7, [[]] * 65, [1, "a"], [-1], [2**31], [[1.5]]],
             "best_of": [0, 17], "logprobs": [21, -1]},
        ),
        Route(
            "/v1/embeddings",
            {"model": "m", "input": "Hello"},
            {"model": str, "dimensions": int},
            {"input": [None, "", [], [""], {}, 7, [None], ["a"] * 2049, [-1]],
             "dimensions": [0, -1], "encoding_format": ["hex", 7]},
        ),
        Route(
            "/v1/responses",
            {"model": "m", "input": "Hello"},
            {"model": str, "instructions": str, "max_output_tokens": int, "store": bool,
             "tools": list, "metadata": dict, "stream": bool},
            {"input": [7, {}, [{}], [None], [{"role": "user", "content": 7}]],
             "max_output_tokens": [0, -1], "truncation": ["middle"],
             "metadata": [{"a": 1}, {"k" * 65: "v"}], "reasoning": [{"effort": "maximal"}, []]},
        ),
    ],
    "anthropic": [
        Route(
            "/v1/messages",
            {"model": "m", "max_tokens": 8, "messages": MESSAGES},
            {"model": str, "max_tokens": int, "messages": list, "temperature": float,
             "top_p": float, "top_k": int, "stream": bool, "stop_sequences": list,
             "thinking": dict, "tools": list, "tool_choice": dict},
            {"max_tokens": [None, 0, -1, 2**31], "temperature": [-1],
             "top_p": [2], "messages": [[], [{"role": "system", "content": "Hi"}], [{}], None],
             "system": [7, [{}]], "stop_sequences": [[""], [7], ["a"] * 17],
             "tool_choice": [{"type": "some"}], "thinking": [{"type": "hard"}],
             "tools": [[{}], [{"name": ""}]]},
        ),
        Route(
            "/v1/messages/count_tokens",
            {"model": "m", "messages": MESSAGES},
            {"model": str, "messages": list},
            {"messages": [None, [], [{"role": "user"}]]},
        ),
    ],
    "ollama": [
        Route(
            "/api/generate",
            {"model": "m", "prompt": "Hello", "stream": False},
            {"model": str, "prompt": str, "stream": bool, "options": dict, "raw": bool,
             "system": str, "context": list},
            {"options": [{"temperature": "hot"}, {"num_predict": 1.5}, {"top_p": 7},
                         {"seed": 2**64}, {"stop": [7]}, {"num_ctx": -1}, {"top_k": "all"}],
             "think": ["hard", 7], "keep_alive": [[], {}, "1 fortnight"], "format": [7, [], "xml"],
             "images": [["aGk="]]},
        ),
        Route(
            "/api/chat",
            {"model": "m", "messages": MESSAGES, "stream": False},
            {"model": str, "messages": list, "tools": list, "stream": bool, "options": dict,
             "logprobs": bool, "top_logprobs": int},
            {"messages": [None, [None], [{}], [{"role": "user", "content": 7}],
                          [{"role": "x" * 33, "content": ""}]],
             "tools": [[{}], [{"function": {}}]], "top_logprobs": [21, -1]},
        ),
        Route(
            "/api/embed",
            {"model": "m", "input": "Hello"},
            {"model": str, "dimensions": int, "truncate": bool},
            {"input": [7, {}, [7], ["a"] * 2049], "dimensions": [0, -1]},
        ),
    ],
    "llamacpp": [
        Route(
            "/completion",
            {"prompt": "Hello"},
            {"model": str, "n_predict": int, "temperature": float, "top_k": int, "top_p": float,
             "stream": bool, "stop": list, "seed": int, "ignore_eos": bool, "grammar": str,
             "json_schema": dict, "n_probs": int},
            {"prompt": [None, 7, {}, [None], [-1], [2**31], [[]] * 65, [1.5], [True]],
             "temperature": [None], "n_predict": [-2, 2**31, None], "n_probs": [21, -1],
             "stop": [[""], [7], ["a"] * 17], "samplers": ["k", [7]],
             "logit_bias": [7, "x", [["a"]], [[1]]], "mirostat": [3, -1]},
        ),
        Route(
            "/tokenize",
            {"content": "Hello"},
            {"model": str, "content": str, "add_special": bool, "with_pieces": bool},
            {"content": [None]},
        ),
        Route("/detokenize", {"tokens": [1, 2]}, {"tokens": list},
              {"tokens": [None, [-1], [2**31], ["a"], [1.5], [None], [99]]}),
        Route("/embedding", {"content": "Hello"}, {"model": str},
              {"content": [7, {}, [None], [-1]], "embd_normalize": ["two", 1.5]}),
    ],
    "woolly": [
        Route(
            "/woolly/api/generate",
            {"prompt": "Hello"},
            {"prompt": str, "model": str, "max_tokens": int, "temperature": float, "top_p": float,
             "top_k": int, "stream": bool, "seed": int},
            {"prompt": [None], "max_tokens": [0, -1, 2**31], "temperature": [-1], "top_p": [7],
             "stop": [7, [7], "", ["a"] * 17]},
        ),
        Route(
            "/woolly/api/chat",
            {"messages": MESSAGES},
            {"messages": list, "model": str, "repeat_penalty": float},
            {"messages": [None, [], [None], [{}], [{"role": "tool", "content": "x"}],
                          [{"role": "user", "content": None}]]},
        ),
        Route("/woolly/api/tokenize", {"text": "Hello"}, {"text": str}, {"text": [None]}),
    ],
}  # fmt: skip


def openai_shape(error: dict[str, Any], status: int) -> bool:
    return set(error["error"]) >= {"message", "type", "param", "code"}


SHAPES: dict[str, Callable[[dict[str, Any], int], bool]] = {
    "openai": openai_shape,
    "anthropic": lambda e, status: e["type"] == "error" and set(e["error"]) == {"type", "message"},
    "ollama": lambda e, status: isinstance(e["error"], str),
    "llamacpp": lambda e, status: e["error"]["code"] == status,
    "woolly": lambda e, status: set(e["error"]) == {"message", "code", "details"},
}


def bad_fields(route: Route) -> Iterator[dict[str, Any]]:
    """Good bodies with one field that is not."""
    for name, kind in route.types.items():
        for value in WRONG[kind]:
            yield {**route.good, name: value}
    for name, values in route.bad.items():
        for value in values:
            yield {**route.good, name: value}


def bad_texts(good: dict[str, Any]) -> Iterator[bytes]:
    """What is no JSON object, or means more than one thing."""
    text = json.dumps(good)
    inside = text[1:-1]
    yield from (b"", b" ", b"[]", b"null", b"7", b'"x"', b"true", text[:-1].encode(), b"\xff\xfe")
    yield text.encode() + b"x"
    yield text.encode() * 2
    yield text.encode("utf-16")
    yield b"\xef\xbb\xbf" + text.encode()  # a byte order mark, RFC 8259 section 8.1
    yield text.replace('"', "'").encode()
    yield f"{{{inside},}}".encode()
    yield f"{{{inside}, {inside}}}".encode()  # each key twice
    for value in (
        "NaN", "Infinity", "-Infinity", "1e400", "9" * 5000, "0x10", "01", "+1", ".5", "1.", "tru",
        '"\\ud800"', '"\\udc00x"', '"\\x41"', '"\x01"', '"a\nb"', "[" * 70 + "]" * 70,
        '{"a":' * 70 + "1" + "}" * 70, "[" * 5000, '{"a": 1, "a": 2}', "[1,]", "/* */ 1",
    ):  # fmt: skip
        yield f'{{{inside}, "x": {value}}}'.encode()
    yield f'{{{inside}, "x": "'.encode() + b'\xc3\x28"}'  # half of a character of two bytes
    yield f'{{{inside}, "x": "'.encode() + b'\xed\xa0\x80"}'  # a surrogate, RFC 3629 section 3


def num_bad_values() -> int:
    return sum(
        len(list(bad_fields(route))) + len(list(bad_texts(route.good)))
        for routes in PROTOCOLS.values()
        for route in routes
    )


def test_there_are_enough_of_them():
    """More than 200 on all protocols, and no two alike on one path."""
    assert num_bad_values() > 1000
    for routes in PROTOCOLS.values():
        for route in routes:
            bodies = [json.dumps(body, sort_keys=True) for body in bad_fields(route)]
            assert len(set(bodies)) == len(bodies)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_is_refused_and_hurts_nobody(protocol: str):
    """400 in the protocol's own shape, with nothing generated; then the good body is answered."""

    async def main() -> None:
        engine = FakeEngine()
        async with serving({"m": engine}) as server, httpx.AsyncClient() as http:
            for route in PROTOCOLS[protocol]:
                url = server.url + route.path
                bodies = [json.dumps(body).encode() for body in bad_fields(route)]
                for body in (*bodies, *bad_texts(route.good)):
                    shown = body[:300]
                    num_prompts = len(engine.prompts)
                    reply = await http.post(url, content=body)
                    assert reply.status_code == 400, (route.path, shown, reply.text)
                    assert SHAPES[protocol](reply.json(), 400), (shown, reply.text)
                    assert len(engine.prompts) == num_prompts, shown
                    good = await http.post(url, json=route.good)
                    assert good.status_code == 200, (shown, good.text)
                    answer = good.json()
                    assert isinstance(answer, list) or not answer.get("error"), shown

    run(main())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_other_refusals_have_their_own_status(protocol: str):
    """Models, methods, types and sizes; each in the protocol's own shape."""

    async def main() -> None:
        async with (
            serving({"m": FakeEngine()}, max_body_bytes=10_000) as server,
            httpx.AsyncClient() as http,
        ):
            for route in PROTOCOLS[protocol]:
                url = server.url + route.path
                good = json.dumps(route.good)
                typed = {"content-type": "text/plain"}
                packed = {"content-encoding": "gzip"}
                many = {f"x-{number}": "y" for number in range(101)}
                for status, reply in (
                    (404, await http.post(url, json={**route.good, "model": "absent"})),
                    (404, await http.post(f"{url}/no/where", json=route.good)),
                    (405, await http.put(url, json=route.good)),
                    (415, await http.post(url, content=good, headers=typed)),
                    (415, await http.post(url, content=good, headers=packed)),
                    (413, await http.post(url, json={**route.good, "x": "y" * 10_000})),
                    (431, await http.post(url, content=good, headers=many)),
                    (414, await http.post(f"{url}?{'q' * 17_000}", content=good)),
                    (400, await http.post(url, content=good, headers={"host": "a b"})),
                    (403, await http.post(url, content=good, headers={"host": "evil.example"})),
                ):
                    assert reply.status_code == status, (route.path, reply.text)
                    assert SHAPES[protocol](reply.json(), status), (route.path, reply.text)
                assert (await http.post(url, content=good)).status_code == 200

    run(main())
