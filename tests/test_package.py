"""The package itself: its public names, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

import quintet

FRAMEWORKS = {"torch", "transformers", "gguf"}


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


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
        ("from quintet import LLM, AsyncLLM", {"starlette", "pydantic", "typer"}),
        ("import quintet.server.run", {"typer"}),
        ("import quintet.cli.app", {"numpy", "asyncio", "rich.console", "starlette"}),
    ],
)
def test_package_imports_only_what_it_needs(statement: str, unwanted: set[str]) -> None:
    """Importing is cheap: heavy modules wait until they are used, frameworks for ever."""
    modules = python(f"import sys; {statement}; print(*sys.modules)").split()
    assert not (unwanted | FRAMEWORKS) & set(modules)


def test_package_imports_quickly() -> None:
    """`import quintet` takes at most 150 ms, in the best of several interpreters."""
    code = "import time; t = time.perf_counter(); import quintet; print(time.perf_counter() - t)"
    assert min(float(python(code)) for _ in range(5)) <= 0.150


def test_importing_starts_nothing() -> None:
    """Having every public name starts no thread and changes no environment variable."""
    code = """
import os, threading
before = dict(os.environ)
import quintet
for name in quintet.__all__:
    getattr(quintet, name)
print(threading.active_count(), dict(os.environ) == before)
"""
    assert python(code).split() == ["1", "True"]


def test_version_is_the_distribution_s() -> None:
    """The version is written twice; both are the same."""
    try:
        installed = version("quintet")
    except PackageNotFoundError:
        pytest.skip("run from a source tree that is not installed")
    assert installed == quintet.__version__
