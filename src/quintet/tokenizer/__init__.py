"""Text to token ids and back, and chat templates.  May import errors, formats and sandbox.

Names are loaded when they are used: the helper that renders templates needs no tokenizer.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quintet.tokenizer.chat import CHATML, ChatTemplate
    from quintet.tokenizer.detokenizer import Detokenizer
    from quintet.tokenizer.tokenizer import Tokenizer

__all__ = ["CHATML", "ChatTemplate", "Detokenizer", "Tokenizer"]

_LAZY = {
    "CHATML": "quintet.tokenizer.chat",
    "ChatTemplate": "quintet.tokenizer.chat",
    "Detokenizer": "quintet.tokenizer.detokenizer",
    "Tokenizer": "quintet.tokenizer.tokenizer",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
