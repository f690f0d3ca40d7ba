"""What a wire protocol brings to the app, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
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
class Operation:
    """What the OpenAPI document says of a route, besides its path.

    Args:
        body: what its JSON is parsed into.
        is_body_required: whether it may be left out.
        raw_type: media type of a body that is no JSON.
        media_types: of a good answer; that of streams is added where the body may ask for one.
        statuses: of a good answer.
        query: parameters to their JSON schemas.
        summary: what the path does not say.
    """

    body: type[BaseModel] | None = None
    is_body_required: bool = True
    raw_type: str | None = None
    media_types: tuple[str, ...] = ("application/json",)
    statuses: tuple[int, ...] = (200,)
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A wire protocol.

    Args:
        name: of its part of the OpenAPI document.
        routes: its endpoints.
        prefixes: paths that begin like this are its own, down to the shape of errors; where
            several dialects' fit, the longest wins.
        error_body: the JSON of an error.
        aliases: other paths of some endpoints, to those that have a route.
        operations: what is to say of a method and path ("POST /v1/completions"); a route without
            an entry has no body and answers JSON.
        stream_type: media type of its streams.
    """

    name: str
    routes: Sequence[BaseRoute]
    prefixes: tuple[str, ...]
    error_body: Callable[[ErrorReply], Any]
    aliases: Mapping[str, str] = field(default_factory=dict)
    operations: Mapping[str, Operation] = field(default_factory=dict)
    stream_type: str = "text/event-stream"


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
