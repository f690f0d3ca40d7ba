"""What is in a model file: metadata, tensors, number formats, sizes.

Reads headers only, so it works on models that Quintet cannot run.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quintet.formats.gguf import GGUFFile
from quintet.formats.model_file import is_safetensors
from quintet.formats.safetensors import SafetensorsDir
from quintet.formats.weights import TensorInfo

_GGUF_MAGIC = b"GGUF"
_SHOWN_ITEMS = 5
_SHOWN_CHARS = 100

# `enum llama_ftype` of llama.cpp's include/llama.h: general.file_type by name.
_FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
}


@dataclass(frozen=True, slots=True)
class TypeTotal:
    """All tensors of one number format."""

    type: str
    num_tensors: int
    num_parameters: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """
    A model file, or a directory of them.

    Args:
        format: "GGUF 3" or "safetensors".
        paths: the files, in order.
        num_file_bytes: their sizes together.
        metadata: keys and values; of config.json for safetensors.
        tensors: in file order.
    """

    format: str
    paths: tuple[str, ...]
    num_file_bytes: int
    metadata: dict[str, Any]
    tensors: tuple[TensorInfo, ...]

    @property
    def num_parameters(self) -> int:
        """Weights of all tensors together."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def num_tensor_bytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(tensor.num_bytes for tensor in self.tensors)

    @property
    def file_type(self) -> str | None:
        """What GGUF's general.file_type calls the mix of number formats; None without it."""
        value = self.metadata.get("general.file_type")
        return _FILE_TYPES.get(value) if isinstance(value, int) else None

    def totals(self) -> list[TypeTotal]:
        """The number formats, the one with most bytes first."""
        by_type: dict[str, list[TensorInfo]] = {}
        for tensor in self.tensors:
            by_type.setdefault(tensor.ggml_type.name, []).append(tensor)
        totals = [
            TypeTotal(
                name,
                len(tensors),
                sum(math.prod(tensor.shape) for tensor in tensors),
                sum(tensor.num_bytes for tensor in tensors),
            )
            for name, tensors in by_type.items()
        ]
        return sorted(totals, key=lambda total: -total.num_bytes)

    def as_json(self) -> dict[str, Any]:
        """Everything, in JSON's types; long arrays of the metadata are cut and say so."""
        return {
            "format": self.format,
            "files": list(self.paths),
            "num_file_bytes": self.num_file_bytes,
            "num_parameters": self.num_parameters,
            "num_tensor_bytes": self.num_tensor_bytes,
            "metadata": {key: _json_value(value) for key, value in self.metadata.items()},
            "tensors": [
                {
                    "name": tensor.name,
                    "shape": list(tensor.shape),
                    "type": tensor.ggml_type.name,
                    "num_bytes": tensor.num_bytes,
                }
                for tensor in self.tensors
            ],
        }


def inspect_model(path: str | os.PathLike[str]) -> Inspection:
    """Read the headers of a GGUF file, a safetensors file or a directory with one.

    Raises:
        ModelNotFoundError: no such file.
        ModelFormatError: it breaks its format.
        UnsupportedModelError: a tensor in a number format of unknown size.
    """
    path = Path(path)
    if path.is_file() and _starts_with(path, _GGUF_MAGIC):
        with GGUFFile.open(path) as gguf:
            return _inspection(f"GGUF {gguf.version}", gguf.paths, gguf.metadata, gguf.tensors)
    if is_safetensors(path):
        with SafetensorsDir.open(path) as model:
            return _inspection("safetensors", model.paths, model.config, model.tensors)
    with GGUFFile.open(path) as gguf:  # which says what is wrong with it
        return _inspection(f"GGUF {gguf.version}", gguf.paths, gguf.metadata, gguf.tensors)


def shown_value(value: Any) -> str:
    """A metadata value on one line: long arrays and texts are cut and say so."""
    if isinstance(value, str):
        line = " ".join(value.split())
        if len(line) > _SHOWN_CHARS:
            return f"{line[:_SHOWN_CHARS]}... ({len(value)} characters)"
        return line
    if value is None or isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {shown_value(item)}' for key, item in value.items())}}}"
    items = ", ".join(shown_value(_plain(item)) for item in value[:_SHOWN_ITEMS])
    more = f", ... ({len(value)} items)" if len(value) > _SHOWN_ITEMS else ""
    return f"[{items}{more}]"


def _inspection(
    format_: str,
    paths: Iterable[Path],
    metadata: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
) -> Inspection:
    names = tuple(str(path) for path in paths)
    return Inspection(
        format_,
        names,
        sum(os.path.getsize(name) for name in names),
        dict(metadata),
        tuple(tensors.values()),
    )


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _plain(value: Any) -> Any:
    """A NumPy number as Python's; anything else as it is."""
    return value.item() if hasattr(value, "item") else value


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {key: _json_value(item) for key, item in value.items()}
    items = [_json_value(_plain(item)) for item in value[:_SHOWN_ITEMS]]
    if len(value) > _SHOWN_ITEMS:
        return {"num_items": len(value), "first_items": items}
    return items
