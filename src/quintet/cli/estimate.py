"""`quintet estimate` and `quintet recommend`: memory, before a model is loaded or made."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from quintet.cli.options import JsonOption, ModelArgument

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
    from quintet.cli.tables import print_table, size
    from quintet.hub.resolve import resolve
    from quintet.tools.estimate import estimate as estimate_model

    found = estimate_model(resolve(model), context=context, batch=batch)
    if as_json:
        print_json(found)
        return
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
    memory: Annotated[float, typer.Option("--memory", min=0, metavar="GB", help="The budget.")],
    context: ContextOption = None,
    batch: BatchOption = 1,
) -> None:
    """Say which quantisation of a model fits a budget of memory."""
    from quintet.cli.tables import print_table, size
    from quintet.errors import CapacityError
    from quintet.hub.resolve import resolve
    from quintet.tools.estimate import recommend as recommend_types

    choices = recommend_types(resolve(model), int(memory * 1e9), context=context, batch=batch)
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
