"""Arguments and options that several commands take."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class Backend(str, Enum):
    """What computes."""

    auto = "auto"
    cpu = "cpu"
    reference = "reference"


class Dtype(str, Enum):
    """What weights are computed from."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


ModelArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model's name, e.g. demo, or the path of its file.")
]
StoredArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="NAME", help="A model's name, as `quintet list` shows it.")
]
ThreadsOption: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Threads to compute with; as many as physical cores by default."),
]
BackendOption: TypeAlias = Annotated[
    Backend, typer.Option(help="What computes; reference is slow and exact.")
]
DtypeOption: TypeAlias = Annotated[
    Dtype, typer.Option(help="Type of the weights; auto keeps the file's own.")
]
ContextOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--context", min=2, help="Tokens of prompt and answer together."),
]
MmapOption: TypeAlias = Annotated[
    bool,
    typer.Option("--mmap/--no-mmap", help="Map the model's file, or read it tensor by tensor."),
]
MlockOption: TypeAlias = Annotated[
    bool, typer.Option("--mlock", help="Keep the weights in physical memory, never swapped out.")
]
MaxMemoryOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="BYTES",
        help="What weights, KV cache and buffers may take together, e.g. 4GiB; "
        "the cache is sized to fit.",
    ),
]
PackedCacheOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--packed-cache",
        help="Keep the packed weights in a file under the user's cache folder, as large as they "
        "are, so that the next start need not pack them.",
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def status(text: str) -> AbstractContextManager[Any]:
    """Say on stderr what takes long, while it does; silent where stderr is no terminal."""
    from rich.console import Console

    return Console(stderr=True).status(text)
