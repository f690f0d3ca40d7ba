"""Messages, failures and the channel as values."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from engine.fake import make_request
from quintet import errors
from quintet.config import EngineConfig
from quintet.engine.admission import EngineLimits
from quintet.engine.embedding import EmbeddingRequest, EmbeddingSpec, Vectors
from quintet.engine.loading import ModelOptions
from quintet.engine.output import OutputChunk, Timings, TokenLogprob, Usage
from quintet.engine.request import Priority
from quintet.engine.stats import EngineStats
from quintet.engine.worker import messages
from quintet.engine.worker.channel import Channel, bind, connect
from quintet.engine.worker.failures import Failure
from quintet.engine.worker.launch import describe_exit
from quintet.engine.worker.messages import (
    Abort,
    Add,
    Audit,
    Audited,
    Close,
    Embed,
    Load,
    LoadFailed,
    Loading,
    Ready,
    Step,
    decode_from_worker,
    decode_to_worker,
    encode,
)
from quintet.engine.worker.supervisor import Backoff

LAST = OutputChunk(
    "r",
    "text \u00e9",
    (1, 2),
    (TokenLogprob(1, -0.5, ((1, -0.5), (2, -math.inf))), TokenLogprob(2, -0.25, ())),
    "stop",
    7,
    None,
    Usage(3, 0, 2),
    Timings(0.1, 0.2, 0.3),
)


@pytest.mark.parametrize(
    "message",
    [
        Load("/models", "m.gguf", ModelOptions(num_threads=2), EngineConfig(max_queue=3, seed=5)),
        Add(
            make_request(
                300,
                None,
                priority=Priority.HIGH,
                cache_salt="s",
                seed=2**64 - 1,
                logit_bias={3: -1.5},
                stop=("a", "\u00e9"),
                stop_token_ids=(1, 2),
                logprobs=3,
            )
        ),
        Add(
            make_request(
                3,
                temperature=0.5,
                n=4,
                prompt_logprobs=2,
                echo=True,
                sampler_order=["dry", "temperature", "typical_p"],
                typical_p=0.5,
                dry_multiplier=1,
                dry_sequence_breakers="\n",
            )
        ),
        Embed(EmbeddingRequest("e", ((1, 2), (3,)), "rank", (1, 1), (7,))),
        Abort("r"),
        Audit(3),
        Close(),
    ],
)
def test_messages_arrive_in_the_worker_as_they_were_sent(message: messages.ToWorker) -> None:
    """Every field survives, and so does its type."""
    received = decode_to_worker(encode(message))
    assert received == message
    assert repr(received) == repr(message)


@pytest.mark.parametrize(
    "message",
    [
        Loading(),
        Ready(EngineLimits(100, 200, 300, frozenset({7})), EngineStats(num_blocks=4)),
        LoadFailed(Failure("CapacityError", "x", {"resource": "memory", "retry_after_s": None})),
        Step(
            (OutputChunk("q", index=3, prompt_logprobs=(None, TokenLogprob(1, -0.5, ()))),),
            EngineStats(1, 2),
        ),
        Step((OutputChunk("q", error="e", finish_reason="error"), LAST), EngineStats(1, 2)),
        Ready(
            EngineLimits(
                9,
                8,
                7,
                embedding=EmbeddingSpec(4, "cls", False, "classifier", 2, 1, True),
                can_generate=False,
            ),
            EngineStats(),
        ),
        Step((OutputChunk("e", vectors=Vectors((2, 0), 3, bytes(range(24)))),), EngineStats()),
        Audited(1, "leak"),
    ],
)
def test_messages_arrive_in_the_client_as_they_were_sent(message: messages.FromWorker) -> None:
    """Every field survives, and so does its type."""
    received = decode_from_worker(encode(message))
    assert received == message
    assert repr(received) == repr(message)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", b"\xc1", b"\x91\xa4Nope", b"\x92\xa5Abort\x01", b"\x91\xa5Abort", b"\x80"],
)
def test_messages_of_another_shape_are_refused(data: bytes) -> None:
    """What is no message is an error, never a half-filled one."""
    for decode in (decode_to_worker, decode_from_worker):
        with pytest.raises(msgspec.DecodeError):
            decode(data)


def test_messages_hold_plain_data_only() -> None:
    """A function cannot cross, and the caller is told."""
    with pytest.raises(errors.RequestError, match="another process"):
        encode(Add(make_request(4, logits_processors=[lambda _, __, logits: logits])))
    request = make_request(4)
    object.__setattr__(request, "cache_salt", print)
    with pytest.raises(errors.RequestError, match="another process"):
        encode(Add(request))
    object.__setattr__(request, "cache_salt", "\ud800")
    with pytest.raises(errors.RequestError, match="another process"):
        encode(Add(request))


def test_messages_have_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too large a message is an error where it is made."""
    monkeypatch.setattr(messages, "MAX_MESSAGE_BYTES", 1000)
    encode(Abort("x" * 900))
    with pytest.raises(errors.EngineError, match="Abort has"):
        encode(Abort("x" * 1000))


