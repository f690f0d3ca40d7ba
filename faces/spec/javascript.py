"""JavaScript and TypeScript blocks, as they are, under Node.js."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from spec.outcome import Verdict, not_run, ran

_SECONDS = 60
_TYPESCRIPT = (22, 7)  # from which Node.js turns TypeScript into JavaScript by itself
_ES = ("--target", "es2022", "--module", "es2022")


def run_script(text: str, until: str = "") -> Verdict:
    """
    Run a JavaScript module.

    Args:
        until: a script that keeps a connection open is ended when it has printed a line that
            begins so; "" for one that ends by itself.
    """
    node = shutil.which("node")
    if node is None:
        return not_run("there is no Node.js")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "example.mjs"
        script.write_text(text)
        # Node.js 20 has WebSocket behind an option, which later ones still take.
        return _ended([node, "--no-warnings", "--experimental-websocket", str(script)], until)


def run_typescript(text: str) -> Verdict:
    """Run a TypeScript module: with its compiler, or with a Node.js that has what it takes."""
    node, compiler = shutil.which("node"), shutil.which("tsc")
    if node is None:
        return not_run("there is no Node.js")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "example.mts"
        script.write_text(text)
        if compiler is not None:
            command = [compiler, "--noCheck", *_ES, script.name]
            made = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
            if made.returncode:
                return ran([made.stdout])
            return _ended([node, str(script.with_suffix(".mjs"))], "")
        if _version(node) >= _TYPESCRIPT:
            options = ["--no-warnings", "--experimental-transform-types"]
            return _ended([node, *options, str(script)], "")
    return not_run("it needs tsc, or Node.js from 22.7")


def _version(node: str) -> tuple[int, ...]:
    printed = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, printed.strip().lstrip("v").split(".")))


def _ended(command: list[str], until: str) -> Verdict:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        timer = threading.Timer(_SECONDS, process.kill)
        timer.start()
        try:
            lines = []
            for line in process.stdout or ():
                lines.append(line)
                if until and line.startswith(until):
                    process.terminate()
                    return ran()
            errors = process.stderr.read() if process.stderr else ""
            status = process.wait()
        finally:
            timer.cancel()
    if status:
        return ran([f"it ended with {status}: {errors}"])
    return ran([f"it did not print {until!r}: {''.join(lines)!r:.200}"] if until else [])
