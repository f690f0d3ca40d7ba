"""The process that reads model files on trial; see `file_check`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

# Here rather than where they are used: what importing takes is not the file's.
from quintet.formats.gguf import GGUFFile
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import load_model
from quintet.sandbox.child import serve
from quintet.tokenizer import Tokenizer

_MAX_OPEN: Final = 4096  # of a model in as many parts


def main() -> None:
    """Read each model whose path comes, under the limits that came first."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a helper may start no threads
    serve(_prepare, max_open_files=_MAX_OPEN)


def _prepare(setup: Any) -> Callable[[Any], Any]:
    return _read


def _read(name: Any) -> None:
    path = Path(name)
    if path.is_dir() or path.suffix == ".safetensors":
        with SafetensorsDir.open(path) as folder:
            load_model(folder)
            Tokenizer.from_file(folder.directory)
    else:
        with GGUFFile.open(path) as file:
            load_model(file)
            Tokenizer.from_gguf(file.metadata)


if __name__ == "__main__":
    main()
