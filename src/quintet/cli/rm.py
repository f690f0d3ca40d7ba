"""`quintet rm`."""

from __future__ import annotations

from typing import Annotated

import typer


def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models of the store.")],
) -> None:
    """Remove models; files that were used where they lie stay there."""
    from quintet.hub.store import Store

    store = Store()
    for name in names:
        print(f"removed {store.delete(name).name}")
