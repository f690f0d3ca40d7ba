"""JSON from files we do not trust: what the standard allows and nothing else.

Python's own parser takes NaN, Infinity and numbers that overflow to it, keeps the last of two
equal keys, lets half a surrogate pair through, and takes as much memory as the text asks for.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from quintet.errors import ModelFormatError
from quintet.formats.mapped_file import MappedFile

MAX_DEPTH = 64
MAX_DIGITS = 100  # some tokenizer_config.json write 10^30 for "no limit"
# Commas, colons and opening brackets: each may cost a hundred bytes once parsed.
MAX_STRUCTURE = 2**20


def loads(
    encoded: bytes, *, path: str | os.PathLike[str], part: str | None = None, offset: int = 0
) -> Any:
    """
    Parse JSON, as UTF-8 without a byte order mark.

    Args:
        path, part: where it is from, for errors.
        offset: of `encoded` in the file, in bytes, for errors.

    Raises:
        ModelFormatError: not JSON, a key that is there twice, a number that is not finite or has
            more than MAX_DIGITS digits, half a surrogate pair, nesting beyond MAX_DEPTH, or more
            than MAX_STRUCTURE values.
    """

    def error(message: str, at: int = 0) -> ModelFormatError:
        return ModelFormatError(message, path=path, part=part, offset=offset + at)

    structure = sum(map(encoded.count, (b",", b":", b"[", b"{")))
    if structure > MAX_STRUCTURE:
        raise error(f"expected at most {MAX_STRUCTURE} values, found up to {structure}")
    try:
        text = encoded.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_short_int,
        )
        _check_depth_and_text(value)
    except UnicodeDecodeError as failure:
        raise error("expected UTF-8", failure.start) from failure
    except json.JSONDecodeError as failure:
        at = len(failure.doc[: failure.pos].encode("utf-8"))
        raise error(f"expected JSON: {failure.msg}", at) from failure
    except ValueError as failure:  # from our own checks
        raise error(str(failure)) from failure
    except RecursionError as failure:
        raise error(f"expected nesting of at most {MAX_DEPTH}") from failure
    return value


def load_object(path: Path, *, max_bytes: int) -> dict[str, Any]:
    """
    The JSON object that a file consists of.

    Raises:
        ModelNotFoundError: no such file.
        ModelFormatError: longer than `max_bytes`, or not an object in strict JSON.
    """
    value = _load(path, max_bytes)
    if not isinstance(value, dict):
        raise ModelFormatError(f"expected a JSON object, found {type(value).__name__}", path=path)
    return value


def load_array(path: Path, *, max_bytes: int) -> list[Any]:
    """The JSON array that a file consists of; raises as `load_object`."""
    value = _load(path, max_bytes)
    if not isinstance(value, list):
        raise ModelFormatError(f"expected a JSON array, found {type(value).__name__}", path=path)
    return value


def _load(path: Path, max_bytes: int) -> Any:
    file = MappedFile(path)
    if file.size > max_bytes:
        raise ModelFormatError(
            f"expected at most {max_bytes} bytes of JSON, found {file.size}", path=path
        )
    return loads(file.bytes.tobytes(), path=path)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} is there twice")
            seen.add(key)
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"expected a number, found {name}")


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"expected a finite number, found {digits[:20]}")
    return number


def _short_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"expected at most {MAX_DIGITS} digits, found {len(digits)}")
    return int(digits)


def _check_depth_and_text(value: Any) -> None:
    """Walk without recursion; the parser has bounded the depth already, but higher."""
    pending = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, str):
            _check_text(item)
            continue
        if depth > MAX_DEPTH and isinstance(item, (dict, list)):
            raise ValueError(f"expected nesting of at most {MAX_DEPTH}")
        if isinstance(item, dict):
            pending.extend((key, depth + 1) for key in item)
            pending.extend((child, depth + 1) for child in item.values())
        elif isinstance(item, list):
            pending.extend((child, depth + 1) for child in item)


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"expected whole characters, found half a surrogate pair in {text[:40]!r}"
        ) from error
