"""Embeddings with the official client, which asks for base64 unless told otherwise."""

from __future__ import annotations

import base64
import contextlib
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from quintet import AsyncLLM
from quintet.errors import ContextLengthError
from quintet.server.dialects.openai.bodies import EmbeddingBody
from quintet.server.dialects.openai.embeddings import embedding_reply

from .fake import FakeEngine
from .harness import run, serving


@contextlib.asynccontextmanager
async def client(engine: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    """Of a server with one model."""
    async with (
        serving({"m": engine}) as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as api,
    ):
        yield api


def test_inputs_have_four_shapes():
    """Each input has a vector, in order, whichever way it is sent and comes back."""
    shapes: list[tuple[Any, list[Any]]] = [
        ("Hello", ["Hello"]),
        (["Hello", "you"], ["Hello", "you"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ]

    async def main() -> None:
        engine = FakeEngine()
        async with client(engine) as api:
            for sent, inputs in shapes:
                for more in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
                    reply = await api.embeddings.create(model="m", input=sent, **more)
                    assert engine.prompts[-1] == inputs
                    assert [item.index for item in reply.data] == list(range(len(inputs)))
                    for index, item in enumerate(reply.data):
                        vector: Any = item.embedding
                        if isinstance(vector, str):
                            vector = list(struct.unpack("<4f", base64.b64decode(vector)))
                        assert vector == pytest.approx([len(inputs[index]), index, 0.5, -1e-7])
                    assert reply.usage.prompt_tokens == reply.usage.total_tokens == 5
                    assert reply.model == "m"

    run(main())


def test_dimensions_reach_the_engine():
    """It is the engine that cuts a vector and gives it length 1 again."""

    async def main() -> None:
        async with client(FakeEngine()) as api:
            reply = await api.embeddings.create(model="m", input="Hello", dimensions=2)
        assert len(reply.data[0].embedding) == 2

    run(main())


def test_base64_is_little_endian_float32():
    """Bytes as the wire has them."""
    vectors = np.array([[2, 0, 0.5, -1e-7]], dtype=np.float32)
    body = EmbeddingBody(model="m", input="Hi", encoding_format="base64")
    reply = embedding_reply(body, vectors, 1)
    assert base64.b64decode(reply["data"][0]["embedding"]) == struct.pack("<4f", *vectors[0])


def test_inputs_that_are_too_long_are_refused():
    """With the counts, as on the other routes."""

    async def main() -> None:
        async with client(FakeEngine(error=ContextLengthError(600, 512))) as api:
            with pytest.raises(openai.BadRequestError) as caught:
                await api.embeddings.create(model="m", input="Hello")
        assert caught.value.code == "context_length_exceeded"

    run(main())


def test_the_engine_s_vectors_arrive_as_they_are():
    """Bit for bit in both formats, from text and from its tokens; what is wrong names its field."""

    async def main() -> None:
        texts = ["A cat sits on the mat.", "Hello"]
        async with AsyncLLM("demo", num_threads=1) as llm, client(llm) as api:
            output = await llm.embed(texts)
            vectors = output.embeddings.tolist()
            default = await api.embeddings.create(model="m", input=texts)
            floats = await api.embeddings.create(model="m", input=texts, encoding_format="float")
            assert [item.embedding for item in default.data] == vectors
            assert [item.embedding for item in floats.data] == vectors
            assert default.usage.prompt_tokens == output.usage.num_prompt_tokens
            ids = [llm.tokenizer.encode(text) for text in texts]
            tokens = await api.embeddings.create(model="m", input=ids)
            assert [item.embedding for item in tokens.data] == vectors
            short = await api.embeddings.create(model="m", input="Hello", dimensions=8)
            assert np.linalg.norm(short.data[0].embedding) == pytest.approx(1.0)
            for fields, parameter in (
                ({"input": [[10**6]]}, "input"),
                ({"input": "x" * 100_000}, "input"),
                ({"input": "x", "dimensions": 10**6}, "dimensions"),
            ):
                with pytest.raises(openai.BadRequestError) as caught:
                    await api.embeddings.create(model="m", **fields)
                assert caught.value.param == parameter

    run(main())


BAD: list[dict[str, Any]] = [
    {}, {"input": None}, {"input": ""}, {"input": []}, {"input": [""]}, {"input": [[]]},
    {"input": [1, "a"]}, {"input": [-1]}, {"input": [True]}, {"input": [2**31]},
    {"input": {"a": 1}}, {"input": ["a"] * 2049}, {"input": [[[1]]]},
    {"input": "a", "encoding_format": "hex"}, {"input": "a", "dimensions": 0},
    {"input": "a", "dimensions": "4"}, {"input": "a", "keep_alive": "soon"},
    {"input": "a", "model": 5},
]  # fmt: skip


def test_bad_bodies_are_refused():
    """A 400 with the field, and the next request is served."""

    async def main() -> None:
        async with serving({"m": FakeEngine()}) as server, httpx.AsyncClient() as http:
            for fields in BAD:
                url = f"{server.url}/v1/embeddings"
                reply = await http.post(url, json={"model": "m", **fields})
                assert reply.status_code == 400, fields
                assert reply.json()["error"]["param"] in {"input", *fields}
                good = await http.post(url, json={"model": "m", "input": "Hi"})
                assert good.status_code == 200

    run(main())
