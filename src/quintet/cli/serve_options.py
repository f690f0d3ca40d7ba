"""The options of `quintet serve`; each may be set as QUINTET_SERVE_<NAME> as well."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

ENVIRONMENT_PREFIX = "QUINTET_SERVE"


class DialectName(str, Enum):
    """See `quintet.server.flavours`."""

    quintet = "quintet"
    nano = "nano"
    densecore = "densecore"
    oprel = "oprel"
    woolly = "woolly"
    llamacpp = "llamacpp"


class LogFormat(str, Enum):
    """How the log is written."""

    text = "text"
    json = "json"


class LogLevel(str, Enum):
    """From which severity on something is logged."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class CacheDtype(str, Enum):
    """What the KV cache holds."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"


ModelsArgument: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME=]MODEL",
        help="Models to load now and hold, by name or path; without any, those of the store are "
        "loaded when asked for.",
    ),
]
HostOption: TypeAlias = Annotated[str, typer.Option(help="Address to listen on.")]
PortOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="Port to listen on; 0 takes a free one.  Left out, the dialect's, mostly 11434.",
    ),
]
DialectOption: TypeAlias = Annotated[
    DialectName,
    typer.Option(
        help="Whose port, /health, errors, owner's name and metrics the server has, "
        "where systems that it speaks for differ."
    ),
]
ApiKeyOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        envvar="QUINTET_API_KEY",
        help="A key that clients must send; may be repeated.  Opens all but changes to the store.",
        show_envvar=True,
    ),
]
AdminKeyOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        envvar="QUINTET_ADMIN_KEY",
        help="A key that also opens pull, create, copy, delete and upload; may be repeated.",
        show_envvar=True,
    ),
]
ApiKeyFileOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="A file of keys, a line each: KEY [NAME [SCOPE,SCOPE...]]; scopes are inference, "
        "manage and metrics."
    ),
]
AllowedHostOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(help="A name clients may reach this server by; may be repeated."),
]
CorsOriginOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ORIGIN",
        help="Web pages of this origin, such as https://chat.example, may use the server; may be "
        "repeated.",
    ),
]
ForceOption: TypeAlias = Annotated[
    bool,
    typer.Option("--force", help="Serve other machines without a key."),
]
TLSCertOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--tls-cert", help="Certificate chain (PEM) to serve HTTPS with."),
]
TLSKeyOption: TypeAlias = Annotated[Path | None, typer.Option("--tls-key", help="Its key (PEM).")]
RateRequestsOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--rate-limit-requests",
        min=0,
        help="Requests per minute of each key; 0: no limit.  60 where other machines can reach "
        "the server, else no limit.",
    ),
]
RateTokensOption: TypeAlias = Annotated[
    int,
    typer.Option(
        "--rate-limit-tokens",
        min=0,
        help="Tokens per minute of each key, prompts and answers; 0: no limit.",
    ),
]
MaxConcurrentOption: TypeAlias = Annotated[
    int,
    typer.Option(min=0, help="Requests of each key at a time; 0: no limit."),
]
MaxQueueOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Requests of each model that may wait while others run; more get 503.  128 where "
        "other machines can reach the server, else 1024.",
    ),
]
QueueTimeoutOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Seconds a request may wait for its turn before it gets 503; 0: for ever.  60 where "
        "other machines can reach the server, else for ever.",
    ),
]
RequestTimeoutOption: TypeAlias = Annotated[
    float,
    typer.Option(min=0, help="Seconds after which an answer ends where it is; 0: never."),
]
DrainTimeoutOption: TypeAlias = Annotated[
    float,
    typer.Option(min=0, help="Seconds that running requests may take to end after SIGTERM."),
]
KVDtypeOption: TypeAlias = Annotated[
    CacheDtype,
    typer.Option("--kv-dtype", help="Type of the KV cache; int8 takes half of bfloat16's memory."),
]
NgramOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--ngram-speculation",
        help="Guess tokens from what the text repeats; same answers, often sooner.",
    ),
]
DraftModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="Let this small model guess tokens for the one that is served."
    ),
]
KeepAliveOption: TypeAlias = Annotated[
    float,
    typer.Option(min=0, help="Seconds that a model loaded on demand stays after its last request."),
]
MaxLoadedOption: TypeAlias = Annotated[
    int,
    typer.Option(min=1, help="Models loaded on demand at a time."),
]
SandboxLoadOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--sandbox-load",
        help="Have a helper process with limits read a model's files before they are loaded, once "
        "for each that is new or has changed.",
    ),
]
InProcessOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--in-process",
        help="Run models as threads of the server, not as processes of their own, and templates "
        "and grammars without limits of time and memory.",
    ),
]
LogFormatOption: TypeAlias = Annotated[
    LogFormat, typer.Option(help="Lines of text, or JSON objects.")
]
LogLevelOption: TypeAlias = Annotated[
    LogLevel | None,
    typer.Option(help="What is logged from; warning by default, info with --log-format json."),
]
