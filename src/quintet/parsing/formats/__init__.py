"""Tool-call formats, one file each; every file says what it looks like and whose template it is.

A file exports SYNTAX, and `is_written_by(template)`: whether a chat template asks its model for
this format.  May import errors and tokenizer.
"""

from __future__ import annotations

from types import ModuleType

from quintet.parsing.formats import hermes, llama3, mistral, plain_json
from quintet.parsing.syntax import CallSyntax

# plain_json takes every template: last.
_FORMATS: tuple[ModuleType, ...] = (hermes, mistral, llama3, plain_json)


def call_syntax(template: str) -> CallSyntax:
    """The format a chat template asks for; plain JSON where it is none we know."""
    found = next(format_ for format_ in _FORMATS if format_.is_written_by(template))
    syntax: CallSyntax = found.SYNTAX
    return syntax


__all__ = ["call_syntax"]
