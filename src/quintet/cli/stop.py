"""`quintet stop`."""

from __future__ import annotations

from typing import Annotated

import typer


def stop(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model that a server has loaded.")],
) -> None:
    """Make a running server unload a model."""
    from quintet.cli.remote import ask

    ask("POST", "/api/generate", {"model": name, "keep_alive": 0, "stream": False})
    print(f"stopped {name}")
