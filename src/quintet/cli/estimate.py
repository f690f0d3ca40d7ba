"""`quintet estimate` and `quintet recommend`: memory, before a model is loaded or made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from quintet.cli.options import JsonOption, ModelArgument

if TYPE_CHECKING:
    from quintet.tools.estimate import Estimate

ContextOption: TypeAlias = Annotated[
    int | None, typer.Option("--context", min=1, help="Tokens of a sequence; all by default.")
]
BatchOption: TypeAlias = Annotated[int, typer.Option(min=1, help="Sequences at a time.")]


def estimate(
    model: ModelArgument,
    context: ContextOption = None,
    batch: BatchOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Say how much memory a model takes."""
    from quintet.cli.measure import print_json
    from quintet.hub.resolve import resolve
    from quintet.tools.estimate import estimate as estimate_model

    found = estimate_model(resolve(model), context=context, batch=batch)
    if as_json:
        print_json(found)
        return
    show_estimate(found)


def show_estimate(found: Estimate) -> None:
    """A table of the parts."""
    from quintet.cli.tables import print_table, size

    rows = (
        ("weights", size(found.weight_bytes)),
        ("KV cache", size(found.cache_bytes)),
        ("buffers", size(found.buffer_bytes)),
        ("process", size(found.process_bytes)),
        ("total", size(found.total_bytes)),
    )
    print_table(("part", "memory"), rows)


def recommend(
    model: ModelArgument,
    memory: Annotated[
        str, typer.Option("--memory", metavar="SIZE", help="The budget, e.g. 4GiB; a number is GB.")
    ],
    context: ContextOption = None,
    batch: BatchOption = 1,
) -> None:
    """Say which quantisation of a model fits a budget of memory."""
    from quintet.cli.tables import print_table, size
    from quintet.config import parse_bytes
    from quintet.errors import CapacityError
    from quintet.hub.resolve import resolve
    from quintet.tools.estimate import recommend as recommend_types

    has_unit = memory.strip()[-1:].isalpha()
    budget = parse_bytes(memory if has_unit else f"{memory}GB", "memory")
    choices = recommend_types(resolve(model), budget, context=context, batch=batch)
    rows = [
        (
            choice.type,
            size(choice.file_bytes),
            size(choice.estimate.total_bytes),
            "yes" if choice.fits else "no",
        )
        for choice in choices
    ]
    print_table(("type", "file", "memory", "fits"), rows)
    best = next((choice for choice in choices if choice.fits), None)
    if best is None:
        least = min(choice.estimate.total_bytes for choice in choices)
        raise CapacityError(
            f"the smallest needs {size(least)} of memory; a shorter context needs less",
            resource="memory",
        )
    print(f"best: {best.type}")
