"""The service's options: from the command line, the environment, a file, in this order."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nano_qwen3_serving.exceptions import InvalidParametersError

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
DEFAULT_FILE = Path("config.yaml")
MAX_FILE_BYTES = 2**20


@dataclass(frozen=True)
class ServiceOptions:
    """
    Args:
        model_name, device, dtype, max_queue_size, num_blocks, block_size, max_seq_length: as for
            `LLM`.
        host, port: where to listen; port 0 takes a free one.
        workers: processes that serve, each with the model.
        reload: start again when a source file or the configuration changes; with one worker.
        log_level: of what goes to stderr.
        api_key: what clients must send; None: nothing.
    """

    model_name: str = "Qwen/Qwen3-0.6B"
    device: str = "mps"
    dtype: str = "float16"
    max_queue_size: int = 1000
    num_blocks: int = 1024
    block_size: int = 16
    max_seq_length: int = 4096
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    reload: bool = False
    log_level: str = "info"
    api_key: str | None = None


_SECTIONS = {
    "model": {"name": "model_name", "device": "device", "dtype": "dtype"},
    "memory": {
        name: name for name in ("max_queue_size", "num_blocks", "block_size", "max_seq_length")
    },
    "server": {
        name: name for name in ("host", "port", "workers", "reload", "log_level", "api_key")
    },
}
"""The file's sections: its keys to options."""

_INTS = {"max_queue_size", "num_blocks", "block_size", "max_seq_length", "port", "workers"}
_HELP = {
    "model_name": "name, alias or path of the model",
    "device": "cpu, mps or cuda; what is not there runs on the CPU",
    "dtype": "of the weights: float16 keeps what the file has",
    "max_queue_size": "requests that may wait",
    "num_blocks": "blocks of the KV cache",
    "block_size": "tokens of a block",
    "max_seq_length": "tokens of prompt and answer together",
    "host": "address to listen on",
    "port": "port to listen on",
    "workers": "processes that serve, each with the model",
    "log_level": f"one of {', '.join(LOG_LEVELS)}",
    "api_key": "what clients must send; none by default",
}


def read_options(
    arguments: Sequence[str], environment: Mapping[str, str] = os.environ
) -> tuple[ServiceOptions, Path | None]:
    """
    The options, and the file some of them came from.

    Args:
        arguments: of the command line, without the program's name.
        environment: MODEL_NAME, DEVICE, PORT and the rest, each option in capitals.

    Raises:
        InvalidParametersError: a value, key or file that is not what it should be.
        SystemExit: the command line is wrong, or asks for help.
    """
    given = vars(_parser().parse_args(arguments))
    named = given.pop("config")
    path = Path(named) if named else DEFAULT_FILE
    values: dict[str, Any] = {}
    has_file = bool(named) or path.is_file()
    if has_file:
        values.update(_from_file(path))
    for name in (*_HELP, "reload"):
        if environment.get(name.upper()):
            values[name] = _from_text(name, environment[name.upper()], name.upper())
    values.update({name: value for name, value in given.items() if value is not None})
    return _checked(ServiceOptions(**values)), path if has_file else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="start_service", description="Serve a model over HTTP, in OpenAI's interface."
    )
    defaults = ServiceOptions()
    for name, text in _HELP.items():
        option = "--" + name.replace("_", "-")
        names = [option, "--model"] if name == "model_name" else [option]
        default = getattr(defaults, name)
        parser.add_argument(
            *names,
            dest=name,
            type=int if name in _INTS else str,
            choices=LOG_LEVELS if name == "log_level" else None,
            help=text if default is None else f"{text} (default: {default})",
        )
    parser.add_argument(
        "--reload",
        action="store_true",
        default=None,
        help="start again when a source file or the configuration changes",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="options in YAML (default: config.yaml where there is one)"
    )
    return parser


def _from_text(name: str, text: str, where: str) -> Any:
    if name in _INTS:
        try:
            return int(text)
        except ValueError:
            raise InvalidParametersError(f"{where}: expected a number, found {text!r}") from None
    if name == "reload":
        lowered = text.lower()
        if lowered not in ("1", "0", "true", "false"):
            raise InvalidParametersError(f"{where}: expected true or false, found {text!r}")
        return lowered in ("1", "true")
    return text


def _from_file(path: Path) -> dict[str, Any]:
    import yaml

    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise InvalidParametersError(f"{path}: expected at most {MAX_FILE_BYTES} bytes")
        content = yaml.safe_load(data)
    except OSError as error:
        raise InvalidParametersError(f"{path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise InvalidParametersError(f"{path}: expected YAML: {error}") from None
    values: dict[str, Any] = {}
    for section, keys in _mapping(content, str(path)).items():
        if section not in _SECTIONS:
            raise InvalidParametersError(
                f"{path}: expected {', '.join(_SECTIONS)}, found {section!r}"
            )
        for key, value in _mapping(keys, f"{path}, {section}").items():
            where = f"{path}, {section}.{key}"
            if key not in _SECTIONS[section]:
                known = ", ".join(_SECTIONS[section])
                raise InvalidParametersError(f"{where}: expected one of {known}")
            name = _SECTIONS[section][key]
            kind = int if name in _INTS else bool if name == "reload" else str
            if type(value) is not kind:
                raise InvalidParametersError(f"{where}: expected {kind.__name__}, found {value!r}")
            values[name] = value
    return values


def _mapping(content: Any, where: str) -> dict[Any, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InvalidParametersError(f"{where}: expected keys, found {type(content).__name__}")
    return content


def _checked(options: ServiceOptions) -> ServiceOptions:
    for name, lowest, highest in (("port", 0, 65535), ("workers", 1, 64)):
        value = getattr(options, name)
        if not lowest <= value <= highest:
            raise InvalidParametersError(f"{name}: expected {lowest} to {highest}, found {value}")
    if options.log_level not in LOG_LEVELS:
        raise InvalidParametersError(
            f"log_level: expected one of {', '.join(LOG_LEVELS)}, found {options.log_level!r}"
        )
    if options.reload:
        return dataclasses.replace(options, workers=1)
    return options
