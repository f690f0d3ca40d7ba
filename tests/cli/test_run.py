"""`quintet run`: prompts from the command line and from pipes, and conversations."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quintet.cli.chat import Chat
from quintet.cli.constraints import read_constraint
from quintet.cli.run import printable, write_answer
from quintet.cli.terminal import converse_with
from quintet.engine.output import OutputChunk
from quintet.errors import CapacityError, RequestError
from quintet.sampling.params import SamplingParams

from .conftest import COMMAND, Quintet

PROMPT = b"\x1b[?2004h"  # bracketed paste goes on when a line may be typed
GREEDY = ("--temperature", "0", "--max-tokens", "12")


def test_run_answers(quintet: Quintet, demo: str):
    """An answer goes to stdout, ends its line, and nothing else is printed."""
    result = quintet("run", demo, "What is the capital of France?", *GREEDY)
    assert result.returncode == 0
    assert result.stderr == ""
    assert len(result.stdout) > 1
    assert result.stdout.endswith("\n")


def test_run_takes_the_prompt_from_a_pipe(quintet: Quintet, demo: str):
    """A piped prompt is the same as one on the command line."""
    piped = quintet("run", demo, *GREEDY, stdin="Hello there\n")
    assert piped.returncode == 0
    assert piped.stdout == quintet("run", demo, "Hello there", *GREEDY).stdout


def test_run_joins_pipe_and_prompt(quintet: Quintet, demo: str):
    """Piped text follows the prompt, after an empty line."""
    joined = quintet("run", demo, "Summarise:", *GREEDY, stdin="Some text.\n")
    assert joined.stdout == quintet("run", demo, "Summarise:\n\nSome text.", *GREEDY).stdout


def test_run_is_repeatable_with_a_seed(quintet: Quintet, demo: str):
    """The same seed gives the same answer."""
    arguments = ("run", demo, "Tell me a story", "--seed", "7", "--max-tokens", "24")
    assert quintet(*arguments).stdout == quintet(*arguments).stdout


def test_run_verbose_tells_the_speed_on_stderr(quintet: Quintet, demo: str):
    """--verbose leaves stdout alone."""
    result = quintet("run", demo, "Hi", *GREEDY, "--verbose")
    assert result.stdout == quintet("run", demo, "Hi", *GREEDY).stdout
    assert "tokens/s" in result.stderr


def test_run_raw_continues_the_text(quintet: Quintet, demo: str):
    """Without a chat template the model sees the prompt and nothing else."""
    raw = quintet("run", demo, "--raw", "What is the capital of France?", *GREEDY)
    assert raw.returncode == 0
    assert raw.stdout != quintet("run", demo, "What is the capital of France?", *GREEDY).stdout


def test_control_characters_cannot_steer_the_terminal():
    """Escape sequences in an answer are shown, not obeyed; text and line breaks pass."""
    assert printable("a\x1b[2Jb\tc\n\x07\x9b\x7f é") == "a\u241b[2Jb\tc\n\u2407\ufffd\u2421 é"


class FakeLLM:
    """Answers "one two", or does what it is told to."""

    def __init__(self, action: BaseException | None = None) -> None:
        self.action = action
        self.seen: list[Any] = []

    def stream_chat(
        self, messages: Any, params: SamplingParams, **options: Any
    ) -> Iterator[OutputChunk]:
        self.seen.append(list(messages))
        yield OutputChunk("r", "one ")
        if self.action is not None:
            raise self.action
        yield OutputChunk("r", "two", finish_reason="stop")


def chat_with(llm: Any, lines: list[str | BaseException], **options: Any) -> Chat:
    """Feed lines to a chat; an exception is raised as the terminal would."""
    chat = Chat(llm, SamplingParams(), **options)
    pending = iter(lines)

    def read_line() -> str:
        line = next(pending, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    converse_with(chat, read_line)
    return chat


def test_chat_remembers(capsys: pytest.CaptureFixture[str]):
    """Each turn carries those before it; empty lines are no turns."""
    llm = FakeLLM()
    chat = chat_with(llm, ["first", "", "second"], system="be brief")
    assert [message["content"] for message in llm.seen[1]] == [
        "be brief",
        "first",
        "one two",
        "second",
    ]
    assert len(chat.messages) == 5
    assert capsys.readouterr().out == "one two\none two\n"


def test_chat_interrupted_answer_leaves_no_trace(capsys: pytest.CaptureFixture[str]):
    """Ctrl-C ends the answer, not the chat."""
    llm = FakeLLM(KeyboardInterrupt())
    chat = chat_with(llm, ["first", "second"])
    assert len(llm.seen) == 2
    assert chat.messages == []
    capsys.readouterr()


def test_chat_failed_answer_is_one_line(capsys: pytest.CaptureFixture[str]):
    """A failed turn says why, and the chat goes on."""
    llm = FakeLLM(CapacityError("the queue is full", resource="queue"))
    chat_with(llm, ["first", "second"])
    assert len(llm.seen) == 2
    assert capsys.readouterr().err == "quintet: the queue is full\n" * 2


def test_chat_commands(capsys: pytest.CaptureFixture[str]):
    """/clear forgets, /system starts over with instructions, unknown ones are named."""
    llm = FakeLLM()
    chat = chat_with(
        llm, ["hi", "/system be kind", "hello", "/clear", "/frob", "/help", "/bye", "not read"]
    )
    assert [message["role"] for message in llm.seen[1]] == ["system", "user"]
    assert chat.messages == [{"role": "system", "content": "be kind"}]
    assert len(llm.seen) == 2
    output = capsys.readouterr().out
    assert "no command /frob" in output
    assert "/system TEXT" in output


def test_chat_ctrl_c_at_the_prompt_gives_up_the_line(capsys: pytest.CaptureFixture[str]):
    """Ctrl-C while typing does not leave; Ctrl-D does."""
    llm = FakeLLM()
    chat_with(llm, [KeyboardInterrupt(), "hi", EOFError(), "not read"])
    assert len(llm.seen) == 1
    capsys.readouterr()


def test_chat_on_a_terminal(demo: str, tmp_path: Path):
    """The whole thing on a pseudo-terminal: a prompt, an answer, history on disk, Ctrl-D."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "run", demo, *GREEDY],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={
            **os.environ,
            "TERM": "xterm",
            "PROMPT_TOOLKIT_NO_CPR": "1",
            "XDG_STATE_HOME": str(tmp_path),
        },
        start_new_session=True,
    )
    os.close(theirs)

    unseen = b""

    def wait_for(text: bytes) -> None:
        nonlocal unseen
        deadline = time.monotonic() + 30
        while text not in unseen:
            ready, _, _ = select.select([ours], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, unseen
            unseen += os.read(ours, 4096)
        unseen = unseen.partition(text)[2]

    try:
        wait_for(PROMPT)
        os.write(ours, b"/frob\r")
        wait_for(b"no command /frob")
        wait_for(PROMPT)
        os.write(ours, b"Hello\r")
        wait_for(PROMPT)
        os.write(ours, b"\x04")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    history = tmp_path / "quintet" / "chat_history"
    assert "+Hello" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_run_holds_an_answer_to_a_form(quintet: Quintet, demo: str, tmp_path: Path):
    """A schema or a grammar in a file shapes the answer; its mistakes are one line."""
    schema, gbnf, lark = (tmp_path / name for name in ("s.json", "g.gbnf", "g.lark"))
    schema.write_text('{"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}')
    gbnf.write_text('root ::= "yes" | "no"')
    lark.write_text("start: /[0-9]{4}/")
    result = quintet("run", demo, "Hi", "--json-schema", str(schema), *GREEDY)
    assert json.loads(result.stdout)["a"] == 1
    result = quintet("run", demo, "Hi", "--grammar", str(gbnf), *GREEDY)
    assert result.stdout in ("yes\n", "no\n")
    result = quintet("run", demo, "Hi", "--grammar", str(lark), *GREEDY)
    assert re.fullmatch("[0-9]{4}\n", result.stdout)
    gbnf.write_text("root ::= (")
    result = quintet("run", demo, "Hi", "--grammar", str(gbnf), *GREEDY)
    assert result.returncode == 1
    assert result.stderr.startswith("quintet: grammar: line 1")


def test_constraint_options_are_checked(tmp_path: Path):
    """Both at once, or a file that is none, is refused."""
    text = tmp_path / "g"
    text.write_text('root ::= "a"')
    assert read_constraint(None, None) is None
    for files in ((text, text), (tmp_path / "none", None), (None, tmp_path)):
        with pytest.raises(RequestError):
            read_constraint(*files)


def test_a_thought_goes_to_stderr(capsys: pytest.CaptureFixture[str]):
    """The answer alone is the command's result."""
    chunks = [
        OutputChunk("r", reasoning="Hm"),
        OutputChunk("r", reasoning=", yes.", text="Yes"),
        OutputChunk("r", text=".", finish_reason="stop"),
    ]
    assert write_answer(chunks, verbose=False) == "Yes."
    assert capsys.readouterr() == ("Yes.\n", "Hm, yes.\n\n")


def test_run_loads_as_it_is_told(quintet: Quintet, demo: str, tmp_path: Path):
    """The loading options reach the model, and change no answer."""
    plain = quintet("run", demo, "Hello", *GREEDY)
    arguments = ("--no-mmap", "--max-memory", "2GiB", "--packed-cache")
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    kept = quintet("run", demo, "Hello", *GREEDY, *arguments, env=env)
    assert (kept.stdout, kept.stderr) == (plain.stdout, "")
    assert len(list((tmp_path / "quintet" / "packed").iterdir())) == 1


def test_run_refuses_a_limit_that_is_too_small(quintet: Quintet, demo: str):
    """With the numbers, and no traceback."""
    result = quintet("run", demo, "Hello", "--max-memory", "1MB")
    assert result.returncode != 0
    assert "max_memory: expected at least" in result.stderr
    assert "found 1000000" in result.stderr
    assert "Traceback" not in result.stderr
