"""How a model is loaded, as a program asks for it and as Quintet has it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nano_qwen3_serving.exceptions import InvalidParametersError
from nano_qwen3_serving.sampling_params import CACHE_PRECISIONS
from quintet.config import EngineConfig

KV_BLOCK_TOKENS = 16  # of the engine's own blocks, which results name
DTYPES = {"auto": "auto", "float16": "auto", "bfloat16": "bfloat16", "float32": "float32"}
"""Of weights, to Quintet's: "float16" keeps what the model's file has."""


@dataclass(frozen=True)
class ModelOptions:
    """
    How a model is loaded; the arguments of `LLM`.

    Raises:
        InvalidParametersError: a value out of range.
    """

    model_name: str
    device: str
    dtype: str
    max_queue_size: int
    num_blocks: int
    block_size: int
    max_seq_length: int

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InvalidParametersError(
                f"dtype: expected one of {', '.join(DTYPES)}, found {self.dtype!r}"
            )
        for name, minimum in (
            ("max_queue_size", 1),
            ("num_blocks", 1),
            ("block_size", 1),
            ("max_seq_length", 2),  # a token of prompt, one of answer
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or value < minimum:
                raise InvalidParametersError(
                    f"{name}: expected a number from {minimum}, found {value!r}"
                )

    @property
    def num_kv_blocks(self) -> int:
        """Blocks of the engine's size that hold as many tokens as those asked for."""
        return math.ceil(self.num_blocks * self.block_size / KV_BLOCK_TOKENS)

    def engine(self, cache_precision: str) -> dict[str, Any]:
        """Keywords of `quintet.LLM`."""
        return {
            "dtype": DTYPES[self.dtype],
            "kv_dtype": CACHE_PRECISIONS[cache_precision],
            "num_kv_blocks": self.num_kv_blocks,
            # Not less than others ask for, with whom the model is shared; ours is counted here.
            "max_queue": max(self.max_queue_size, EngineConfig.max_queue),
            "shared": True,
        }
