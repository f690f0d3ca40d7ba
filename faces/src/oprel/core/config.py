"""What applies where a call says nothing: folders, memory, threads.

A file is YAML or JSON; the environment stands in for what neither it nor the caller sets.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oprel.core.exceptions import ValidationError

MAX_FILE_BYTES = 2**20
_COUNTS = {"default_max_memory_mb": 1, "ctx_size": 2, "batch_size": 1, "n_threads": 1}


def _environment(variable: str) -> Any:
    return dataclasses.field(default_factory=lambda: os.environ.get(variable))


@dataclass
class Config:
    """
    Global configuration.

    Args:
        cache_dir: where models are stored; None: $OPREL_CACHE_DIR, else Quintet's own folder.
        binary_dir: kept for programs that set it: Quintet downloads no binaries.
        default_max_memory_mb: MiB that weights, cache and buffers of a model may take where
            `Model` does not say; None: what the machine has.
        ctx_size: tokens of prompt and answer together, or the model's own context where less.
        batch_size: new tokens computed in one step.
        n_threads: None for one per physical core.
        n_gpu_layers: there is no GPU support: anything but -1 and 0 is logged, and computed by
            the CPU.

    Raises:
        ValidationError: a value of the wrong type or out of range.
    """

    cache_dir: str | None = _environment("OPREL_CACHE_DIR")
    binary_dir: str | None = _environment("OPREL_BINARY_DIR")
    default_max_memory_mb: int | None = None
    ctx_size: int = 4096
    batch_size: int = 512
    n_threads: int | None = None
    n_gpu_layers: int = -1

    def __post_init__(self) -> None:
        for name in ("cache_dir", "binary_dir"):
            value = getattr(self, name)
            if isinstance(value, os.PathLike):
                setattr(self, name, os.fspath(value))
            elif not (value is None or isinstance(value, str)):
                raise ValidationError(f"{name}: expected a folder, found {value!r}")
        for name in ("default_max_memory_mb", "ctx_size", "batch_size", "n_threads"):
            self._check_count(name, _COUNTS[name], optional=name not in ("ctx_size", "batch_size"))
        self._check_count("n_gpu_layers", -1, optional=False)

    @classmethod
    def default(cls) -> Config:
        """The configuration of who sets nothing."""
        return cls()

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Config:
        """
        Read a YAML or JSON file.

        Raises:
            ValidationError: it cannot be read, or has a name or a value that is none of ours.
        """
        try:
            data = Path(path).read_bytes()[: MAX_FILE_BYTES + 1]
        except OSError as error:
            raise ValidationError(f"{os.fspath(path)}: {error.strerror}") from error
        if len(data) > MAX_FILE_BYTES:
            raise ValidationError(f"{os.fspath(path)}: expected at most {MAX_FILE_BYTES} bytes")
        values = _parse(data, Path(path))
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(str(name) for name in values if name not in known)
        if unknown:
            raise ValidationError(
                f"{os.fspath(path)}: expected some of {', '.join(sorted(known))}, "
                f"found {', '.join(unknown)}"
            )
        return cls(**values)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file that `from_file` reads; its folder is made if need be."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".json":
            target.write_text(json.dumps(self.to_dict(), indent=2) + "\n")
            return
        import yaml

        target.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False))

    def to_dict(self) -> dict[str, Any]:
        """The values by name."""
        return dataclasses.asdict(self)

    def _check_count(self, name: str, lowest: int, *, optional: bool) -> None:
        value = getattr(self, name)
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise ValidationError(
                f"{name}: expected a whole number from {lowest}, found {value!r:.60}"
            )


def _parse(data: bytes, path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".json":
            values = json.loads(data)
        else:
            import yaml

            values = yaml.safe_load(data)
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"{path}: {error}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "yaml":
            raise
        raise ValidationError(f"{path}: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValidationError(f"{path}: expected names and values")
    return values
