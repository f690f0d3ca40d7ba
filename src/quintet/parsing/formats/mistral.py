"""Mistral: `[TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]`.

Source: the chat template of Mistral-Nemo-Instruct-2407.
"""

from __future__ import annotations

from quintet.parsing.syntax import CallSyntax

SYNTAX = CallSyntax(openers=("[TOOL_CALLS]",), is_list=True, separator=", ")


def is_written_by(template: str) -> bool:
    """Whether a chat template asks for this format."""
    return "[TOOL_CALLS]" in template
