"""Models split over several GGUF files: `name-00001-of-00003.gguf` and its siblings.

Each shard says its number from 0 (`split.no`), how many there are (`split.count`) and how many
tensors they hold together (`split.tensors.count`).  The first has the metadata of the model.

Source: `llama_split_path` and `llm_load` of llama.cpp's src/llama.cpp and
src/llama-model-loader.cpp.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from quintet.errors import ModelFormatError, ModelNotFoundError
from quintet.formats.gguf_header import Header

MAX_SHARDS = 1024  # each is an open file; the largest public models have about a hundred

_NAME = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.DOTALL)


def shard_paths(path: Path, header: Header) -> list[Path]:
    """
    Where the shards are of the model that `path`, whose header is given, is one of.

    Raises:
        ModelFormatError: the file's name and its split metadata do not agree.
        ModelNotFoundError: a shard is missing.
    """
    count = _split_value(header, "split.count", path, default=1)
    if count <= 1:
        return [path]
    if count > MAX_SHARDS:
        raise ModelFormatError(
            f"expected at most {MAX_SHARDS} shards, found {count}", path=path, part="split.count"
        )
    number = _split_value(header, "split.no", path)
    name = _NAME.fullmatch(path.name)
    expected = f"-{number + 1:05}-of-{count:05}.gguf"
    if name is None or not path.name.endswith(expected):
        raise ModelFormatError(
            f"expected a file name that ends in {expected}", path=path, part="split.no"
        )
    stem = name["stem"]
    paths = [path.with_name(f"{stem}-{i + 1:05}-of-{count:05}.gguf") for i in range(count)]
    for i, shard in enumerate(paths):
        if not os.path.isfile(shard):
            raise ModelNotFoundError(f"shard {i + 1} of {count} is missing: {shard}")
    return paths


def check_shards(paths: list[Path], headers: list[Header]) -> None:
    """
    Raise ModelFormatError unless the shards, in order, belong together.

    One file that is not split passes.
    """
    count = len(paths)
    if count == 1:
        return
    num_tensors = sum(len(header.entries) for header in headers)
    # Shard by shard for each key: a file in the wrong place explains a wrong tensor count.
    _require(paths, headers, "split.no", range(count))
    _require(paths, headers, "split.count", [count] * count)
    _require(paths, headers, "split.tensors.count", [num_tensors] * count)
    for path, header in zip(paths, headers, strict=True):
        if header.version != headers[0].version:
            raise ModelFormatError(
                f"expected version {headers[0].version} as in the first shard, "
                f"found {header.version}",
                path=path,
                part="version",
            )
    owners: dict[str, Path] = {}
    for path, header in zip(paths, headers, strict=True):
        for name in header.entries:
            if name in owners:
                raise ModelFormatError(
                    f"the tensor is in {owners[name].name} too", path=path, part=f"tensor {name!r}"
                )
            owners[name] = path


def _require(paths: list[Path], headers: list[Header], key: str, expected: Iterable[int]) -> None:
    for path, header, value in zip(paths, headers, expected, strict=True):
        found = _split_value(header, key, path)
        if found != value:
            raise ModelFormatError(f"expected {value}, found {found}", path=path, part=key)


def _split_value(header: Header, key: str, path: Path, default: int | None = None) -> int:
    value: Any = header.metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ModelFormatError(
            f"expected a whole number of at least 0, found {value!r}", path=path, part=key
        )
    return value
