"""What Hugging Face's own tools keep on this machine.

Source: huggingface_hub documentation, "Environment variables".
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def hugging_face_home() -> Path:
    """$HF_HOME, else `huggingface` in $XDG_CACHE_HOME, else in ~/.cache."""
    home = os.environ.get("HF_HOME")
    if home:
        return Path(home).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "huggingface"


def stored_token() -> str:
    """$HF_TOKEN, else what `hf auth login` has stored; empty where there is neither."""
    token = os.environ.get("HF_TOKEN")
    if token is None:
        path = os.environ.get("HF_TOKEN_PATH")
        with contextlib.suppress(OSError, UnicodeDecodeError):
            token = (Path(path) if path else hugging_face_home() / "token").read_text("utf-8")
    token = (token or "").strip()
    return token if token.isascii() and token.isprintable() else ""
