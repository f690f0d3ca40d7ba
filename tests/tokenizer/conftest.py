"""Vocabularies to test with: six public ones, and tiny ones of our own."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from quintet.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def vocabulary(shared_data: Path) -> Callable[[str], Tokenizer]:
    """Loads a public vocabulary by name, once: bert-bge, gpt-2, llama-bpe, ..."""

    @cache
    def load(name: str) -> Tokenizer:
        return Tokenizer.from_file(shared_data / "vocab" / f"ggml-vocab-{name}.gguf")

    return load
