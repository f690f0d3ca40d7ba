"""The `densecore` command: `quintet serve` in DenseCore's dialect, on port 8080.

It takes the options of `quintet serve` and the environment that DenseCore's server reads:
MAIN_MODEL_PATH, HOST, PORT, THREADS, and AUTH_ENABLED with API_KEYS, a list of keys with commas
between them.  Of `key:user:tier` the key alone counts.  Options win over the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

_TRUE = ("1", "true", "yes", "on")
_OPTIONS = {"HOST": "--host", "PORT": "--port", "THREADS": "--threads"}


def serve_arguments(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """What `quintet` is to be called with."""
    given = list(arguments[1:] if arguments[:1] == ["serve"] else arguments)
    result = ["serve", "--dialect", "densecore"]
    for variable, option in _OPTIONS.items():
        value = environment.get(variable, "").strip()
        if value and not (variable == "THREADS" and value == "0"):  # 0: as many as is best
            result += [option, value]
    if environment.get("AUTH_ENABLED", "").strip().lower() in _TRUE:
        for entry in environment.get("API_KEYS", "").split(","):
            if key := entry.strip().partition(":")[0]:
                result += ["--api-key", key]
    model = environment.get("MAIN_MODEL_PATH", "").strip()
    if model and not _names_model(given):
        result.append(model)
    return [*result, *given]  # the last of an option given twice counts


def _names_model(arguments: Sequence[str]) -> bool:
    """Whether something is there that is neither an option nor may be one's value."""
    is_value = False
    for argument in arguments:
        if not argument.startswith("-") and not is_value:
            return True
        is_value = argument.startswith("--") and "=" not in argument
    return False


def main() -> None:
    """The command; see the module."""
    from quintet.cli.app import exit_status

    sys.exit(exit_status(serve_arguments(sys.argv[1:], os.environ)))
