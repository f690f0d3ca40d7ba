"""`quintet imatrix`, `quintet perplexity` and `quintet compare`: a text through a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from quintet.cli.options import Dtype, DtypeOption, JsonOption, ModelArgument, ThreadsOption

TextArgument: TypeAlias = Annotated[
    Path, typer.Argument(metavar="TEXT", help="A text file, UTF-8.", exists=True, dir_okay=False)
]
ContextOption: TypeAlias = Annotated[
    int, typer.Option("--context", min=8, help="Tokens that are read together.")
]
ChunksOption: TypeAlias = Annotated[
    int | None, typer.Option("--chunks", min=1, help="Read no more of the text than this.")
]


def imatrix(
    model: ModelArgument,
    text: TextArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="To write.")],
    context: ContextOption = 512,
    chunks: ChunksOption = None,
    dtype: DtypeOption = Dtype.auto,
    threads: ThreadsOption = None,
) -> None:
    """Measure on a text which weights matter, for `quintet quantize --imatrix`."""
    from quintet.hub.resolve import resolve
    from quintet.tools.imatrix import compute_imatrix
    from quintet.tools.imatrix_file import write_imatrix

    with chunk_bar("measuring") as progress:
        importances = compute_imatrix(
            resolve(model),
            read_text(text),
            context=context,
            max_chunks=chunks,
            dataset=text.name,
            dtype=dtype.value,
            num_threads=threads,
            progress=progress,
        )
    write_imatrix(output, importances)
    print(
        f"{output}: {len(importances.names)} matrices over "
        f"{importances.num_chunks * importances.chunk_size} tokens"
    )


def perplexity(
    model: ModelArgument,
    text: TextArgument,
    context: ContextOption = 512,
    chunks: ChunksOption = None,
    dtype: DtypeOption = Dtype.auto,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how well a model foretells a text."""
    from quintet.hub.resolve import resolve
    from quintet.tools.perplexity import perplexity as measure

    with chunk_bar("reading") as progress:
        found = measure(
            resolve(model),
            read_text(text),
            context=context,
            max_chunks=chunks,
            dtype=dtype.value,
            num_threads=threads,
            progress=progress,
        )
    if as_json:
        print_json(found)
        return
    print(
        f"perplexity {found.value:.4f} +- {found.error:.4f} "
        f"({found.num_tokens} tokens of {found.num_chunks} chunks of {context})"
    )


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="The model to compare with.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The model to judge.")],
    text: TextArgument,
    context: ContextOption = 512,
    chunks: ChunksOption = None,
    dtype: DtypeOption = Dtype.auto,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how far one model, say a quantised one, is from another on a text."""
    from quintet.hub.resolve import resolve
    from quintet.tools.perplexity import compare as measure

    with chunk_bar("reading") as progress:
        found = measure(
            resolve(a),
            resolve(b),
            read_text(text),
            context=context,
            max_chunks=chunks,
            dtype=dtype.value,
            num_threads=threads,
            progress=progress,
        )
    if as_json:
        print_json(found)
        return
    first, second = found.perplexity_a, found.perplexity_b
    print(f"perplexity of A      {first.value:.4f} +- {first.error:.4f}")
    print(f"perplexity of B      {second.value:.4f} +- {second.error:.4f}")
    print(f"ratio B / A          {found.perplexity_ratio:.4f} +- {found.ratio_error:.4f}")
    print(f"mean KL(A || B)      {found.mean_kl:.6f} +- {found.kl_error:.6f}")
    print(f"largest KL           {found.max_kl:.4f}")
    print(f"same likeliest token {100 * found.top1_agreement:.2f} %")
    print(f"tokens               {first.num_tokens}")


def read_text(path: Path) -> str:
    """The file's text; what is no UTF-8 is an error that names the file."""
    from quintet.errors import RequestError

    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is no UTF-8: {error.reason}", parameter="text") from None


def print_json(found: object) -> None:
    """A dataclass of numbers."""
    import dataclasses
    import json
    from typing import Any, cast

    print(json.dumps(dataclasses.asdict(cast(Any, found)), indent=2, default=str))


@contextmanager
def chunk_bar(verb: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar of chunks on stderr, where that is a terminal."""
    import sys

    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True, highlight=False), transient=True) as bars:
        task = bars.add_task(verb, total=None)

        def show(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        yield show
