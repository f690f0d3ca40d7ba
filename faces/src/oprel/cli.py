"""The `oprel` command.

Source: Oprel SDK, "CLI Interface".
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from oprel import daemon
from oprel.core.exceptions import OprelError, from_quintet
from quintet.errors import QuintetError

if TYPE_CHECKING:
    from oprel.aliases import AliasStore
    from oprel.core.model import Model

app = typer.Typer(
    name="oprel",
    help="Run language models on this machine.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cache = typer.Typer(help="The models stored on this machine.", no_args_is_help=True)
app.add_typer(cache, name="cache")

ModelArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name, an alias, user/repo or a path.")
]
QuantizationOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--quantization", "-q", help="Q2_K ... Q8_0; by default what fits into memory."),
]
MemoryOption: TypeAlias = Annotated[
    int | None, typer.Option("--max-memory-mb", min=1, help="MiB the model may take.")
]
MaxTokensOption: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Tokens of an answer at most.")
]
TemperatureOption: TypeAlias = Annotated[float, typer.Option(min=0.0, max=2.0)]
SystemOption: TypeAlias = Annotated[
    str | None, typer.Option("--system", metavar="SYSTEM_PROMPT", help="Instructions.")
]
DirectOption: TypeAlias = Annotated[
    bool, typer.Option("--no-server", help="Run the model in this process.")
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 1 after an error, 130 after Ctrl-C."""
    sys.exit(exit_status(sys.argv[1:] if arguments is None else arguments))


def exit_status(arguments: Sequence[str]) -> int:
    """Run the command line; every error becomes one line on stderr."""
    try:
        status = app(args=list(arguments), prog_name="oprel", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        # The reader, e.g. `head`, has seen enough.  Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OprelError as error:
        return _fail(str(error))
    except QuintetError as error:
        return _fail(str(from_quintet(error)))
    except OSError as error:
        return _fail(f"{error.filename or ''} {error.strerror or error}")
    except Exception as error:
        if not hasattr(error, "format_message"):  # wrong usage
            raise
        return _fail(f"{error.format_message()} See oprel --help.")


def _fail(text: str) -> int:
    print(f"oprel: {' '.join(text.split())}", file=sys.stderr)
    return 1


@app.command()
def serve(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="By default $OPREL_SERVER_PORT or 11434.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="By default $OPREL_SERVER_HOST or localhost.")
    ] = None,
) -> int:
    """Serve models over HTTP until stopped; other programs of this user find this server."""
    from oprel.core.config import Config
    from oprel.serving import run

    default_host, default_port = daemon.server_address()
    return run(host or default_host, port or default_port, Config())


@app.command()
def models() -> None:
    """List the models that the server has in memory."""
    from oprel.client import Client
    from quintet.cli.tables import print_table, size

    is_running = daemon.find(daemon.server_address()[1]) is not None
    loaded = Client().ps().models if is_running else []
    rows = [
        (each.name, size(each.size), str(each.context_length), str(each.expires_at))
        for each in loaded
    ]
    print_table(("name", "size", "context", "until"), rows)


@app.command()
def stop() -> int:
    """Stop the server, once its requests are done."""
    port = daemon.server_address()[1]
    is_stopped = daemon.stop(port)
    print(f"stopped the server on port {port}" if is_stopped else f"no server on port {port}")
    return 0


@app.command()
def run(
    model: ModelArgument,
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="None: what is piped in, or a chat.")
    ] = None,
    max_tokens: MaxTokensOption = 512,
    temperature: TemperatureOption = 0.7,
    system: SystemOption = None,
    quantization: QuantizationOption = None,
    max_memory_mb: MemoryOption = None,
    no_server: DirectOption = False,
) -> None:
    """Answer a prompt, or chat when there is none."""
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().strip() or None
        if prompt is None:
            raise typer.BadParameter("expected a prompt, as an argument or piped in")
    with _model(model, quantization, max_memory_mb, no_server) as opened:
        if prompt is None:
            _converse(opened, system, max_tokens, temperature)
        else:
            _write(
                opened.generate(
                    prompt,
                    max_tokens=max_tokens,
                    temperature=temperature,
                    stream=True,
                    system_prompt=system,
                )
            )


@app.command()
def chat(
    model: ModelArgument,
    system: SystemOption = None,
    max_tokens: MaxTokensOption = 512,
    temperature: TemperatureOption = 0.7,
    quantization: QuantizationOption = None,
    max_memory_mb: MemoryOption = None,
    no_server: DirectOption = False,
) -> None:
    """Talk with a model: a line is a turn; /reset starts over, /bye or Ctrl-D ends."""
    with _model(model, quantization, max_memory_mb, no_server) as opened:
        _converse(opened, system, max_tokens, temperature)


