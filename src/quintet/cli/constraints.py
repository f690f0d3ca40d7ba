"""The forms an answer may be held to, read from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quintet.sampling.constraint import Constraint


def read_constraint(json_schema: Path | None, grammar: Path | None) -> Constraint | None:
    """What the options ask for; a grammar is Lark if its file's name ends so, else GBNF.

    Raises:
        RequestError: both are given, or a file cannot be read.
    """
    from quintet.errors import RequestError
    from quintet.sampling.constraint import Constraint

    if json_schema is not None and grammar is not None:
        raise RequestError("expected a schema or a grammar, found both", parameter="grammar")
    if json_schema is not None:
        return Constraint.json_schema(_text(json_schema, "json-schema"), parameter="json-schema")
    if grammar is None:
        return None
    make = Constraint.lark if grammar.suffix == ".lark" else Constraint.gbnf
    return make(_text(grammar, "grammar"), parameter="grammar")


def _text(path: Path, parameter: str) -> str:
    from quintet.errors import RequestError

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read: {error}", parameter=parameter) from None
