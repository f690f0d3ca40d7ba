"""A model in the user's daemon."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from oprel import daemon
from oprel.client import Client
from oprel.core.config import Config
from oprel.core.exceptions import BackendError, ModelNotFoundError
from oprel.core.located import Located, register
from oprel.core.turn import Turn

# Those of Ollama's that would act besides what the caller of `generate` sets.
_NEUTRAL = {"repeat_penalty": 1.0, "min_p": 0.0}


class ServerEngine:
    """
    Runs a model in the daemon, which is started if there is none; conversations are kept here.

    Args:
        located: what to run.
        config: of a daemon that is started.
        max_memory_mb: what the model may take; None: as the daemon says.
    """

    def __init__(self, located: Located, config: Config, max_memory_mb: int | None) -> None:
        self._located = located
        self._config = config
        self._max_memory_mb = max_memory_mb
        self._lock = threading.Lock()
        self._name: str | None = None
        self._client: Client | None = None
        self._conversations: dict[str, list[dict[str, Any]]] = {}

    def load(self) -> None:
        """See Engine."""
        name = self._prepared()
        with self._limit_of(name):
            self._connected().generate(name, keep_alive=None)

    def unload(self) -> None:
        """Nothing: the daemon lets models go by itself."""

    def is_loaded(self) -> bool:
        """See Engine; asks no daemon to start."""
        if self._name is None or daemon.find(daemon.server_address()[1]) is None:
            return False
        return self._is_in_memory(self._name)

    def stream(self, turn: Turn) -> Iterator[str]:
        """See Engine."""
        name, client = self._prepared(), self._connected()
        options = {**_NEUTRAL, **turn.sampling}
        if turn.conversation_id is None:
            fields = {} if turn.system_prompt is None else {"system": turn.system_prompt}
            chunks = client.generate(name, turn.prompt, True, options, **fields)
            with self._limit_of(name), contextlib.closing(chunks):
                for chunk in chunks:
                    if chunk.response:
                        yield chunk.response
            return
        messages = self._begun(turn.conversation_id, turn.system_prompt, turn.reset)
        messages.append({"role": "user", "content": turn.prompt})
        answer, is_whole = "", False
        chunks = client.chat(name, messages, True, options)
        with self._limit_of(name), contextlib.closing(chunks):
            for chunk in chunks:
                answer += chunk.message.content or ""
                is_whole = chunk.done
                if chunk.message.content:
                    yield chunk.message.content
        if is_whole:  # one that was broken off leaves no trace
            messages.append({"role": "assistant", "content": answer})
            with self._lock:
                self._conversations[turn.conversation_id] = messages

    def _begun(
        self, conversation_id: str, system_prompt: str | None, reset: bool
    ) -> list[dict[str, Any]]:
        """What was said before, with the instructions that hold now."""
        with self._lock:
            messages = list(self._conversations.get(conversation_id, ()))
        system = [message for message in messages[:1] if message["role"] == "system"]
        said = [] if reset else messages[len(system) :]
        if system_prompt is not None:
            system = [{"role": "system", "content": system_prompt}]
        return [*system, *said]

    def _connected(self) -> Client:
        """A client of the daemon, which runs."""
        daemon.ensure(self._config)
        with self._lock:
            if self._client is None:
                self._client = Client(daemon.server_url())
            return self._client

    def _prepared(self) -> str:
        """The model's name in the daemon, which has it and knows what it may take."""
        client = self._connected()
        name = self._name or self._named()
        is_new = daemon.set_memory_limit(name, self._max_memory_mb)
        # Without a limit, one that is loaded within somebody else's will do.
        if is_new and self._max_memory_mb is not None and self._is_in_memory(name):
            client.generate(name, keep_alive=0)  # it is loaded again, within the limit
        self._name = name
        return name

    @contextlib.contextmanager
    def _limit_of(self, name: str) -> Iterator[None]:
        """A limit within which the model cannot be loaded binds nobody else."""
        try:
            yield
        except MemoryError:
            if self._max_memory_mb is not None:
                daemon.set_memory_limit(name, None)
            raise

    def _named(self) -> str:
        located = self._located
        if located.manifest is not None:
            name = register(located).name
        else:
            name = str(located.download_source())
        try:
            return self._full_name(name)
        except ModelNotFoundError:
            running = daemon.ensure(self._config)
            if located.manifest is not None and str(located.store.root) != running.cache_dir:
                raise BackendError(
                    f"the server at {running.url} has the models of {running.cache_dir}, not "
                    f"those of {located.store.root}: stop it, or set OPREL_SERVER_PORT"
                ) from None
            if located.source is None:
                raise
        self._connected().pull(name)
        return self._full_name(name)

    def _full_name(self, name: str) -> str:
        """The name with its tag, of a model that the daemon has."""
        self._connected().show(name)
        return name if ":" in name.rpartition("/")[2] else f"{name}:latest"

    def _is_in_memory(self, name: str) -> bool:
        return any(model.name == name for model in self._connected().ps().models)
