"""`quintet estimate` and `quintet recommend`: memory that a model needs, before it is loaded."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from quintet.cli.options import JsonOption, ModelArgument

if TYPE_CHECKING:
    from quintet.tools.estimate import Estimate


class KVDtype(str, Enum):
    """Types of the KV cache."""

    auto = "auto"
    bfloat16 = "bfloat16"
    float32 = "float32"
    int8 = "int8"


TokensOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--context", min=1, help="Tokens of prompt and answer; by default all the model has."
    ),
]
BatchOption: TypeAlias = Annotated[
    int, typer.Option("--batch", min=1, help="Sequences that run at a time.")
]
KVDtypeOption: TypeAlias = Annotated[
    KVDtype, typer.Option("--kv-dtype", help="Type of the KV cache.")
]


def estimate(
    model: ModelArgument,
    context: TokensOption = None,
    batch: BatchOption = 1,
    kv_dtype: KVDtypeOption = KVDtype.auto,
    as_json: JsonOption = False,
) -> None:
    """Predict the memory that a model takes."""
    import json
    from dataclasses import asdict

    from quintet.hub.resolve import resolve
    from quintet.tools.estimate import estimate as predict

    found = predict(resolve(model), context=context, batch=batch, kv_dtype=kv_dtype.value)
    if as_json:
        print(json.dumps({**asdict(found), "total_bytes": found.total_bytes}, indent=2))
        return
    show_estimate(found)


def show_estimate(found: Estimate) -> None:
    """A table of the parts."""
    from quintet.cli.tables import print_table, size

    rows = (
        ("weights", found.weight_bytes),
        (f"KV cache ({found.batch} x {found.context} tokens)", found.kv_bytes),
        ("buffers", found.buffer_bytes),
        ("process and tokenizer", found.process_bytes),
        ("together", found.total_bytes),
    )
    print_table(("part", "memory"), [(name, size(num_bytes)) for name, num_bytes in rows])


def recommend(
    model: ModelArgument,
    memory: Annotated[
        str, typer.Option(metavar="BYTES", help="What the process may take, e.g. 4GiB.")
    ],
    context: TokensOption = None,
    batch: BatchOption = 1,
    kv_dtype: KVDtypeOption = KVDtype.auto,
    as_json: JsonOption = False,
) -> None:
    """Find the best quantisation of a model for a memory budget."""
    import json
    from dataclasses import asdict

    from quintet.cli.tables import print_table, size
    from quintet.config import parse_bytes
    from quintet.errors import CapacityError
    from quintet.hub.resolve import resolve
    from quintet.tools.estimate import recommend as choose

    found = choose(
        resolve(model),
        parse_bytes(memory, "memory"),
        context=context,
        batch=batch,
        kv_dtype=kv_dtype.value,
    )
    best = found.best
    if as_json:
        shown = asdict(found)
        for option, each in zip(shown["options"], found.options, strict=True):
            option["total_bytes"] = each.estimate.total_bytes
        shown["best"] = None if best is None else best.type or "as it is"
        print(json.dumps(shown, indent=2))
    else:
        rows = [
            (
                each.type or "as it is",
                size(each.file_bytes),
                size(each.estimate.total_bytes),
                "yes" if each.fits else "no",
                "<- best" if each is best else "",
            )
            for each in found.options
        ]
        print_table(("type", "file", "memory", "fits", ""), rows)
    if best is None:
        least = min(each.estimate.total_bytes for each in found.options)
        raise CapacityError(
            f"no quantisation fits in {size(found.memory)}: the smallest needs {size(least)}; "
            "a shorter context or a smaller batch takes less",
            resource="memory",
        )