@app.command("list-models")
def list_models() -> None:
    """List the models stored here, and the aliases of those that can be downloaded."""
    from oprel.aliases import all_aliases
    from quintet.cli.tables import print_table

    here = {manifest.name.removesuffix(":latest") for manifest in _store().list()}
    rows = [(name, "here") for name in sorted(here)]
    rows += [(name, source) for name, source in sorted(all_aliases().items()) if name not in here]
    print_table(("name", "from"), rows)


@app.command()
def search(
    query: Annotated[str, typer.Argument(metavar="QUERY")],
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
) -> None:
    """Find models by words in their names: stored ones, aliases, and GGUF files of the Hub."""
    from urllib.parse import urlencode

    from oprel.aliases import all_aliases
    from quintet.cli.tables import print_table
    from quintet.hub.transport import TransferInterrupted, Transport

    words = query.lower().split()

    def fits(text: str) -> bool:
        return all(word in text.lower() for word in words)

    rows = [(m.name.removesuffix(":latest"), "here") for m in _store().list() if fits(m.name)]
    rows += [row for row in sorted(all_aliases().items()) if fits(" ".join(row))]
    fields = {"search": query, "filter": "gguf", "sort": "downloads", "limit": limit}
    try:
        with Transport() as transport:
            found = transport.get_json(f"/api/models?{urlencode(fields)}")
        names = [item.get("id") for item in found if isinstance(item, dict)]
        rows += [(name, f"hf.co/{name}") for name in names[:limit] if isinstance(name, str)]
    except (QuintetError, TransferInterrupted, TypeError) as error:
        print(f"oprel: the Hub was not asked: {' '.join(str(error).split())}", file=sys.stderr)
    print_table(("name", "from"), rows)


@cache.command("list")
def cache_list() -> None:
    """List the models stored here."""
    from quintet.cli.tables import age, print_table, size

    print_table(
        ("name", "size", "modified", "from"),
        [
            (each.name, size(each.size_bytes), age(each.modified_at), each.source)
            for each in _store().list()
        ],
    )


@cache.command("delete")
def cache_delete(model: ModelArgument) -> None:
    """Remove a model; a file that is used where it lies stays."""
    print(f"deleted {_store().delete(model).name}")


@cache.command("clear")
def cache_clear(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove all models but those that come with Quintet, and unfinished downloads."""
    from quintet.hub.packaged import SOURCE

    store = _store()
    stored = [manifest for manifest in store.list() if manifest.source != SOURCE]
    if stored and not yes and sys.stdin.isatty():
        typer.confirm(f"Remove {len(stored)} models?", abort=True)
    for manifest in stored:
        print(f"deleted {store.delete(manifest.name).name}")
    print(f"{store.prune(older_than_s=0.0):,} bytes of unfinished downloads removed")


def _store() -> AliasStore:
    from oprel.aliases import store_at
    from oprel.core.config import Config

    return store_at(Config().cache_dir)


def _model(
    name: str, quantization: str | None, max_memory_mb: int | None, is_direct: bool
) -> Model:
    from oprel.core.model import Model

    return Model(name, quantization, max_memory_mb, use_server=not is_direct)


def _write(pieces: Iterator[str]) -> None:
    from quintet.cli.run import printable

    clean: Callable[[str], str] = printable if sys.stdout.isatty() else str
    last = ""
    for piece in pieces:
        last = clean(piece)
        sys.stdout.write(last)
        sys.stdout.flush()
    if not last.endswith("\n"):
        print(flush=True)


def _converse(model: Model, system: str | None, max_tokens: int, temperature: float) -> None:
    """A conversation from stdin; Ctrl-C gives an answer up, and the end of input ends it."""
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - input() edits lines with it

    is_new = True
    while True:
        try:
            line = input(">>> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line in ("/bye", "/exit", "/quit"):
            return
        if line in ("/reset", "/clear"):
            is_new = True
        elif line:
            try:
                _write(
                    model.generate(
                        line,
                        max_tokens=max_tokens,
                        temperature=temperature,
                        stream=True,
                        conversation_id="oprel-chat",
                        system_prompt=system,
                        reset_conversation=is_new,
                    )
                )
                is_new = False
            except KeyboardInterrupt:
                print()
            except OprelError as error:
                _fail(str(error))
