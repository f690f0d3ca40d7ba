"""Fields that nothing reads are ignored, but not in silence: counted, and told once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from unittest import mock

import httpx
import pytest

from quintet.server import bodies
from quintet.server.bodies import parse_body, unknown_fields
from quintet.server.dialects.anthropic.bodies import MessagesBody
from quintet.server.dialects.ollama.bodies import ChatBody
from quintet.server.dialects.openai.bodies import CompletionBody

from .fake import FakeEngine
from .harness import run, serving

TEXT = {"model": "m", "prompt": "a", "max_tokens": 1}


@pytest.fixture(autouse=True)
def nothing_told() -> Iterator[None]:
    """The log is told of each field once in the life of a process."""
    with mock.patch.object(bodies, "_told", set()):
        yield


def test_unknown_fields_are_found_in_bodies_within_bodies():
    """By their whole names; what is a field, by whatever name, is none."""
    sent = {
        "model": "m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache": 1}]}],
        "max_tokens": 1,
        "thinking": {"type": "disabled", "why": "x"},
        "metadata": {"user_id": "x"},
    }
    body = parse_body(MessagesBody, sent)
    found = {"thinking.why", "metadata", "messages.content.cache"}
    assert set(unknown_fields(body, sent)) == found
    options = {"model": "m", "options": {"temperature": 1, "num_gpu_layer": 2}}
    assert set(unknown_fields(parse_body(ChatBody, options), options)) == {"options.num_gpu_layer"}
    known = {**TEXT, "n": 1, "stream_options": {"include_usage": True}}
    assert not set(unknown_fields(parse_body(CompletionBody, known), known))


def test_unknown_fields_are_counted_and_told_once(caplog: pytest.LogCaptureFixture):
    """The metric counts each, the log has each name once, and no name that may be a secret."""

    async def main() -> str:
        async with (
            serving({"m": FakeEngine()}) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            for _ in range(2):
                body = {**TEXT, "temprature": 2, "sk-123": 1}
                assert (await client.post("/v1/completions", json=body)).is_success
            return (await client.get("/metrics")).text

    with caplog.at_level(logging.WARNING, logger="quintet.server.bodies"):
        metrics = run(main())
    assert "quintet_http_ignored_fields_total 4.0" in metrics
    told = [record.getMessage() for record in caplog.records]
    assert sorted(text.rpartition(" ")[2] for text in told) == [
        "CompletionBody.?",
        "CompletionBody.temprature",
    ]


def test_the_log_is_not_filled(caplog: pytest.LogCaptureFixture):
    """A client that makes up names gets no more lines than there may be."""
    with mock.patch.object(bodies, "_MAX_TOLD", 2), caplog.at_level(logging.WARNING):
        for name in ("a", "b", "c", "d"):
            parse_body(CompletionBody, {**TEXT, name * 3: 1})
    assert len(caplog.records) == 2
