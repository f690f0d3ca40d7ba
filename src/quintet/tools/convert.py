"""Hugging Face directories to GGUF files: `quantize` with the usual type of a conversion.

Matrices that are in blocks of few bits already (gpt-oss's experts, MXFP4) keep their bytes where a
float type is asked for: it would hold nothing more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from quintet.tools.hf_source import HFSource
from quintet.tools.model_source import ModelSource
from quintet.tools.progress import Progress
from quintet.tools.quantize import QuantizeResult, write_model
from quintet.tools.recipes import recipe_named


def convert(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str],
    dtype: str = "f16",
    *,
    num_threads: int | None = None,
    dry_run: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> QuantizeResult:
    """
    Write a Hugging Face directory as a GGUF file.

    Args:
        directory: with config.json, safetensors and tokenizer.json or tokenizer.model.
        output: the GGUF file to write; replaced if it is there.
        dtype: of matrices that are in floats: "f16", "bf16", "f32" or any quantisation type.
        num_threads, dry_run, progress: see `quantize`.

    Raises:
        ModelNotFoundError: no such directory, or a file of it is missing.
        UnsupportedModelError: an architecture or a tokenizer that cannot be converted.
        ModelFormatError, RequestError, CapacityError, OSError: see `quantize`.
    """
    recipe = recipe_named(dtype)
    with HFSource(directory) as source:
        return write_model(
            source,
            Path(output),
            recipe,
            overrides=_kept(source) if recipe.base.block_size == 1 else None,
            num_threads=num_threads,
            dry_run=dry_run,
            progress=progress,
        )


def _kept(source: ModelSource) -> dict[str, str]:
    """The format of each tensor that is in blocks, by an expression that finds its name only."""
    return {
        f"^{re.escape(name)}$": info.ggml_type.name
        for name, info in source.tensors.items()
        if info.ggml_type.block_size > 1
    }
