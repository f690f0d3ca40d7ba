"""`Model`: one model, in the user's daemon or in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from oprel.aliases import store_at
from oprel.choice import checked_quantization
from oprel.core.config import Config
from oprel.core.exceptions import ValidationError, translated
from oprel.core.located import locate
from oprel.core.turn import Turn, checked_sampling


class Engine(Protocol):
    """Where a model runs."""

    def load(self) -> None:
        """Have the model in memory."""

    def unload(self) -> None:
        """Let it go, where that is ours to do."""

    def is_loaded(self) -> bool:
        """Whether it is in memory."""

    def stream(self, turn: Turn) -> Iterator[str]:
        """The answer in pieces."""


class Model:
    """
    A language model; a context manager.

    Args:
        model_identifier: a name or alias, a repository of Hugging Face's, or a path.  What is not
            here is downloaded when the model is loaded.
        quantization: one of "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0"; None: the best
            there is that fits into memory.
        max_memory_mb: MiB that weights, cache and buffers may take; None: as `config` says.
        backend: "llama.cpp", which Oprel calls its only one; Quintet's engine computes.
        use_server: run it in the daemon, where it stays loaded from one program to the next.
        config: None: `Config()`.

    Raises:
        ModelNotFoundError: there is no such model.
        MemoryError: none of its number formats fits.
        ValidationError: a parameter that cannot be used.
    """

    def __init__(
        self,
        model_identifier: str,
        quantization: str | None = None,
        max_memory_mb: int | None = None,
        backend: str = "llama.cpp",
        use_server: bool = True,
        config: Config | None = None,
    ) -> None:
        if not isinstance(model_identifier, str) or not model_identifier:
            raise ValidationError(f"model_identifier: expected a name, found {model_identifier!r}")
        if backend != "llama.cpp":
            raise ValidationError(f'backend: expected "llama.cpp", found {backend!r:.40}')
        if max_memory_mb is not None and (
            isinstance(max_memory_mb, bool)
            or not isinstance(max_memory_mb, int)
            or max_memory_mb < 1
        ):
            raise ValidationError(
                f"max_memory_mb: expected at least 1, found {max_memory_mb!r:.40}"
            )
        self.model_identifier = model_identifier
        self.quantization = checked_quantization(quantization)
        self.config = config or Config()
        self.max_memory_mb = max_memory_mb or self.config.default_max_memory_mb
        self.backend = backend
        self.use_server = use_server
        with translated():
            store = store_at(self.config.cache_dir)
            located = locate(model_identifier, self.quantization, self.max_memory_mb, store)
        self._engine: Engine
        if use_server:
            from oprel.core.server import ServerEngine

            self._engine = ServerEngine(located, self.config, self.max_memory_mb)
        else:
            from oprel.core.direct import DirectEngine

            self._engine = DirectEngine(located, self.config, self.max_memory_mb)

    def load(self) -> None:
        """
        Have the model in memory, downloading it first if need be; `generate` does so by itself.

        Raises:
            ModelNotFoundError: its files are gone.
            MemoryError: it does not fit; says how much is needed.
            DownloadError: it cannot be downloaded.
            BackendError: it cannot be loaded, or there is no server.
        """
        with translated():
            self._engine.load()

    def generate(
        self,
        prompt: str,
        max_tokens: int = 512,
        temperature: float = 0.7,
        top_p: float = 0.9,
        top_k: int = 40,
        stream: bool = False,
        conversation_id: str | None = None,
        system_prompt: str | None = None,
        reset_conversation: bool = False,
    ) -> Any:
        """
        Answer a prompt.

        Args:
            prompt: what the user says.
            max_tokens: at most, from 1.
            temperature: 0 to 2; 0 takes the most probable token.
            top_p: 0 to 1; keep the fewest tokens that together have this probability.
            top_k: keep this many of the most probable tokens; 0 keeps all.
            stream: give the answer in pieces.
            conversation_id: of a conversation of this object's that goes on, or begins.
            system_prompt: instructions; of a conversation they stay until others are given.
            reset_conversation: forget what was said before.

        Returns:
            The answer, or an iterator of its pieces.

        Raises: as `load`; ValidationError for a parameter that cannot be used.
        """
        if not isinstance(prompt, str) or not prompt:
            raise ValidationError(f"prompt: expected a text, found {prompt!r:.40}")
        sampling = checked_sampling(max_tokens, temperature, top_p, top_k)
        turn = Turn(prompt, sampling, conversation_id, system_prompt, reset_conversation)
        pieces = self._pieces(turn)
        return pieces if stream else "".join(pieces)

    def unload(self) -> None:
        """Let the model go, in direct mode; the daemon does so by itself when it is idle."""
        self._engine.unload()

    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        with translated():
            return self._engine.is_loaded()

    def __enter__(self) -> Model:
        if not self.use_server:
            self.load()
        return self

    def __exit__(self, *_: object) -> None:
        self.unload()

    def __repr__(self) -> str:
        mode = "server" if self.use_server else "direct"
        return f"Model({self.model_identifier!r}, {mode})"

    def _pieces(self, turn: Turn) -> Iterator[str]:
        with translated():
            yield from self._engine.stream(turn)
