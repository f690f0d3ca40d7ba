"""Texts to vectors: what `LLM.embed` shares with its async twin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quintet.engine.embedding import EmbeddingRequest, EmbeddingSpec
from quintet.engine.output import OutputChunk, Usage
from quintet.errors import ContextLengthError, EngineError, RequestError
from quintet.models import Pooling
from quintet.runtime import Prompt, Runtime, several_prompts

Float32Array = npt.NDArray[np.float32]
POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "last", "max", "rank")


@dataclass(frozen=True, slots=True)
class EmbeddingOutput:
    """
    Vectors of texts.

    Args:
        embeddings: [num_texts, dimensions] float32, in the order of the texts.
        usage: tokens of all texts, special tokens included.
    """

    embeddings: Float32Array
    usage: Usage


class Embedding:
    """
    An embedding request on its way: made from texts, fed with chunks, then an output.

    Args:
        runtime: the model.
        texts, pooling, normalize, dimensions, truncate: see `LLM.embed`.

    Raises:
        RequestError: what cannot be served.
    """

    def __init__(
        self,
        runtime: Runtime,
        texts: Prompt | Sequence[Prompt],
        *,
        pooling: Pooling | None = None,
        normalize: bool = True,
        dimensions: int | None = None,
        truncate: bool = False,
    ) -> None:
        spec = spec_of(runtime)
        if pooling is not None and pooling not in POOLINGS:
            raise RequestError(
                f"expected one of {', '.join(POOLINGS)}, found {pooling!r}", parameter="pooling"
            )
        pooling = pooling or spec.pooling
        max_dimensions = 0 if pooling == "rank" else spec.hidden_size
        if dimensions is not None and not 1 <= dimensions <= max_dimensions:
            raise RequestError(
                f"expected 1 to {spec.hidden_size}, and no pooling by rank, found {dimensions!r}",
                parameter="dimensions",
            )
        if pooling == "rank" and spec.ranks == "judge":
            raise RequestError(
                'expected a model with a classifier for "rank", found one that judges by its '
                "tokens; use rerank",
                parameter="pooling",
            )
        self._dimensions = dimensions
        self._normalizes = normalize and pooling != "rank"
        max_len = runtime.client.limits.max_model_len
        encoded = [
            _within(runtime.encode_text(text, parameter="input"), max_len, truncate)
            for text in several_prompts(texts)
        ]
        self.request = EmbeddingRequest(runtime.new_id(), tuple(map(tuple, encoded)), pooling)
        self._vectors = Collector(len(encoded))

    def add(self, chunk: OutputChunk) -> None:
        """Take in what a pass has made."""
        self._vectors.add(chunk)

    def output(self) -> EmbeddingOutput:
        """Once the last chunk is in."""
        vectors = self._vectors.rows()[:, : self._dimensions]
        if self._normalizes:
            vectors = normalized(vectors)
        return EmbeddingOutput(np.ascontiguousarray(vectors), self._vectors.usage)


def spec_of(runtime: Runtime) -> EmbeddingSpec:
    """What the model does with whole texts.

    Raises:
        RequestError: nothing.
    """
    spec = runtime.client.limits.embedding
    if spec is None:
        raise RequestError("expected a model that embeds texts, found one that does not")
    return spec


def normalized(vectors: Float32Array) -> Float32Array:
    """Each row at length 1; a row of zeros stays one."""
    lengths = np.sqrt(np.sum(np.square(vectors, dtype=np.float64), axis=1, keepdims=True))
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


class Collector:
    """The vectors of a request, from its chunks in any order."""

    def __init__(self, num_texts: int) -> None:
        self._rows: list[Float32Array | None] = [None] * num_texts
        self.usage = Usage(0, 0, 0)

    def add(self, chunk: OutputChunk) -> None:
        if chunk.finish_reason == "abort":
            raise EngineError("the request was aborted")
        if chunk.vectors is not None:
            found = np.frombuffer(chunk.vectors.data, np.float32).reshape(-1, chunk.vectors.width)
            for index, row in zip(chunk.vectors.indices, found, strict=True):
                self._rows[index] = row
        self.usage = chunk.usage or self.usage

    def rows(self) -> Float32Array:
        rows = [row for row in self._rows if row is not None]
        if len(rows) != len(self._rows):
            raise EngineError(f"{len(self._rows) - len(rows)} texts have no vector")
        return np.stack(rows)


def _within(encoded: tuple[Sequence[int], int], max_len: int, truncate: bool) -> Sequence[int]:
    """A text's tokens, cut before its closing special tokens where that is asked for."""
    token_ids, num_closing = encoded
    if len(token_ids) <= max_len:
        return token_ids
    if not truncate:
        raise ContextLengthError(len(token_ids), max_len, parameter="input")
    closing = list(token_ids[len(token_ids) - num_closing :])
    return [*token_ids[: max(0, max_len - num_closing)], *closing][:max_len]
