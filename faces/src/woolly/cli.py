"""The `woolly` command: the server."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from woolly.errors import WoollyError

app = typer.Typer(
    name="woolly",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 1 after an error, 130 after Ctrl-C."""
    sys.exit(exit_status(sys.argv[1:] if arguments is None else arguments))


def exit_status(arguments: Sequence[str]) -> int:
    """Run the command line; every error becomes one line on stderr."""
    try:
        app(args=list(arguments), prog_name="woolly", standalone_mode=False)
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except (WoollyError, OSError) as error:
        text = getattr(error, "strerror", None) or str(error)
        print(f"woolly: {' '.join(text.split())}", file=sys.stderr)
        return 1
    except Exception as error:
        if not hasattr(error, "format_message"):  # wrong usage
            raise
        print(f"woolly: {error.format_message()} See woolly --help.", file=sys.stderr)
        return 1


@app.command()
def serve(
    command: Annotated[
        str, typer.Argument(metavar="[serve]", help="May be said; there is no other.")
    ] = "serve",
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="A YAML file; by default woolly.config.yaml here."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535)] = None,
    models_dir: Annotated[
        Path | None, typer.Option("--models-dir", help="The folder with the GGUF files.")
    ] = None,
) -> None:
    """Serve the GGUF files of a folder over HTTP and WebSocket.

    WOOLLY_HOST, WOOLLY_PORT, WOOLLY_MODELS_DIR, WOOLLY_API_KEY and the other variables go before
    the file, options before them.
    """
    from woolly.server import serve as serve_models
    from woolly.server_config import ServerConfig

    if command != "serve":
        raise typer.BadParameter(f"expected serve, found {command!r}")
    directory = None if models_dir is None else os.fspath(models_dir)
    loaded = ServerConfig.load(config, host=host, port=port, models_directory=directory)
    serve_models(loaded, lambda url: print(f"Serving at {url}", file=sys.stderr, flush=True))
