"""`quintet cp`."""

from __future__ import annotations

from typing import Annotated

import typer

from quintet.cli.options import StoredArgument


def cp(
    source: StoredArgument,
    destination: Annotated[str, typer.Argument(metavar="NEW", help="The second name.")],
) -> None:
    """Give a model a second name; its files are not copied."""
    from quintet.hub.store import Store

    print(f"{source} is now {Store().copy(source, destination).name} too")
