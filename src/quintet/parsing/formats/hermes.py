"""Hermes and Qwen: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, once or more often.

Source: the chat templates of Qwen3 and Hermes 2 Pro.
"""

from __future__ import annotations

from quintet.parsing.syntax import CallSyntax

SYNTAX = CallSyntax(openers=("<tool_call>\n",), closer="\n</tool_call>", separator="\n")


def is_written_by(template: str) -> bool:
    """Whether a chat template asks for this format."""
    return "<tool_call>" in template
