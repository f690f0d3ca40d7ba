"""The package itself: its public names, and what importing it costs."""

import subprocess
import sys

import pytest

import quintet


@pytest.mark.parametrize("name", quintet.__all__)
def test_package_has_every_public_name(name: str) -> None:
    """Each name in __all__ can be had and is listed."""
    assert getattr(quintet, name).__name__ == name
    assert name in dir(quintet)


def test_package_refuses_other_names() -> None:
    """A name that is not there is an AttributeError, as in any module."""
    with pytest.raises(AttributeError, match="nonsense"):
        _ = quintet.nonsense


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import quintet", {"numpy", "tokenizers", "jinja2", "asyncio", "quintet._native"}),
        ("from quintet import LLM, AsyncLLM", {"torch", "transformers", "starlette", "pydantic"}),
    ],
)
def test_package_imports_only_what_it_needs(statement: str, unwanted: set[str]) -> None:
    """Importing is cheap: heavy modules wait until they are used."""
    code = f"import sys; {statement}; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not unwanted & set(modules)
