"""`quintet convert`."""

from __future__ import annotations

from typing import Annotated

import typer

from quintet.cli.options import ThreadsOption
from quintet.cli.quantize import progress_bar, show_result, show_tensors


def convert(
    directory: Annotated[
        str, typer.Argument(metavar="HF_DIR", help="With config.json, safetensors, a tokenizer.")
    ],
    output: Annotated[str, typer.Argument(metavar="OUT", help="The GGUF file to write.")],
    dtype: Annotated[
        str, typer.Option(help="Of matrices in floats: f16, bf16, f32, or a quantisation type.")
    ] = "f16",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show tensors and sizes, write nothing.")
    ] = False,
    threads: ThreadsOption = None,
) -> None:
    """Write a Hugging Face directory as a GGUF file, of any architecture that runs."""
    from quintet.tools.convert import convert as convert_model

    with progress_bar("converting") as progress:
        result = convert_model(
            directory, output, dtype, num_threads=threads, dry_run=dry_run, progress=progress
        )
    if dry_run:
        show_tensors(result)
    show_result(result, is_written=not dry_run)
