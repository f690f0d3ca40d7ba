"""densecore.h's functions in Python.

Nothing is raised to C: what fails becomes a code and a line in the log, which by default is the
standard error output.  A handle is a number that is looked up, never an address.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from densecore.capi.callback_engine import CallbackEngine
from densecore.capi.placement import choose_cpus
from densecore.exceptions import TimeoutError
from densecore.metrics import metrics_of
from quintet import (
    CapacityError,
    ModelFormatError,
    ModelNotFoundError,
    QuintetError,
    RequestError,
    UnsupportedModelError,
)

logger = logging.getLogger("densecore")

OK, ERROR, OUT_OF_MEMORY, INVALID_MODEL, TIMEOUT = 0, -1, -2, -3, -4
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (CapacityError, OUT_OF_MEMORY),
    (MemoryError, OUT_OF_MEMORY),
    (ModelFormatError, INVALID_MODEL),
    (ModelNotFoundError, INVALID_MODEL),
    (UnsupportedModelError, INVALID_MODEL),
    (TimeoutError, TIMEOUT),
)


def export(ffi: Any) -> None:
    """Define the functions that the library's C side calls; `ffi` is the library's."""
    functions = _Functions(ffi)
    zeros = {name: ffi.new(f"{name} *")[0] for name in ("DenseCoreMetrics", "DetailedMetrics")}
    define = ffi.def_extern
    define(name="InitEngine", error=ffi.NULL)(functions.init_engine)
    define(name="FreeEngine")(functions.free_engine)
    define(name="SubmitRequest", error=ERROR)(functions.submit_request)
    define(name="SubmitRequestIds", error=ERROR)(functions.submit_request_ids)
    define(name="SubmitEmbeddingRequest", error=ERROR)(functions.submit_embedding_request)
    define(name="CancelRequest", error=ERROR)(functions.cancel_request)
    for name, function in (
        ("GetMetrics", functions.get_metrics),
        ("GetDetailedMetrics", functions.get_detailed_metrics),
    ):
        kind = "DenseCoreMetrics" if name == "GetMetrics" else "DetailedMetrics"
        define(name=name, error=zeros[kind])(function)


def code_of(error: BaseException) -> int:
    """The C error code of an exception."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ERROR)


class _Functions:
    """The functions, and the engines behind the handles they take."""

    def __init__(self, ffi: Any) -> None:
        self._ffi = ffi
        self._handles = itertools.count(1)  # never used again, so that a freed one stays invalid
        self._lock = threading.Lock()
        self._engines: dict[int, CallbackEngine] = {}

    def init_engine(
        self, model_path: Any, reserved: Any, threads: int, numa_node_id: int, policy: int
    ) -> Any:
        try:
            if model_path == self._ffi.NULL:
                raise RequestError("expected a path, found NULL", parameter="model_path")
            cpus = choose_cpus(numa_node_id, policy, threads)
            path = os.fsdecode(self._ffi.string(model_path))
            engine = CallbackEngine(path, threads or None, cpus)
        except (QuintetError, OSError, MemoryError) as error:
            logger.error("InitEngine: %s", error)
            return self._ffi.NULL
        with self._lock:
            handle = next(self._handles)
            self._engines[handle] = engine
        return self._ffi.cast("DenseCoreHandle", handle)

    def free_engine(self, handle: Any) -> None:
        with self._lock:
            engine = self._engines.pop(self._number(handle), None)
        if engine is not None:
            engine.close()

    def submit_request(
        self, handle: Any, prompt: Any, max_tokens: int, callback: Any, user_data: Any
    ) -> int:
        def submit() -> int:
            engine, text = self._engine(handle), self._text(prompt)
            return engine.submit(text, max_tokens, self._on_text(callback, user_data))

        return _guarded("SubmitRequest", submit)

    def submit_request_ids(
        self,
        handle: Any,
        tokens: Any,
        num_tokens: int,
        max_tokens: int,
        callback: Any,
        user_data: Any,
    ) -> int:
        def submit() -> int:
            engine = self._engine(handle)
            most = engine.max_model_len
            # Before they are read: there may not be as many as a wrong number says.
            if tokens == self._ffi.NULL or not 0 < num_tokens < most:
                raise RequestError(
                    f"expected 1 to {most - 1} of them, found {num_tokens}", parameter="tokens"
                )
            ids = self._ffi.unpack(tokens, num_tokens)
            return engine.submit(ids, max_tokens, self._on_text(callback, user_data))

        return _guarded("SubmitRequestIds", submit)

    def submit_embedding_request(
        self, handle: Any, prompt: Any, callback: Any, user_data: Any
    ) -> int:
        def submit() -> int:
            engine, text = self._engine(handle), self._text(prompt)
            self._check_callback(callback)

            def on_vector(vector: Any) -> None:
                if vector is None:
                    callback(self._ffi.NULL, 0, user_data)
                else:
                    numbers = self._ffi.from_buffer("float[]", vector)
                    callback(numbers, len(numbers), user_data)

            return engine.embed(text, on_vector)

        return _guarded("SubmitEmbeddingRequest", submit)

    def cancel_request(self, handle: Any, request_id: int) -> int:
        def cancel() -> int:
            return OK if self._engine(handle).cancel(request_id) else ERROR

        return _guarded("CancelRequest", cancel)

    def get_metrics(self, handle: Any) -> Any:
        return self._metrics("DenseCoreMetrics", handle)

    def get_detailed_metrics(self, handle: Any) -> Any:
        return self._metrics("DetailedMetrics", handle)

    def _metrics(self, kind: str, handle: Any) -> Any:
        """A struct, its fields filled by name."""
        metrics = self._ffi.new(f"{kind} *")
        engine = self._engines.get(self._number(handle))
        if engine is not None:
            values = {**metrics_of(engine.stats()), "oom_errors": engine.num_refused}
            for name, field in self._ffi.typeof(kind).fields:
                is_whole = field.type.cname in ("int", "long")
                setattr(metrics, name, int(values[name]) if is_whole else values[name])
        return metrics[0]

    def _engine(self, handle: Any) -> CallbackEngine:
        engine = self._engines.get(self._number(handle))
        if engine is None:
            raise RequestError("expected an engine, found none", parameter="handle")
        return engine

    def _number(self, handle: Any) -> int:
        return int(self._ffi.cast("uintptr_t", handle))

    def _text(self, prompt: Any) -> str:
        if prompt == self._ffi.NULL:
            raise RequestError("expected text, found NULL", parameter="prompt")
        try:
            return str(self._ffi.string(prompt), "utf-8")
        except UnicodeDecodeError as error:
            raise RequestError(f"expected UTF-8: {error}", parameter="prompt") from None

    def _check_callback(self, callback: Any) -> None:
        if callback == self._ffi.NULL:
            raise RequestError("expected a function, found NULL", parameter="callback")

    def _on_text(self, callback: Any, user_data: Any) -> Callable[[str, bool], None]:
        self._check_callback(callback)

        def on_text(text: str, is_last: bool) -> None:
            # What C would take for the end of the text is left out.
            callback(text.replace("\0", "").encode(), int(is_last), user_data)

        return on_text


def _guarded(name: str, function: Callable[[], int]) -> int:
    try:
        return function()
    except (QuintetError, OSError, MemoryError, ValueError) as error:
        code = code_of(error)
        logger.warning("%s: %s (%d)", name, error, code)
        return code
