"""What a wire protocol brings to the app, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.routing import BaseRoute

from quintet.server.errors import ErrorReply
from quintet.server.flavours import Flavour
from quintet.server.health import HealthMonitor
from quintet.server.models import Models
from quintet.server.settings import Settings


@dataclass(frozen=True, slots=True)
class Context:
    """What the routes of every dialect share.

    Args:
        models: the models there are, loaded or not.
        settings: addresses and limits.
        health: whether the engines make progress.
        flavour: how the server presents itself.
    """

    models: Models
    settings: Settings
    health: HealthMonitor
    flavour: Flavour


@dataclass(frozen=True, slots=True)
class Dialect:
    """A wire protocol.

    Args:
        routes: its endpoints.
        prefixes: paths that begin like this are its own, down to the shape of errors; where
            several dialects' fit, the longest wins.
        error_body: the JSON of an error.
        aliases: other paths of some endpoints, to those that have a route.
    """

    routes: Sequence[BaseRoute]
    prefixes: tuple[str, ...]
    error_body: Callable[[ErrorReply], Any]
    aliases: Mapping[str, str] = field(default_factory=dict)


def error_body(dialects: Sequence[Dialect], path: str, reply: ErrorReply) -> Any:
    """An error as the dialect of that path tells it; OpenAI's shape where there is none."""
    owners = [
        (len(prefix), dialect)
        for dialect in dialects
        for prefix in dialect.prefixes
        if path.startswith(prefix)
    ]
    if not owners:
        return reply.openai_body()
    return max(owners, key=lambda owner: owner[0])[1].error_body(reply)
