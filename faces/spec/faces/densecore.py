"""The examples of DenseCore: Python, C, HTTP and shell."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from densecore import DenseCore, build_library
from spec.blocks import Block
from spec.c_examples import CExamples
from spec.http_examples import HTTPExamples
from spec.outcome import Verdict, checked, not_run, ran
from spec.run import Check

SPEC = "001"
PACKAGE = "densecore"
ALIASES = dict.fromkeys(
    (
        "./models/qwen-7b-q4.gguf",
        "./model.gguf",
        "model.gguf",
        "Qwen/Qwen2.5-0.5B-Instruct-GGUF",
        "TheBloke/Llama-2-7B-Chat-GGUF/llama-2-7b-chat.Q4_K_M.gguf",
        "qwen",
        "bge-small",
    ),
    "demo",
)
PORTS = (8080,)  # the server's, by default

PRELUDE = """
import numpy as np
from densecore import DenseCore, GenerationConfig

main_model_path = "./model.gguf"
model = DenseCore(main_model_path)
"""
ASYNC_PRELUDE = ""
SHAPES: dict[str, str] = {}
NEEDS = {"from scipy": "scipy", "densecore.integrations": "langchain_core"}

_KEY = "sk-your-api-key"
_ENGINE = 'DenseCoreHandle engine = InitEngine("model.gguf", NULL, 1, -1, 0);'
_DECLARED = """
static volatile int is_done;
static void on_last(const char *token, int is_finished, void *user_data) {
    (void)token, (void)user_data;
    is_done = is_finished;
}
"""
# Callbacks come one after the other: with ours, those of the example have been.
_END = """
while (GetDetailedMetrics(engine).completed_requests < NUM_REQUESTS) usleep(1000);
if (SubmitRequest(engine, "Bye", 1, on_last, NULL) < 0) return 2;
while (!is_done) usleep(1000);
FreeEngine(engine);
return 0;
"""


@contextlib.contextmanager
def checks() -> Iterator[Check]:
    """Checks of what is not Python, with a server and a C library when they are first needed."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(DenseCore("demo"))  # which the examples share
        http: list[HTTPExamples] = []
        libraries: list[Path] = []

        def server() -> HTTPExamples:
            if not http:
                http.append(HTTPExamples(stack.enter_context(_server(PORTS[0]))))
                stack.callback(http[0].close)
            return http[0]

        def library() -> Path:
            if not libraries:
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                libraries.append(build_library.build(folder))
            return libraries[0]

        def check(block: Block) -> Verdict:
            if block.language == "c":
                return _check_c(block, library)
            if block.language == "json":
                return server().check(block)
            if block.language == "prometheus":
                server()
                return checked(_check_metrics(block.text))
            if block.text.startswith("curl"):
                return _run_curl(block.text, server)
            if block.headings[-1] == "Base URL":
                server()
                return checked(_check_address(block.text.strip()))
            return not_run("it installs the package that this one stands for")

        yield check


@contextlib.contextmanager
def _server(port: int, **environment: str) -> Iterator[str]:
    """The command, with the examples' models; its address."""
    command = [sys.executable, "-c", "from densecore.server import main; main()", "--in-process"]
    own = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PORT": str(port),
        **environment,
    }
    models = ("qwen", "bge-small")
    with subprocess.Popen(
        [*command, *models], stderr=subprocess.PIPE, text=True, env=own
    ) as process:
        try:
            lines = iter(process.stderr or ())
            found = (re.search(r" at (http\S+)/v1", line) for line in lines)
            yield next(match[1] for match in found if match)
        finally:
            process.terminate()


def _check_c(block: Block, library: Callable[[], Path]) -> Verdict:
    """Compile it; run it if it is an example."""
    if shutil.which("gcc") is None:
        return not_run("there is no gcc")
    try:
        path = library()
    except (ImportError, RuntimeError) as error:  # such as a Python without a shared library
        return not_run(str(error))
    start = "" if "InitEngine(" in block.text else _ENGINE
    end = _END.replace("NUM_REQUESTS", str(block.text.count("Submit")))
    return CExamples(build_library.HEADER, path, _DECLARED, start, end).check(block)


def _run_curl(text: str, server: Callable[[], HTTPExamples]) -> Verdict:
    """Run a command as it is; "..." stands for an address that wants the key."""
    if shutil.which("curl") is None:
        return not_run("there is no curl")
    with contextlib.ExitStack() as stack:
        if "..." in text:
            url = stack.enter_context(_server(0, AUTH_ENABLED="true", API_KEYS=_KEY))
            if httpx.get(f"{url}/v1/models").status_code != 401:
                return ran(["no key is asked for"])
            text = text.replace("...", f"{url}/v1/models")
        else:
            server()
        command = text.replace("curl ", "curl --silent --show-error --fail ", 1)
        done = subprocess.run(
            ["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False
        )
    errors = [done.stderr] if done.returncode else []
    if '"stream": true' in text:
        events = [line for line in done.stdout.splitlines() if line]
        if not events or any(not line.startswith("data: ") for line in events):
            errors.append(f"expected events, found {done.stdout!r:.200}")
        elif events[-1] != "data: [DONE]":
            errors.append(f"the last event is {events[-1]!r}")
    elif "data" not in json.loads(done.stdout or "{}"):
        errors.append(f"expected the models, found {done.stdout!r:.200}")
    return ran(errors)


def _check_address(url: str) -> list[str]:
    response = httpx.get(f"{url}/health")
    return [] if response.is_success else [f"{response.status_code}: {response.text}"]


def _check_metrics(text: str) -> list[str]:
    """Each metric is there with that type, and has a value."""
    shown = httpx.get(f"http://localhost:{PORTS[0]}/metrics").text
    errors = []
    for line in text.splitlines():
        name = line.split()[2 if line.startswith("#") else 0] if line else ""
        if line.startswith("# TYPE") and line not in shown.splitlines():
            errors.append(f"expected {line!r}")
        if name and not re.search(rf"^{name}(\{{.*\}})? [\d.e+-]+$", shown, re.MULTILINE):
            errors.append(f"{name} has no value")
    return errors
