"""The process that reads model files on trial; see `file_check`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

# Here rather than where they are used: what importing takes is not the file's.
from quintet.formats.gguf import GGUFFile
from quintet.formats.model_file import open_model_file
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
    with open_model_file(name) as source:
        load_model(source)
        if isinstance(source, GGUFFile):
            Tokenizer.from_gguf(source.metadata)
        else:
            Tokenizer.from_file(source.directory)


if __name__ == "__main__":
    main()
