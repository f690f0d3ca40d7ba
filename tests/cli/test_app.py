"""The command as a whole: help, versions, and errors on one line."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quintet import __version__
from quintet.cli.app import describe
from quintet.errors import ModelFormatError

from .conftest import COMMAND, Quintet


def test_help_lists_the_commands(quintet: Quintet):
    """Called without arguments it explains itself, like --help."""
    for arguments in ([], ["--help"], ["-h"]):
        result = quintet(*arguments)
        assert result.returncode == 0
        assert re.findall(r"^  (\w+)  ", result.stdout, re.MULTILINE) == [
            *("run", "serve"),
            *("pull", "list", "show", "create", "cp", "rm", "ps", "stop"),
            *("inspect", "convert", "quantize", "prune", "imatrix", "perplexity", "compare"),
            *("estimate", "recommend", "doctor", "bench"),
        ]


def test_version(quintet: Quintet):
    """--version prints name and version."""
    assert quintet("--version").stdout == f"quintet {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frob"], "frob"),
        (["--frob"], "--frob"),
        (["run"], "MODEL"),
        (["run", "no-such-model", "hi"], "no-such-model"),
        (["run", "demo"], "expected a prompt"),
        (["run", "demo", "hi", "--seed", "x"], "--seed"),
        (["run", "demo", "hi", "--top-p", "2"], "top_p"),
        (["run", "demo", "hi", "--threads", "0"], "--threads"),
        (["run", "demo", "hi", "--raw", "--system", "x"], "raw"),
        (["inspect", "/no/such/file"], "/no/such/file"),
        (["inspect", __file__], "GGUF"),
        (["bench", "no-such-model"], "no-such-model"),
        (["serve", "no-such-model", "--port", "0"], "no-such-model"),
        (["serve", "--port", "65536"], "--port"),
        (["serve", "--host", "0.0.0.0"], "--api-key"),
        (["serve", "--api-key", ""], "key"),
        (["serve", "demo", "demo"], "demo"),
        (["serve", "=demo"], "NAME=MODEL"),
    ],
)
def test_an_error_is_one_line(quintet: Quintet, arguments: list[str], message: str):
    """Whatever goes wrong: one line on stderr that names it, nothing on stdout, status 1."""
    result = quintet(*arguments)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("quintet: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert message in result.stderr


def test_debugging_shows_the_traceback(quintet: Quintet):
    """QUINTET_DEBUG lets an error through."""
    result = quintet("inspect", "/no/such/file", env={"QUINTET_DEBUG": "1"})
    assert result.returncode == 1
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ModelFormatError("two\nlines", path="a.gguf"), "a.gguf: two lines"),
        (FileNotFoundError(2, "No such file", "x"), "x: No such file"),
        (MemoryError(), "out of memory"),
        (ZeroDivisionError("by zero"), "internal error: ZeroDivisionError: by zero"),
    ],
)
def test_describe(error: Exception, text: str):
    """Every kind of error has a line; a bug says that it is one."""
    assert describe(error) == text


def test_a_reader_that_leaves_is_no_error(demo: str):
    """`quintet inspect ... | true` ends without a word."""
    with subprocess.Popen(
        [*COMMAND, "inspect", demo, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()  # before it writes: what fits the pipe would count as read
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


def test_ctrl_c_ends_quietly(demo: str):
    """An interrupted answer ends the command with status 130 and no traceback."""
    long_answer = ["run", demo, "--raw", "a", "--temperature", "0"]
    with subprocess.Popen(
        [*COMMAND, *long_answer],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell starts background jobs, perhaps this very suite, with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert errors == b""
        assert process.returncode == 130


def test_every_command_has_a_file():
    """One file per command."""
    folder = Path(sys.modules["quintet.cli.app"].__file__).parent
    for name in (
        *("run", "serve", "inspect", "doctor", "bench"),
        *("pull", "list", "show", "create", "cp", "rm", "ps", "stop"),
    ):
        assert (folder / f"{name}.py").exists()
