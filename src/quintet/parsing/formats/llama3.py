"""Llama 3.1 to 3.3: the answer is `{"name": ..., "parameters": {...}}`, perhaps after a tag.

Source: the chat template of Llama-3.1-8B-Instruct; Meta's prompt format for Llama 3.1, sections
"JSON based tool calling" and "Python tag".
"""

from __future__ import annotations

from quintet.parsing.syntax import CallSyntax

SYNTAX = CallSyntax(openers=("", "<|python_tag|>"), arguments_key="parameters", separator="; ")


def is_written_by(template: str) -> bool:
    """Whether a chat template asks for this format."""
    return "<|python_tag|>" in template or '"parameters": dictionary of argument name' in template
