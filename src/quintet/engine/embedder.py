"""Runs embedding requests on the engine's executor, pass by pass.

A pass computes as many texts as its budget of tokens holds, one after the other without padding,
each in KV blocks that are given back when it ends: nothing of a text is left between passes.
Requests take turns, and each hands in its longest texts first, so that those of a pass are alike.
"""

from __future__ import annotations

import dataclasses
import logging
from array import array
from collections import deque
from dataclasses import dataclass

import numpy as np

from quintet.backends.base import BLOCK_SIZE, Executor, Float32Array
from quintet.engine.block_pool import BlockPool
from quintet.engine.embedding import EmbeddingRequest, Vectors
from quintet.engine.output import OutputChunk, Usage
from quintet.engine.pooler import Pooler
from quintet.engine.step_builder import StepPart, pack_step

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Text:
    """A text of a request."""

    request: EmbeddingRequest
    index: int

    @property
    def token_ids(self) -> tuple[int, ...]:
        return self.request.texts[self.index]

    @property
    def num_blocks(self) -> int:
        return -(-len(self.token_ids) // BLOCK_SIZE)


class Embedder:
    """
    The embedding requests of one engine.  Used by the engine loop only.

    Args:
        executor, pool: the engine's.
        is_causal: whether the model is; a text of another is computed in one piece.
    """

    def __init__(self, executor: Executor, pool: BlockPool, *, is_causal: bool) -> None:
        self._executor = executor
        self._pool = pool
        self._is_causal = is_causal
        self._waiting: dict[str, deque[_Text]] = {}  # by request; those whose turn is next first

    @property
    def has_work(self) -> bool:
        """Whether a text has not been computed."""
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._waiting

    def add(self, request: EmbeddingRequest) -> None:
        """Queue a request, which has been checked."""
        order = sorted(range(len(request.texts)), key=lambda i: -len(request.texts[i]))
        self._waiting[request.request_id] = deque(_Text(request, index) for index in order)

    def abort(self, request_id: str) -> OutputChunk:
        """End a request that is queued; its last chunk."""
        del self._waiting[request_id]
        return OutputChunk(request_id, finish_reason="abort")

    def step(self, max_num_tokens: int) -> list[OutputChunk]:
        """
        Compute a pass.

        Args:
            max_num_tokens: of it; but a text is always computed to its end.

        Returns:
            Vectors, and the last chunk of each request that has all of its own or has failed;
            nothing where sequences in progress hold the blocks that even one text needs.
        """
        texts = self._take(min(max_num_tokens, self._executor.max_num_batched_tokens))
        if not texts:
            return []
        by_request: dict[str, list[_Text]] = {}
        for text in texts:
            by_request.setdefault(text.request.request_id, []).append(text)
        try:
            vectors = self._compute(texts)
        except Exception as error:  # noqa: BLE001 - one pass's failure must not be the engine's
            if len(by_request) == 1:
                return [self._fail_pass(texts, error)]
            # Once more by themselves, so that it ends only whom it fails for.
            return [chunk for own in by_request.values() for chunk in self._compute_apart(own)]
        return self._hand_out(texts, vectors)

    def close(self) -> list[OutputChunk]:
        """Drop every request."""
        return [self.abort(request_id) for request_id in tuple(self._waiting)]

    def _take(self, max_num_tokens: int) -> list[_Text]:
        """The texts of the next pass: a turn for each request until nothing more fits."""
        taken: list[_Text] = []
        num_blocks = self._pool.num_available
        ready = deque(self._waiting)
        while ready and len(taken) < self._executor.max_logits_rows:
            request_id = ready.popleft()
            queue = self._waiting[request_id]
            text = queue[0]
            fits = not taken or len(text.token_ids) <= max_num_tokens
            if not fits or text.num_blocks > num_blocks:
                continue  # its texts get shorter, but not in this pass
            max_num_tokens -= len(text.token_ids)
            num_blocks -= text.num_blocks
            taken.append(queue.popleft())
            # Behind the others, in this pass and in the next.
            self._waiting[request_id] = self._waiting.pop(request_id)
            if queue:
                ready.append(request_id)
        return taken

    def _compute_apart(self, texts: list[_Text]) -> list[OutputChunk]:
        """The texts of one request."""
        try:
            vectors = self._compute(texts)
        except Exception as error:  # noqa: BLE001 - as in step
            return [self._fail_pass(texts, error)]
        return self._hand_out(texts, vectors)

    def _compute(self, texts: list[_Text]) -> list[Float32Array]:
        """A vector per text."""
        tables = [self._pool.allocate(text.num_blocks) for text in texts]
        try:
            poolers = [
                Pooler(text.request.pooling, len(text.token_ids), is_causal=self._is_causal)
                for text in texts
            ]
            longest = max(len(text.token_ids) for text in texts)
            # More than one piece only for a single text that is longer than a step.
            piece = self._executor.max_num_batched_tokens
            for start in range(0, longest, piece):
                self._run_piece(texts, tables, poolers, start, start + piece)
            return [
                _columns(pooler.vector(), text.request)
                for pooler, text in zip(poolers, texts, strict=True)
            ]
        finally:
            for table in tables:
                self._pool.release(table)

    def _run_piece(
        self,
        texts: list[_Text],
        tables: list[list[int]],
        poolers: list[Pooler],
        start: int,
        stop: int,
    ) -> None:
        """Compute rows start .. stop - 1 of each text, as far as there are any."""
        ranked: list[tuple[_Text, StepPart, Pooler]] = []
        hidden: list[tuple[_Text, StepPart, Pooler]] = []
        for text, table, pooler in zip(texts, tables, poolers, strict=True):
            token_ids = list(text.token_ids[start:stop])
            rows = pooler.wanted(start, start + len(token_ids))
            part = StepPart(array("i", table), start, token_ids, rows)
            (ranked if text.request.pooling == "rank" else hidden).append((text, part, pooler))
        for group, run in ((ranked, self._executor.run), (hidden, self._executor.run_hidden)):
            if not group:
                continue
            step = pack_step([part for _, part, _ in group])
            if any(text.request.second_starts for text, _, _ in group):
                types = [_token_types(text, start, len(part.token_ids)) for text, part, _ in group]
                step = dataclasses.replace(step, token_types=np.concatenate(types))
            rows_of_all = run(step)
            begin = 0
            for _, part, pooler in group:
                end = begin + len(part.logits_rows)
                pooler.add(rows_of_all[begin:end])
                begin = end

    def _hand_out(self, texts: list[_Text], vectors: list[Float32Array]) -> list[OutputChunk]:
        by_request: dict[str, list[tuple[_Text, Float32Array]]] = {}
        for text, vector in zip(texts, vectors, strict=True):
            by_request.setdefault(text.request.request_id, []).append((text, vector))
        chunks = []
        for request_id, pairs in by_request.items():
            rows = np.stack([vector for _, vector in pairs])
            if not np.isfinite(rows).all():
                chunks.append(self._fail(request_id, "the model gave no usable vector (numerical)"))
                continue
            found = Vectors(tuple(text.index for text, _ in pairs), rows.shape[1], rows.tobytes())
            chunk = OutputChunk(request_id, vectors=found)
            if not self._waiting[request_id]:
                del self._waiting[request_id]
                usage = Usage(pairs[0][0].request.num_tokens, 0, 0)
                chunk = dataclasses.replace(chunk, finish_reason="stop", usage=usage)
            chunks.append(chunk)
        return chunks

    def _fail_pass(self, texts: list[_Text], error: Exception) -> OutputChunk:
        """The last chunk of the request that these texts are of."""
        logger.error("an embedding pass failed", exc_info=error)
        message = f"the model could not compute a step ({type(error).__name__}); see the log"
        return self._fail(texts[0].request.request_id, message)

    def _fail(self, request_id: str, message: str) -> OutputChunk:
        del self._waiting[request_id]
        return OutputChunk(request_id, finish_reason="error", error=message)


def _token_types(text: _Text, start: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    places = np.arange(start, start + count)
    if not text.request.second_starts:
        return np.zeros(count, np.int32)
    return (places >= text.request.second_starts[text.index]).astype(np.int32)


def _columns(vector: Float32Array, request: EmbeddingRequest) -> Float32Array:
    return vector[list(request.label_ids)] if request.label_ids else vector
