"""`quintet create`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    file: Annotated[
        Path, typer.Option("--file", "-f", metavar="FILE", help="A Modelfile; - is stdin.")
    ] = Path("Modelfile"),
) -> None:
    """Make a model from another one, or name a local file, as a Modelfile says."""
    from quintet.errors import RequestError
    from quintet.hub.create import base_model
    from quintet.hub.create import create as create_model
    from quintet.hub.modelfile import MAX_BYTES, parse_modelfile
    from quintet.hub.store import Store
    from quintet.tokenizer.chat import ChatTemplate

    if file == Path("-"):
        content, folder = sys.stdin.buffer.read(MAX_BYTES + 1), Path()
    else:
        with open(file, "rb") as opened:
            content, folder = opened.read(MAX_BYTES + 1), file.parent
    try:
        modelfile = parse_modelfile(content.decode())
    except UnicodeDecodeError as error:
        raise RequestError(f"expected UTF-8 in {file}", parameter="modelfile") from error
    for warning in modelfile.warnings:
        print(f"quintet: {warning}", file=sys.stderr)
    if modelfile.template is not None:
        ChatTemplate(modelfile.template)  # refuses what is not Jinja
    store = Store()
    manifest = create_model(
        store,
        name,
        base_model(store, modelfile.base, folder),
        template=modelfile.template,
        system=modelfile.system,
        parameters=modelfile.parameters,
        messages=modelfile.messages,
        license=modelfile.license,
    )
    print(f"created {manifest.name}")
