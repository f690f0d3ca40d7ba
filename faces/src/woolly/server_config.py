"""The server's configuration: a YAML file, the environment over it.

Source: Woolly, "API Reference", "Configuration".
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from woolly.errors import InvalidRequest

MAX_FILE_BYTES = 2**20
DEFAULT_FILE = Path("woolly.config.yaml")
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def _option(path: str, kind: type, default: Any, variable: str | None = None) -> Any:
    """A field, its place in the file, its type and its variable."""
    facts = {"path": path, "kind": kind, "variable": variable}
    if kind is list:
        return field(default_factory=lambda: list(default), metadata=facts)
    return field(default=default, metadata=facts)


@dataclass(frozen=True)
class ServerConfig:
    """
    What the server is to do; names and places as in Woolly's file.

    Args:
        allowed_hosts: further names that clients reach the server by; not one of Woolly's.
        cors_origins: "*" lets the pages of any origin use the server.
        preload: models to load at the start, by name.
        gpu_enabled, gpu_layers: there is no GPU support; the CPU computes.
        cache_ttl: seconds that a model stays which nobody uses.
        api_key_required: None: where there is a key.  False, said in so many words, lets a server
            that other machines reach do without.
    """

    host: str = _option("server.host", str, "127.0.0.1", "WOOLLY_HOST")
    port: int = _option("server.port", int, 11434, "WOOLLY_PORT")
    allowed_hosts: list[str] = _option("server.allowed_hosts", list, ())  # noqa: RUF009 - makes a field
    cors_enabled: bool = _option("server.cors.enabled", bool, False)
    cors_origins: list[str] = _option("server.cors.origins", list, ("*",))  # noqa: RUF009
    models_directory: str = _option("models.directory", str, "./models", "WOOLLY_MODELS_DIR")
    preload: list[str] = _option("models.preload", list, ())  # noqa: RUF009
    max_batch_size: int = _option("inference.max_batch_size", int, 4)
    max_sequence_length: int = _option("inference.max_sequence_length", int, 4096)
    gpu_enabled: bool = _option("inference.gpu.enabled", bool, True, "WOOLLY_GPU_ENABLED")
    gpu_layers: int = _option("inference.gpu.layers", int, 0, "WOOLLY_GPU_LAYERS")
    cpu_threads: int | None = _option("inference.cpu.threads", int, None, "WOOLLY_CPU_THREADS")
    cache_enabled: bool = _option("cache.enabled", bool, True)
    cache_size: int | None = _option("cache.size", int, None)
    cache_ttl: int = _option("cache.ttl", int, 3600)
    log_level: str = _option("logging.level", str, "info", "WOOLLY_LOG_LEVEL")
    log_format: str = _option("logging.format", str, "text", "WOOLLY_LOG_FORMAT")
    log_output: str = _option("logging.output", str, "stdout")
    api_key_required: bool | None = _option("security.api_key_required", bool, None)
    rate_limiting_enabled: bool = _option("security.rate_limiting.enabled", bool, False)
    requests_per_minute: int = _option("security.rate_limiting.requests_per_minute", int, 60)
    api_key: str | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InvalidRequest(f"{_PLACES[name]}: expected {low} to {high}, found {value}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InvalidRequest(
                    f"{_PLACES[name]}: expected one of {', '.join(choices)}, "
                    f"found {getattr(self, name)!r:.40}"
                )
        if self.api_key_required and not self.api_key:
            raise InvalidRequest("security.api_key_required: set WOOLLY_API_KEY")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
        **overrides: Any,
    ) -> ServerConfig:
        """
        The file's values, over them the environment's, over them these.

        Args:
            path: None: woolly.config.yaml in this folder, if it is there.
            overrides: fields by name; None leaves them.

        Raises:
            InvalidRequest: the file or a variable has what cannot be used; names it.
        """
        environment = os.environ if environment is None else environment
        if path is None:
            path = DEFAULT_FILE if DEFAULT_FILE.is_file() else None
        values = {} if path is None else _read(Path(path))
        values |= _from_environment(environment)
        values |= {name: value for name, value in overrides.items() if value is not None}
        return cls(**values)


_RANGES: Final = (
    ("port", 0, 65535),
    ("max_batch_size", 1, 4096),
    ("max_sequence_length", 2, 2**31 - 1),
    ("gpu_layers", -1, 10_000),
    ("cpu_threads", 1, 4096),
    ("cache_size", 1, 2**63 - 1),
    ("cache_ttl", 0, 2**31 - 1),
    ("requests_per_minute", 1, 2**31 - 1),
)
_CHOICES: Final = {
    "log_level": ("debug", "info", "warning", "warn", "error", "trace"),
    "log_format": ("json", "text"),
}
_FIELDS: Final = {
    each.metadata["path"]: each for each in dataclasses.fields(ServerConfig) if each.metadata
}
_PLACES: Final = {each.name: path for path, each in _FIELDS.items()}
_SECTIONS: Final = {path.rpartition(".")[0] for path in _FIELDS} | {
    path.partition(".")[0] for path in _FIELDS
}


def _read(path: Path) -> dict[str, Any]:
    """The fields that a file sets."""
    import yaml

    try:
        data = path.read_bytes()
        if len(data) > MAX_FILE_BYTES:
            raise InvalidRequest(f"{path}: expected at most {MAX_FILE_BYTES} bytes")
        content = yaml.safe_load(data)
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidRequest(f"{path}: {' '.join(str(error).split())}") from error
    values: dict[str, Any] = {}
    _flatten({} if content is None else content, "", values, path)
    return values


def _flatten(content: Any, place: str, values: dict[str, Any], path: Path) -> None:
    if not isinstance(content, dict):
        raise InvalidRequest(f"{path}: {place or 'the file'}: expected names and values")
    for name, value in content.items():
        where = f"{place}.{name}" if place else str(name)
        if where in _FIELDS:
            values[_FIELDS[where].name] = _checked(value, where, path)
        elif where in _SECTIONS:
            _flatten({} if value is None else value, where, values, path)
        else:
            raise InvalidRequest(f"{path}: {where}: there is no such setting")


def _checked(value: Any, where: str, path: Path) -> Any:
    kind = _FIELDS[where].metadata["kind"]
    is_right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if kind is list:
        value = [] if value is None else value
        is_right = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if not is_right:
        expected = "texts" if kind is list else kind.__name__
        raise InvalidRequest(f"{path}: {where}: expected {expected}, found {value!r:.60}")
    return value


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for each in _FIELDS.values():
        variable = each.metadata["variable"]
        if variable is not None and environment.get(variable):
            values[each.name] = _parsed(variable, environment[variable], each.metadata["kind"])
    if environment.get("WOOLLY_API_KEY"):
        values["api_key"] = environment["WOOLLY_API_KEY"]
    if environment.get("WOOLLY_RATE_LIMIT"):
        limit = _parsed("WOOLLY_RATE_LIMIT", environment["WOOLLY_RATE_LIMIT"], int)
        values["rate_limiting_enabled"] = limit > 0
        values["requests_per_minute"] = max(1, limit)
    return values


def _parsed(variable: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in (*_TRUE, *_FALSE):
            raise InvalidRequest(f"{variable}: expected true or false, found {text!r:.40}")
        return text.lower() in _TRUE
    if kind is int:
        try:
            return int(text)
        except ValueError:
            raise InvalidRequest(f"{variable}: expected a number, found {text!r:.40}") from None
    return text
