"""What a process takes before it has any weights: Python, the libraries, a model's tokenizer.

It depends on the machine's libraries and on the vocabulary, so it is measured: a fresh process
loads both and looks at itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from quintet.errors import EngineError

_TIMEOUT_S = 120.0


def measure_footprint(model: str | os.PathLike[str]) -> int:
    """
    Bytes of main memory that a fresh process takes once it has read the model's tokenizer.

    Raises:
        EngineError: the process failed; says with what.
    """
    path = os.path.abspath(model)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, path],
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"a process to measure memory in did not run: {error}") from error
    if done.returncode or not done.stdout.strip().isdecimal():
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise EngineError(f"a process to measure memory in ended with {done.returncode}: {said}")
    return int(done.stdout)


def _most_bytes() -> int:
    """The most main memory this process ever had."""
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _main(model: str) -> None:
    import quintet.llm
    from quintet.engine.loading import load_tokenizer
    from quintet.engine.sizing import resident_bytes
    from quintet.formats.model_file import open_model_file
    from quintet.models import load_model

    with open_model_file(model) as source:
        load_model(source)  # for the modules that it takes
    tokenizer = load_tokenizer(Path(model))
    tokenizer.encode("A tokenizer prepares itself on its first text.")
    print(resident_bytes() or _most_bytes())
    del tokenizer, quintet.llm  # alive until here


if __name__ == "__main__":
    _main(sys.argv[1])
