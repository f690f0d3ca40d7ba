"""Importing the package: quick, light, and without side effects."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

import quintet


def python(code: str) -> str:
    """What a fresh interpreter prints; it imports what this one would."""
    path = f"import sys; sys.path[:0] = {sys.path!r}\n"
    return subprocess.run(
        [sys.executable, "-c", path + code], check=True, capture_output=True, text=True
    ).stdout


def test_import_is_quick():
    """`import quintet` takes at most 150 ms, in the best of several interpreters."""
    code = "import time; t = time.perf_counter(); import quintet; print(time.perf_counter() - t)"
    assert min(float(python(code)) for _ in range(5)) <= 0.150


@pytest.mark.parametrize(
    "module", ["quintet", "quintet.llm", "quintet.server.app", "quintet.cli.app"]
)
def test_import_loads_no_framework(module: str):
    """Nothing we ship pulls in torch, transformers or gguf."""
    code = f"import {module}; print(*sys.modules)"
    loaded = set(python(code).split())
    assert module in loaded
    assert not loaded & {"torch", "transformers", "gguf", "hypothesis", "pytest"}


def test_import_starts_nothing():
    """Importing everything public starts no thread and changes no environment variable."""
    code = """
import os, threading
before = dict(os.environ)
import quintet
for name in quintet.__all__:
    getattr(quintet, name)
print(threading.active_count(), dict(os.environ) == before)
"""
    assert python(code).split() == ["1", "True"]


def test_help_is_quick():
    """The command line answers `--help` without loading an engine or numpy."""
    code = """
from quintet.cli.app import exit_status
assert exit_status(["--help"]) == 0
print(*sys.modules)
"""
    output = python(code)
    assert "serve" in output
    assert not {"numpy", "rich", "starlette", "pydantic"} & set(output.splitlines()[-1].split())


def test_public_names_exist():
    """Every name the package promises is there, and unknown ones are attribute errors."""
    for name in quintet.__all__:
        assert getattr(quintet, name) is not None
    assert set(quintet.__all__) <= set(dir(quintet))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = quintet.no_such_name


def test_version_is_the_distribution_s():
    """The version is written twice; both are the same."""
    try:
        installed = version("quintet")
    except PackageNotFoundError:
        pytest.skip("run from a source tree that is not installed")
    assert installed == quintet.__version__
