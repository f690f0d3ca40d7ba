"""What the form of an answer must be: plain data, checked for size; `grammar.py` compiles it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, get_args

from quintet.errors import RequestError

ConstraintKind: TypeAlias = Literal["json_schema", "regex", "choice", "lark", "gbnf"]

MAX_SOURCE_BYTES: Final = 64 * 1024
MAX_JSON_DEPTH: Final = 64


@dataclass(frozen=True, slots=True)
class Constraint:
    """The form an answer must have.  Where a model thinks first, it binds what comes after.

    Make one with the class methods.  An answer that ends by itself has the form; one cut by
    max_tokens, a stop string or a stop token is the beginning of one that would.

    Args:
        kind: the language of `source`.
        source: a JSON schema as JSON, a regular expression, the choices as a JSON list, or a
            grammar; at most 64 KiB of UTF-8.
        parameter: what the client calls it, for messages about it.

    Raises:
        RequestError: the kind is none of these, or the source is too long.
    """

    kind: ConstraintKind
    source: str
    parameter: str = field(default="constraint", compare=False)

    def __post_init__(self) -> None:
        if self.kind not in get_args(ConstraintKind):
            kinds = ", ".join(get_args(ConstraintKind))
            raise self.refusal(f"expected one of {kinds}, found {self.kind!r}")
        if not isinstance(self.source, str):
            raise self.refusal(f"expected text, found {type(self.source).__name__}")
        # The cheap bound first: a huge text is not to be encoded to learn that it is huge.
        size_bytes = len(self.source)
        if size_bytes <= MAX_SOURCE_BYTES:
            try:
                size_bytes = len(self.source.encode())
            except UnicodeEncodeError:
                raise self.refusal("expected text, found half of a surrogate pair") from None
        if size_bytes > MAX_SOURCE_BYTES:
            raise self.refusal(f"expected at most {MAX_SOURCE_BYTES} bytes, found {size_bytes}")

    @classmethod
    def json_object(cls, *, parameter: str = "constraint") -> Constraint:
        """Any JSON object."""
        return cls("json_schema", '{"type": "object"}', parameter)

    @classmethod
    def json_schema(
        cls, schema: Mapping[str, Any] | bool | str, *, parameter: str = "constraint"
    ) -> Constraint:
        """JSON that a schema describes (drafts 4 to 2020-12), in one line or indented.

        Args:
            schema: the schema, or its JSON text.  Keywords that cannot be enforced are refused
                when the request is made.
        """
        if isinstance(schema, str):
            return cls("json_schema", schema, parameter)
        return cls("json_schema", _json_text(schema, parameter), parameter)

    @classmethod
    def regex(cls, pattern: str, *, parameter: str = "constraint") -> Constraint:
        """Text that a regular expression matches as a whole.

        The syntax is Rust's, without look-around; \\d, \\w and \\s are ASCII.
        """
        return cls("regex", pattern, parameter)

    @classmethod
    def choice(cls, choices: Sequence[str], *, parameter: str = "constraint") -> Constraint:
        """One of these texts."""
        if isinstance(choices, str) or not all(isinstance(choice, str) for choice in choices):
            raise RequestError("expected a list of strings", parameter=parameter)
        if not any(choices):
            raise RequestError("expected at least one text that is not empty", parameter=parameter)
        return cls("choice", _json_text(list(choices), parameter), parameter)

    @classmethod
    def lark(cls, grammar: str, *, parameter: str = "constraint") -> Constraint:
        """Text of a grammar in llguidance's variant of Lark; it begins at `start`."""
        return cls("lark", grammar, parameter)

    @classmethod
    def gbnf(cls, grammar: str, *, parameter: str = "constraint") -> Constraint:
        """Text of a grammar as llama.cpp writes them; it begins at `root`."""
        return cls("gbnf", grammar, parameter)

    def refusal(self, message: str) -> RequestError:
        """The error that says why this cannot be served."""
        return RequestError(message, parameter=self.parameter)


def _json_text(value: Any, parameter: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"expected JSON: {error}", parameter=parameter) from None
