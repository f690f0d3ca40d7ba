"""`quintet show`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from quintet.cli.options import JsonOption, StoredArgument

if TYPE_CHECKING:
    from quintet.hub.manifest import Manifest


def show(
    name: StoredArgument,
    modelfile: Annotated[
        bool, typer.Option("--modelfile", help="Print a Modelfile that makes this model.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is known of a model."""
    from quintet.hub.modelfile import render_modelfile
    from quintet.hub.store import Store

    manifest = Store().get(name)
    if modelfile:
        print(render_modelfile(manifest), end="")
    elif as_json:
        import json

        print(json.dumps({**as_fields(manifest), **_read(manifest)}, indent=2))
    else:
        _show(manifest)


def as_fields(manifest: Manifest) -> dict[str, Any]:
    """What the store has written down, for JSON."""
    import dataclasses

    fields = dataclasses.asdict(manifest)
    return {**fields, "path": str(manifest.path)}


def _read(manifest: Manifest) -> dict[str, Any]:
    """What the headers of its files say."""
    from quintet.tools.inspect import inspect_model

    inspection = inspect_model(manifest.path)
    metadata = inspection.metadata
    architecture = metadata.get("general.architecture") or metadata.get("model_type")
    totals = inspection.totals()
    return {
        "format": inspection.format,
        "architecture": architecture,
        "num_parameters": inspection.num_parameters,
        "context_length": metadata.get(f"{architecture}.context_length")
        or metadata.get("max_position_embeddings"),
        "embedding_length": metadata.get(f"{architecture}.embedding_length")
        or metadata.get("hidden_size"),
        "quantization": totals[0].type if totals else None,
    }


def _show(manifest: Manifest) -> None:
    from quintet.cli.run import printable
    from quintet.cli.tables import age, size

    facts: dict[str, Any] = {
        "name": manifest.name,
        "from": manifest.source,
        "made from": manifest.parent,
        "revision": manifest.revision,
        "path": manifest.path,
        "digest": f"sha256:{manifest.digest}",
        "size": f"{size(manifest.size_bytes)} ({manifest.size_bytes:,} bytes)",
        "modified": age(manifest.modified_at),
    }
    for name, value in _read(manifest).items():
        facts[name.replace("_", " ")] = f"{value:,}" if isinstance(value, int) else value
    for name, value in manifest.parameters.items():
        facts[f"parameter {name}"] = value
    facts["template"] = "its own" if manifest.template is not None else None
    facts["system"] = manifest.system
    facts["messages"] = len(manifest.messages) or None
    facts["license"] = (manifest.license or "").strip().partition("\n")[0] or None
    shown = {name: value for name, value in facts.items() if value is not None}
    width = max(map(len, shown))
    for name, value in shown.items():
        print(f"{name.ljust(width)}  {printable(str(value))}")
