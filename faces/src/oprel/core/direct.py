"""A model in this process."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from oprel.aliases import loadable
from oprel.choice import MAX_NUM_SEQS, context_for
from oprel.core.config import Config
from oprel.core.exceptions import ModelNotFoundError
from oprel.core.located import Located
from oprel.core.turn import Turn
from quintet.cli.stored import stored_defaults

if TYPE_CHECKING:
    from quintet.engine.output import OutputChunk
    from quintet.hub.manifest import Manifest
    from quintet.llm import LLM
    from quintet.sessions import Sessions

_log = logging.getLogger("oprel")


class DirectEngine:
    """
    Runs a model with `quintet.LLM`, its conversations with `quintet.Sessions`.

    Args:
        located: what to run.
        config: threads, context, batch.
        max_memory_mb: what it may take; None: what there is.
    """

    def __init__(self, located: Located, config: Config, max_memory_mb: int | None) -> None:
        self._located = located
        self._config = config
        self._max_memory_mb = max_memory_mb
        self._lock = threading.Lock()
        self._loaded: tuple[LLM, Sessions] | None = None

    def load(self) -> None:
        """See Engine."""
        self._load()

    def unload(self) -> None:
        """See Engine; conversations end with the model."""
        with self._lock:
            loaded, self._loaded = self._loaded, None
        if loaded is not None:
            llm, sessions = loaded
            sessions.close()
            llm.close()

    def is_loaded(self) -> bool:
        """See Engine."""
        loaded = self._loaded
        return loaded is not None and not loaded[0].is_closed

    def stream(self, turn: Turn) -> Iterator[str]:
        """See Engine."""
        from quintet.sampling.params import SamplingParams

        llm, sessions = self._load()
        manifest = self._located.manifest
        stored = stored_defaults(manifest.name) if manifest and manifest.name else None
        given = {} if stored is None else dict(stored.sampling)
        if turn.sampling["temperature"] == 0:
            given = {name: value for name, value in given.items() if name not in _TRUNCATIONS}
        params = SamplingParams(**{**given, **turn.sampling})
        system_prompt = turn.system_prompt
        if system_prompt is None and stored is not None:
            system_prompt = stored.system
        chunks: Iterator[OutputChunk]
        if turn.conversation_id is not None:
            if turn.reset:
                sessions.reset(turn.conversation_id)
            chunks = sessions.stream(
                turn.conversation_id, turn.prompt, params, system=system_prompt
            )
        else:
            messages: list[dict[str, Any]] = [
                dict(message) for message in (stored.messages if stored else ())
            ]
            if system_prompt is not None:
                messages.insert(0, {"role": "system", "content": system_prompt})
            chunks = llm.stream_chat([*messages, {"role": "user", "content": turn.prompt}], params)
        with contextlib.closing(chunks):  # type: ignore[type-var]  # both are generators
            for chunk in chunks:
                if chunk.text:
                    yield chunk.text

    def _load(self) -> tuple[LLM, Sessions]:
        from quintet.llm import LLM
        from quintet.sessions import Sessions

        with self._lock:
            if self._loaded is not None and not self._loaded[0].is_closed:
                return self._loaded
            manifest = self._manifest()
            if self._config.n_gpu_layers > 0:
                _log.warning("n_gpu_layers: there is no GPU support; the CPU computes all layers")
            limit_mb = self._max_memory_mb
            source = loadable(manifest, self._located.store.root)
            llm = LLM(
                source,
                num_threads=self._config.n_threads,
                max_model_len=context_for(
                    manifest.path, manifest.parameters, self._config.ctx_size
                ),
                max_num_batched_tokens=self._config.batch_size,
                max_num_seqs=min(MAX_NUM_SEQS, self._config.batch_size),
                max_memory=None if limit_mb is None else limit_mb * 2**20,
                shared=True,
            )
            if manifest.template is not None and source == manifest.path:
                llm.tokenizer.use_chat_template(manifest.template)
            self._loaded = llm, Sessions(llm)
            return self._loaded

    def _manifest(self) -> Manifest:
        """What to run, downloaded now if it is not here."""
        if self._located.manifest is not None:
            return self._located.manifest
        from quintet.hub.pull import pull

        name = str(self._located.download_source())
        manifest = self._located.store.find(name)
        if manifest is None:
            for step in pull(name, store=self._located.store):
                _log.info("%s: %s", name, step.status)
            manifest = self._located.store.find(name)
        if manifest is None:
            raise ModelNotFoundError(f"no model {name!r}: it was removed")
        self._located = self._located.found(manifest)
        return manifest


_TRUNCATIONS = ("top_k", "top_p", "min_p", "typical_p", "mirostat", "mirostat_tau", "mirostat_eta")
