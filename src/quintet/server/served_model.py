"""A loaded model, who uses it, and how long it stays."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from quintet.hub.manifest import Manifest
from quintet.server.engines import Embeddings, Ranking, ServedEngine
from quintet.server.exchange import note_tokens
from quintet.server.requests import ChatPrompt
from quintet.server.stored import with_stored_messages


@dataclass(slots=True, eq=False)
class ServedModel:
    """
    A loaded model as the server knows it.

    Args:
        manifest: its name, its file, and what its owner set.
        engine: what answers.
        loaded_at: seconds since 1970.
        load_s: seconds it took to load.
        num_waiting: answers whose next chunk is awaited from the engine now.
        num_users: requests that hold it now.
        keep_alive_s: seconds it stays in memory after the last of them.
        last_used_s: when that ended, on `time.monotonic`'s clock.
        is_leaving: it is being unloaded and takes no more requests.
        request_timeout_s: the longest a request may take; None: as long as it takes.
        queue_timeout_s: the longest it may wait for its turn; None: as long as it takes.
    """

    manifest: Manifest
    engine: ServedEngine
    loaded_at: int
    load_s: float = 0.0
    num_waiting: int = 0
    num_users: int = 0
    keep_alive_s: float = math.inf
    last_used_s: float = field(default_factory=time.monotonic)
    is_leaving: bool = False
    request_timeout_s: float | None = None
    queue_timeout_s: float | None = None

    @property
    def name(self) -> str:
        """What clients call it."""
        return self.manifest.name

    @property
    def expires_at_s(self) -> float:
        """When it may be let go if nobody asks for it, on `time.monotonic`'s clock."""
        return self.last_used_s + self.keep_alive_s

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """The engine owes an answer, or its next chunk, until the block ends."""
        self.num_waiting += 1
        try:
            yield
        finally:
            self.num_waiting -= 1

    async def count_tokens(self, prompt: ChatPrompt) -> int:
        """Tokens of a conversation as the engine would read it, its model's own messages and the
        start of the answer included."""
        prompt = with_stored_messages(prompt, self.manifest)
        return await self.engine.count_tokens(
            prompt.messages, tools=prompt.tools, enable_thinking=prompt.enable_thinking
        )

    async def embed(self, inputs: Sequence[str | list[int]], **options: Any) -> Embeddings:
        """See `ServedEngine.embed`."""
        with self.awaited():
            output = await self.engine.embed(inputs, **options)
        note_tokens(prompt=output.usage.num_prompt_tokens)
        return output

    async def rerank(self, query: str, documents: Sequence[str], **options: Any) -> Ranking:
        """See `ServedEngine.rerank`."""
        with self.awaited():
            output = await self.engine.rerank(query, documents, **options)
        note_tokens(prompt=output.usage.num_prompt_tokens)
        return output

    @property
    def num_bytes(self) -> int:
        """Memory it takes: as its process says, or at least its file."""
        return max(self.manifest.size_bytes, self.engine.stats().resident_bytes)
