"""Plain JSON: the answer is `{"name": ..., "arguments": {...}}`, or a list of such objects.

What models write that were taught no format of their own.
"""

from __future__ import annotations

from quintet.parsing.syntax import CallSyntax

SYNTAX = CallSyntax(openers=("",), is_list=True, separator=", ")


def is_written_by(template: str) -> bool:
    """Any template: this is the last resort."""
    return True
