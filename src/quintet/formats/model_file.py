"""A model's weights by path, of either kind of file."""

from __future__ import annotations

import os
from pathlib import Path

from quintet.formats.gguf import GGUFFile
from quintet.formats.safetensors import SafetensorsDir


def is_safetensors(path: Path) -> bool:
    """Whether a path is taken as a Hugging Face directory or one of its files, not as GGUF."""
    return path.is_dir() or path.suffix == ".safetensors"


def open_model_file(
    path: str | os.PathLike[str], *, use_mmap: bool = True
) -> GGUFFile | SafetensorsDir:
    """
    Open a GGUF file, or a directory of safetensors files by its own path or that of one of them.

    Raises:
        ModelNotFoundError, ModelFormatError, UnsupportedModelError: as `GGUFFile.open` and
            `SafetensorsDir.open`.
    """
    path = Path(path)
    if is_safetensors(path):
        return SafetensorsDir.open(path, use_mmap=use_mmap)
    return GGUFFile.open(path, use_mmap=use_mmap)
