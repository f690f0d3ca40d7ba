"""What is measured: the cells of the table, and the machine's bound on each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from peers.models import Shape
from quintet.formats.gguf import GGUFFile

Kind: TypeAlias = Literal["prefill", "decode", "streams", "api", "load", "memory"]

NUM_NEW_TOKENS = 64  # of a decode, and of each stream
STREAM_PROMPT = 128
API_PROMPT = 128


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Args:
        size: tokens of the prompt (prefill), tokens in the cache (decode), or sequences (streams).
    """

    kind: Kind
    size: int = 0

    @property
    def name(self) -> str:
        """As on the command line."""
        return (
            f"{self.kind}-{self.size}"
            if self.kind in ("prefill", "decode", "streams")
            else (self.kind)
        )

    @property
    def unit(self) -> str:
        """Of its figures."""
        return {"load": "s", "memory": "MB"}.get(self.kind, "tokens/s")

    @property
    def num_tokens(self) -> int:
        """Computed in its time."""
        if self.kind == "prefill":
            return self.size
        if self.kind == "api":
            return NUM_NEW_TOKENS - 1  # from the first to the last
        return NUM_NEW_TOKENS * (self.size if self.kind == "streams" else 1)

    @property
    def context(self) -> int:
        """Tokens the single stream grows to."""
        if self.kind == "prefill":
            return self.size
        return self.size + NUM_NEW_TOKENS if self.kind == "decode" else 1


# In this order each cell finds the most of what it needs in the cache: a long prompt before
# decoding behind it, many streams before few.
CELLS = (
    Cell("load"),
    Cell("memory"),
    Cell("prefill", 512),
    Cell("prefill", 4096),
    Cell("decode", 4096),
    Cell("decode", 1024),
    Cell("decode", 0),
    Cell("streams", 32),
    Cell("streams", 16),
    Cell("streams", 8),
    Cell("streams", 4),
    Cell("streams", 1),
    Cell("api"),
)


@dataclass(frozen=True)
class ModelCost:
    """What one step must at least do, counted from the file and the shape.

    Args:
        weight_bytes: of the matrices, the head's once, as the file has them.
        body_weights: of all matrices but the head's.
        head_weights: of the head.
        kv_bytes_per_token: of a KV cache in 16 bits.
    """

    weight_bytes: int
    body_weights: int
    head_weights: int
    kv_bytes_per_token: int

    @classmethod
    def of(cls, path: Path, shape: Shape) -> ModelCost:
        """Count a model with a tied head."""
        with GGUFFile.open(path) as file:
            matrices = {n: info for n, info in file.tensors.items() if len(info.shape) == 2}
        weights = {name: info.shape[0] * info.shape[1] for name, info in matrices.items()}
        head_weights = weights.pop("token_embd.weight")
        return cls(
            weight_bytes=sum(info.num_bytes for info in matrices.values()),
            body_weights=sum(weights.values()),
            head_weights=head_weights,
            kv_bytes_per_token=shape.kv_bytes_per_token,
        )

    def bytes_per_s(self, cell: Cell, tokens_per_s: float) -> float | None:
        """Memory that a decode at this speed reads: weights once a step, each sequence's KV."""
        if cell.kind not in ("decode", "streams", "api"):
            return None
        num_rows = cell.size if cell.kind == "streams" else 1
        depth = {"decode": cell.size, "streams": STREAM_PROMPT, "api": API_PROMPT}[cell.kind]
        kv_bytes = num_rows * (depth + NUM_NEW_TOKENS / 2) * self.kv_bytes_per_token
        return tokens_per_s / num_rows * (self.weight_bytes + kv_bytes)

    def macs_per_s(self, cell: Cell, tokens_per_s: float) -> float | None:
        """Multiply-accumulates of the matrices; attention is not counted."""
        if cell.kind == "prefill":
            return tokens_per_s * (self.body_weights + self.head_weights / cell.size)
        if cell.kind in ("decode", "streams", "api"):
            return tokens_per_s * (self.body_weights + self.head_weights)
        return None
