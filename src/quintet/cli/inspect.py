"""`quintet inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from quintet.cli.options import JsonOption

if TYPE_CHECKING:
    from rich.console import Console

    from quintet.tools.inspect import Inspection


def inspect(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="A GGUF or safetensors file, a directory, or a model's name."
        ),
    ],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    with_estimate: Annotated[
        bool, typer.Option("--estimate", help="Predict the memory it takes: see `estimate`.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is in a model file."""
    from quintet.hub.resolve import resolve
    from quintet.tools.inspect import inspect_model

    path = resolve(file)
    inspection = inspect_model(path)
    estimate = None
    if with_estimate:
        from quintet.tools.estimate import estimate as predict

        estimate = predict(path)
    if as_json:
        import json
        from dataclasses import asdict

        shown = inspection.as_json()
        if estimate is not None:
            shown["estimate"] = {**asdict(estimate), "total_bytes": estimate.total_bytes}
        print(json.dumps(shown, indent=2))
        return
    from rich.console import Console

    _show(inspection, Console(highlight=False, markup=False), tensors)
    if estimate is not None:
        from quintet.cli.estimate import show_estimate

        print("\nMemory")
        show_estimate(estimate)


def _show(inspection: Inspection, console: Console, wants_tensors: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from quintet.tools.inspect import shown_value

    for path in inspection.paths:
        console.print(path, soft_wrap=True)
    console.print(
        f"{inspection.format}, {inspection.num_parameters:,} parameters "
        f"in {len(inspection.tensors)} tensors, {inspection.num_file_bytes:,} bytes\n"
    )
    metadata = Table("key", "value", title="Metadata", title_justify="left", box=None)
    for key, value in inspection.metadata.items():
        metadata.add_row(escape(_printable(key)), escape(_printable(shown_value(value))))
    console.print(metadata)
    totals = Table(title="\nNumber formats", title_justify="left", box=None)
    totals.add_column("type")
    for name in ("tensors", "parameters", "bytes", "bits per weight"):
        totals.add_column(name, justify="right")
    for total in inspection.totals():
        totals.add_row(
            total.type,
            f"{total.num_tensors:,}",
            f"{total.num_parameters:,}",
            f"{total.num_bytes:,}",
            f"{8 * total.num_bytes / total.num_parameters:.2f}" if total.num_parameters else "",
        )
    console.print(totals)
    if wants_tensors:
        listing = Table("tensor", "type", title="\nTensors", title_justify="left", box=None)
        listing.add_column("shape", justify="right")
        listing.add_column("bytes", justify="right")
        for tensor in inspection.tensors:
            shape = " x ".join(map(str, tensor.shape))
            listing.add_row(
                escape(_printable(tensor.name)),
                tensor.ggml_type.name,
                shape,
                f"{tensor.num_bytes:,}",
            )
        console.print(listing)


def _printable(text: str) -> str:
    """A file's text must not steer the terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
