"""From what a user calls a model to its file."""

from __future__ import annotations

import os
from pathlib import Path

from quintet.errors import ModelNotFoundError

_PACKAGED = Path(__file__).parent / "data"


def packaged_models() -> dict[str, Path]:
    """The models that come with Quintet, by name."""
    return {path.stem: path for path in sorted(_PACKAGED.glob("*.gguf"))}


def resolve(model: str | os.PathLike[str]) -> Path:
    """
    The file or directory of a model.

    Args:
        model: the name of a packaged model, or a path to a GGUF file, a safetensors file
            or a Hugging Face directory.  A name wins over a path; `./demo` is always a path.

    Raises:
        ModelNotFoundError: neither; lists the names there are.
    """
    packaged = packaged_models()
    name = os.fspath(model)
    if name in packaged:
        return packaged[name]
    path = Path(name).expanduser()
    if path.exists():
        return path
    names = ", ".join(packaged) or "none"
    raise ModelNotFoundError(
        f"no model {name!r}: no such file or directory; models by name: {names}"
    )
