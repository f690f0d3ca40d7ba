"""The examples of nano-qwen3-serving."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from nano_qwen3_serving.exceptions import InvalidParametersError
from nano_qwen3_serving.service.options import read_options
from spec.blocks import Block
from spec.http_examples import HTTPExamples, json_mismatches
from spec.outcome import Verdict, checked, not_run, ran
from spec.run import Check

SPEC = "000"
PACKAGE = "nano_qwen3_serving"
PORTS = (8080,)  # of the command line it shows
_SCRIPTS = Path(__file__).parents[2]  # its commands are of the repository's folder
_START_S = 60.0
ALIASES = {"Qwen/Qwen3-0.6B": "demo"}

PRELUDE = """
from nano_qwen3_serving import LLM, AsyncLLM, RequestPriority, SamplingParams
llm = LLM(device="cpu")
"""
ASYNC_PRELUDE = "llm = AsyncLLM(device='cpu')"

SHAPES = {
    "Generation Result": "llm.generate_single('Hello', SamplingParams.greedy(5))",
    "Streaming Result": "next(llm.generate_stream('Hello'))",
    "Statistics": "llm.get_stats()",
    "Model Information": "llm.get_model_info()",
}


@contextlib.contextmanager
def checks() -> Iterator[Check]:
    """Checks of what is not Python, with a service that is started when first needed."""
    with contextlib.ExitStack() as stack:
        examples: list[tuple[HTTPExamples, str]] = []

        def http() -> tuple[HTTPExamples, str]:
            if not examples:
                url = stack.enter_context(service())
                each = HTTPExamples(url)
                stack.callback(each.close)
                examples.append((each, url))
            return examples[0]

        def check(block: Block) -> Verdict:
            if "start_service.py" in block.text:
                return ran(_start_as_printed(block.text))
            if block.language == "bash":
                return checked(_check_variables(block.text))
            if block.language == "yaml":
                return checked(_check_file(block.text))
            if block.language == "json" and block.headings[-1] == "HTTP Error Responses":
                return ran(_check_error(http()[1], block.text))
            if block.language == "json":
                return http()[0].check(block)
            if block.headings[-1] == "Base URL":
                return checked(_check_address(block.text))
            return not_run("it is no code")

        yield check


@contextlib.contextmanager
def service() -> Iterator[str]:
    """A running service; its address."""
    command = [sys.executable, "-m", "nano_qwen3_serving.service.start", "--port", "0"]
    with subprocess.Popen(
        [*command, "--device", "cpu"], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            lines = iter(process.stderr or ())
            yield next(match[1] for line in lines if (match := re.search(r" at (http\S+)", line)))
        finally:
            process.terminate()


def _start_as_printed(text: str) -> list[str]:
    """A command line of start_service, where the script lies; it must come to answer."""
    options, _ = read_options(shlex.split(text.replace("\\\n", " "))[2:], {})
    python = Path(sys.executable).parent
    # Its workers are its children: one session, to be ended together.
    process = subprocess.Popen(
        ["/bin/bash", "-c", f"exec {text}"],
        cwd=_SCRIPTS,
        env=os.environ | {"PATH": f"{python}{os.pathsep}{os.environ['PATH']}"},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline_s = time.monotonic() + _START_S
        while process.poll() is None and time.monotonic() < deadline_s:
            with contextlib.suppress(httpx.TransportError):
                health = httpx.get(f"http://127.0.0.1:{options.port}/health")
                if health.is_success:
                    return []
            time.sleep(0.2)
        return [f"it does not answer; its status is {process.poll()}"]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _check_variables(text: str) -> list[str]:
    """Environment variables: every one must be understood."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    variables = {name: value for name, _, value in pairs}
    try:
        options, _ = read_options([], variables)
    except (InvalidParametersError, SystemExit) as error:
        return [str(error)]
    return [
        f"{name} has no effect"
        for name, value in variables.items()
        if str(getattr(options, name.lower(), None)) != value
    ]


def _check_file(text: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text)
        try:
            read_options(["--config", str(path)], {})
        except InvalidParametersError as error:
            return [str(error)]
    return []


def _check_address(text: str) -> list[str]:
    """Where the service listens unless told otherwise."""
    options, _ = read_options([], {})
    found = f"http://{options.host}:{options.port}"
    return [] if text.strip() == found else [f"it is at {found}"]


def _check_error(url: str, text: str) -> list[str]:
    """The error is what a chat request without messages gets."""
    response = httpx.post(f"{url}/v1/chat/completions", json={"model": "qwen3-0.6b"})
    errors = json_mismatches(json.loads(text), response.json())
    return errors if response.status_code == 400 else [*errors, f"{response.status_code}"]
