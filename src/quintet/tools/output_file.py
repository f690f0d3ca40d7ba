"""Whether a large file may be written where it is to go, known before the work begins."""

from __future__ import annotations

import shutil
from pathlib import Path

from quintet.errors import CapacityError, RequestError
from quintet.tools.model_source import ModelSource


def refuse_same_file(source: ModelSource, output: Path) -> None:
    """
    Raises:
        RequestError: the output is a directory, or one of the files it is read from.
    """
    if output.is_dir():
        raise RequestError(f"{output} is a directory", parameter="output")
    for path in source.paths:
        if output.exists() and output.samefile(path):
            raise RequestError(f"{output} is the input itself", parameter="output")


def check_disk(output: Path, num_bytes: int) -> None:
    """
    Raises:
        RequestError: no such directory.
        CapacityError: it has too little room.
    """
    folder = output.absolute().parent
    if not folder.is_dir():
        raise RequestError(f"no such directory: {folder}", parameter="output")
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise CapacityError(
            f"{output} needs {num_bytes / 1e9:.2f} GB; {free / 1e9:.2f} GB are free in {folder}",
            resource="disk space",
        )