@pytest.mark.parametrize(
    "error",
    [
        errors.ModelFormatError("bad", path="/a/b.gguf", part="tensor x", offset=7),
        errors.UnsupportedModelError("architecture", "x", ("b", "a")),
        errors.ModelNotFoundError("none"),
        errors.RequestError("bad", parameter="top_p"),
        errors.ContextLengthError(10, 5),
        errors.CapacityError("full", resource="memory", retry_after_s=2.5),
        errors.EngineError("failed"),
        errors.QuintetError("other"),
    ],
)
def test_failures_are_the_errors_they_were(error: errors.QuintetError) -> None:
    """Class, text and attributes; through the wire."""
    sent = LoadFailed(Failure.of(error))
    received = decode_from_worker(encode(sent)).failure.error()
    assert type(received) is type(error)
    assert str(received) == str(error)
    assert vars(received) == vars(error)


def test_failures_of_other_kinds_are_named() -> None:
    """A bug in the worker is an EngineError with its class and text; so is a kind unknown here."""
    error = Failure.of(ZeroDivisionError("division by zero")).error()
    assert type(error) is errors.EngineError
    assert str(error) == "ZeroDivisionError: division by zero"
    assert type(Failure("SystemExit", "x", {}).error()) is errors.EngineError


def test_exits_are_described() -> None:
    """By status or by signal."""
    assert describe_exit(3) == "exited with status 3"
    assert describe_exit(-11) == "was ended by SIGSEGV"
    assert describe_exit(-60) == "was ended by signal 60"


def test_backoff_doubles_up_to_its_limit() -> None:
    """From half a second to thirty, then the model is given up."""
    backoff = Backoff()
    assert [backoff.delay_s(n) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, None]


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Channel, Channel]]:
    """Both ends of a channel."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with zmq.Context() as ours, zmq.Context() as theirs:
        client = bind(ours)
        worker = connect(theirs, client.directory)
        yield client, worker
        client.close()
        worker.close()


def test_channel_is_private_and_can_be_hidden(ends: tuple[Channel, Channel]) -> None:
    """Only the user may enter its directory; connections outlive it."""
    client, worker = ends
    assert os.stat(client.directory).st_mode & 0o777 == 0o700
    client.send(Abort("a"), wait=True)
    assert worker.receive(wait=True) == Abort("a")
    worker.send(Loading(), wait=True)
    assert client.receive(wait=True) == Loading()
    client.hide()
    assert not client.directory.exists()
    client.send(Abort("b"), wait=True)
    assert worker.receive(wait=True) == Abort("b")
    assert worker.receive(wait=False) is None


def test_channel_holds_up_a_worker_whose_client_stands_still(
    ends: tuple[Channel, Channel],
) -> None:
    """A client that does not read lets a bounded number of steps be sent."""
    client, worker = ends
    worker.send(Loading(), wait=True)
    assert client.receive(wait=True) == Loading()
    large = Step((OutputChunk("r", "x" * 100_000),), EngineStats())
    num_sent = 0
    with contextlib.suppress(errors.CapacityError):
        for num_sent in range(10_000):  # noqa: B007 - how many were sent before it raised
            worker.send(large)
    assert 32 <= num_sent <= 300
    for _ in range(num_sent):
        assert client.receive(wait=True) == large


def test_channel_that_is_closed_refuses(ends: tuple[Channel, Channel]) -> None:
    """Who still sends is told, whichever thread closed it."""
    client, _ = ends
    client.close()
    with pytest.raises(errors.CapacityError):
        client.send(Close())
