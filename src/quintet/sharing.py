"""Loaded models that several users in this process share.

A model is loaded once for all who ask for the same file in the same number formats, and goes when
the last of them has closed it.  What one holds serves another whose sizes it satisfies; a request
for more loads the model again.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from quintet.backends import resolve_kv_dtype
from quintet.backends.base import BLOCK_SIZE
from quintet.config import EngineConfig
from quintet.engine.admission import EngineLimits
from quintet.engine.client import EngineClient, EngineState
from quintet.engine.embedding import EmbeddingRequest
from quintet.engine.loading import ModelOptions
from quintet.engine.request import Request
from quintet.engine.stats import EngineStats
from quintet.engine.stream import RequestStream
from quintet.errors import EngineError
from quintet.hub.resolve import find, resolve
from quintet.runtime import Runtime

_SIZES = (
    "max_model_len",
    "kv_cache_bytes",
    "num_kv_blocks",
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_queue",
)


def load_shared(
    model: str | os.PathLike[str],
    options: ModelOptions,
    config: EngineConfig,
    *,
    isolated: bool = False,
) -> Runtime:
    """
    A runtime of a model that others in this process may use as well; see `Runtime.load`.

    Its client's `close` ends this user's requests, and the engine with the last user's.  With a
    seed the engine is nobody else's: what a seed promises depends on the order of all requests.

    Raises: as `Runtime.load`.
    """
    if config.seed is not None:
        return Runtime.load(model, options, config, isolated=isolated)
    held = _pool(_Key.of(model, options, isolated)).hold(model, options, config, isolated)
    return held.runtime.seen_through(SharedClient(held))


@dataclass(frozen=True, slots=True)
class _Key:
    """What must be equal for a loaded model to serve."""

    path: Path
    template: str | None  # a stored model's own: two names may be of one file
    options: ModelOptions
    isolated: bool

    @classmethod
    def of(cls, model: str | os.PathLike[str], options: ModelOptions, isolated: bool) -> _Key:
        manifest = find(model)
        options = dataclasses.replace(
            options, kv_dtype=resolve_kv_dtype(options.dtype, options.kv_dtype)
        )
        if options.backend == "auto":
            options = dataclasses.replace(options, backend="cpu")
        return cls(
            Path(os.path.realpath(resolve(model))),
            None if manifest is None else manifest.template,
            options,
            isolated,
        )


@dataclass(eq=False, slots=True)
class _Held:
    """A loaded model and how many use it."""

    runtime: Runtime
    config: EngineConfig
    pool: _Pool
    num_users: int = 1

    def release(self) -> None:
        """Count a user less; the last one closes the engine."""
        with _lock:
            self.num_users -= 1
            is_last = self.num_users == 0
            if is_last and self in self.pool.held:
                self.pool.held.remove(self)
        if is_last:
            self.runtime.close()


@dataclass(slots=True)
class _Pool:
    """The loaded models of one key."""

    loading: threading.Lock = field(default_factory=threading.Lock)
    held: list[_Held] = field(default_factory=list)

    def hold(
        self,
        model: str | os.PathLike[str],
        options: ModelOptions,
        config: EngineConfig,
        isolated: bool,
    ) -> _Held:
        """One of these, counted as used, loaded now if none serves."""
        with self.loading:  # so that those who ask at once load once
            for held in self._counted():
                if _serves(held, config):
                    return held
                held.release()
            runtime = Runtime.load(model, options, config, isolated=isolated)
            loaded = _Held(runtime, config, self)
            with _lock:
                self.held.append(loaded)
            return loaded

    def _counted(self) -> Iterator[_Held]:
        """Each with a user more, so that nobody closes it meanwhile."""
        with _lock:
            candidates = list(self.held)
        for held in candidates:
            with _lock:
                if held.num_users == 0:
                    continue
                held.num_users += 1
            yield held


# Re-entrant: closing what the garbage collector finds may come at any moment.
_lock = threading.RLock()
_pools: dict[_Key, _Pool] = {}


def _pool(key: _Key) -> _Pool:
    with _lock:
        return _pools.setdefault(key, _Pool())


def _serves(held: _Held, wanted: EngineConfig) -> bool:
    """Whether a loaded model does what a config asks for; what that leaves open, it does."""
    client, config = held.runtime.client, held.config
    if client.is_closed:
        return False
    for option in dataclasses.fields(EngineConfig):
        name = option.name
        if name not in _SIZES and getattr(config, name) != getattr(wanted, name):
            return False
    limits, stats = client.limits, client.stats()
    if wanted.max_model_len is None:
        # The model's own context: neither an option nor the cache has made it shorter.
        open_cache = config.kv_cache_bytes is None and config.num_kv_blocks is None
        is_whole = open_cache or stats.num_blocks * BLOCK_SIZE > limits.max_model_len
        fits = config.max_model_len is None and is_whole
    else:
        fits = limits.max_model_len >= wanted.max_model_len
    wanted_blocks = wanted.num_kv_blocks or 0
    if wanted.kv_cache_bytes is not None and stats.block_bytes:
        wanted_blocks = max(wanted_blocks, wanted.kv_cache_bytes // stats.block_bytes)
    return (
        fits
        and stats.num_blocks >= wanted_blocks
        and limits.max_num_seqs >= wanted.max_num_seqs
        and config.max_num_batched_tokens >= wanted.max_num_batched_tokens
        and config.max_queue >= wanted.max_queue
    )


class SharedClient:
    """
    An `EngineClient` for one user of an engine that has several.

    Args:
        held: the engine, with this user counted.
    """

    def __init__(self, held: _Held) -> None:
        self._client: EngineClient = held.runtime.client
        self._streams: weakref.WeakSet[RequestStream] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._release = weakref.finalize(self, held.release)

    @property
    def limits(self) -> EngineLimits:
        """What the engine takes."""
        return self._client.limits

    def check(self, request: Request) -> None:
        """Refuse what can never be served; see EngineClient."""
        self._client.check(request)

    def submit(self, request: Request) -> RequestStream:
        """Start a request; see EngineClient."""
        with self._lock:
            self._check_open()
            stream = self._client.submit(request)
            self._streams.add(stream)
        return stream

    def embed(self, request: EmbeddingRequest) -> RequestStream:
        """Start an embedding request; see EngineClient."""
        with self._lock:
            self._check_open()
            stream = self._client.embed(request)
            self._streams.add(stream)
        return stream

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more requests: this user closed it, or the engine has failed."""
        return not self._release.alive or self._client.is_closed

    @property
    def state(self) -> EngineState:
        """Whether it takes requests now; see EngineClient."""
        return self._client.state if self._release.alive else "closed"

    def stats(self) -> EngineStats:
        """The engine's counters, of all who use it."""
        return self._client.stats()

    def audit(self, timeout_s: float = 10.0) -> None:
        """Have the engine check its books; see EngineClient."""
        self._check_open()
        self._client.audit(timeout_s)

    def close(self) -> None:
        """End this user's requests, and the engine if nobody else uses it.  Idempotent."""
        with self._lock:
            streams = list(self._streams)
            self._streams.clear()
            was_open = self._release.alive
        if was_open:
            for stream in streams:
                stream.abort()
            self._release()

    def _check_open(self) -> None:
        if not self._release.alive:
            raise EngineError("the engine was closed")
