"""What an engine's client and its worker process say to each other.

Plain data both ways: the engine's own dataclasses, encoded field by field as
MessagePack and checked against their types when they are read.  Nothing in a
message can name code.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from quintet.config import EngineConfig
from quintet.engine.admission import EngineLimits
from quintet.engine.embedding import EmbeddingRequest
from quintet.engine.loading import ModelOptions
from quintet.engine.output import OutputChunk
from quintet.engine.request import Request
from quintet.engine.stats import EngineStats
from quintet.engine.worker.failures import Failure
from quintet.errors import EngineError, RequestError


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A message: its name and its fields."""


class Load(_Message, frozen=True):
    """Load this model; the first message to a worker.  Paths are relative to `directory`."""

    directory: str
    path: str
    options: ModelOptions
    config: EngineConfig


class Add(_Message, frozen=True):
    """Start a request.  Its `arrival_s` holds in both: `time.monotonic` is the machine's."""

    request: Request


class Embed(_Message, frozen=True):
    """Start an embedding request."""

    request: EmbeddingRequest


class Abort(_Message, frozen=True):
    """End a request; nothing, if it has ended."""

    request_id: str


class Compile(_Message, frozen=True):
    """Compile a request's constraint beside the loop; answered by `Compiled` with the ticket."""

    ticket: int
    request: Request


class Audit(_Message, frozen=True):
    """Check the books between two steps; answered by `Audited` with the same ticket."""

    ticket: int


class Close(_Message, frozen=True):
    """Free the model and exit."""


class Loading(_Message, frozen=True):
    """The worker has connected and begins to load."""


class Ready(_Message, frozen=True):
    """The model is loaded."""

    limits: EngineLimits
    stats: EngineStats


class LoadFailed(_Message, frozen=True):
    """The model cannot be loaded; the worker exits."""

    failure: Failure


class Step(_Message, frozen=True):
    """What a step or an abort gave, for all requests at once, and the counters after it."""

    chunks: tuple[OutputChunk, ...]
    stats: EngineStats


class Audited(_Message, frozen=True):
    """The outcome of an audit: the account that is wrong, or None."""

    ticket: int
    fault: str | None


class Compiled(_Message, frozen=True):
    """What is wrong with a constraint, or None."""

    ticket: int
    failure: Failure | None


ToWorker: TypeAlias = Load | Add | Embed | Compile | Abort | Audit | Close
FromWorker: TypeAlias = Loading | Ready | LoadFailed | Step | Compiled | Audited

# Backstop against a bug: what clients may send is bounded long before (body, context, lists).
MAX_MESSAGE_BYTES = 256 * 2**20

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def encode(message: ToWorker | FromWorker) -> bytes:
    """A message as bytes.

    Raises:
        RequestError: a request holds what is not plain data, e.g. a function.
        EngineError: it is larger than MAX_MESSAGE_BYTES.
    """
    try:
        data = _encoder.encode(message)
    except (TypeError, OverflowError, UnicodeEncodeError) as error:
        raise RequestError(f"expected what can be sent to another process: {error}") from None
    if len(data) > MAX_MESSAGE_BYTES:
        raise EngineError(
            f"expected a message of at most {MAX_MESSAGE_BYTES} bytes, "
            f"{type(message).__name__} has {len(data)}"
        )
    return data


def decode_to_worker(data: Any) -> ToWorker:
    """What `encode` made of a client's message; any buffer.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _to_worker.decode(data)


def decode_from_worker(data: Any) -> FromWorker:
    """What `encode` made of a worker's message; any buffer.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _from_worker.decode(data)
