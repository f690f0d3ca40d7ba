"""The `quintet` command: its subcommands, and how any error becomes one line.

Subcommands import what they need when they run, so that `quintet --help` is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from quintet import __version__
from quintet.cli import (
    bench,
    convert,
    cp,
    create,
    doctor,
    estimate,
    inspect,
    measure,
    prune,
    ps,
    pull,
    quantize,
    rm,
    run,
    serve,
    show,
    stop,
)
from quintet.cli import list as list_module
from quintet.cli.serve_options import ENVIRONMENT_PREFIX
from quintet.errors import QuintetError

app = typer.Typer(
    name="quintet",
    help="Run language models on this machine.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich for a help page would double its time
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("serve", context_settings={"auto_envvar_prefix": ENVIRONMENT_PREFIX})(serve.serve)
app.command("pull")(pull.pull)
app.command("list")(list_module.list_models)
app.command("ls", hidden=True)(list_module.list_models)
app.command("show")(show.show)
app.command("create")(create.create)
app.command("cp")(cp.cp)
app.command("rm")(rm.rm)
app.command("ps")(ps.ps)
app.command("stop")(stop.stop)
app.command("inspect")(inspect.inspect)
app.command("convert")(convert.convert)
app.command("quantize")(quantize.quantize)
app.command("prune")(prune.prune)
app.command("imatrix")(measure.imatrix)
app.command("perplexity")(measure.perplexity)
app.command("compare")(measure.compare)
app.command("estimate")(estimate.estimate)
app.command("recommend")(estimate.recommend)
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 1 after an error, 130 after Ctrl-C."""
    sys.exit(exit_status(sys.argv[1:] if arguments is None else arguments))


def exit_status(arguments: Sequence[str]) -> int:
    """Run the command line; every error becomes one line on stderr.

    QUINTET_DEBUG=1 lets errors through with their traceback.
    """
    try:
        status = app(args=list(arguments), prog_name="quintet", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        # The reader, e.g. `head`, has seen enough.  Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("QUINTET_DEBUG"):
            raise
        print(f"quintet: {describe(error)}", file=sys.stderr)
        return 1


def describe(error: Exception) -> str:
    """An error on one line."""
    if isinstance(error, QuintetError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, MemoryError):
        text = str(error) or "out of memory"
    elif hasattr(error, "format_message"):  # wrong usage; its class moved between typer versions
        text = f"{error.format_message()} See quintet --help."
    else:
        text = f"internal error: {type(error).__name__}: {error}"
    return " ".join(text.split())


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"quintet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Run language models on this machine."""
    if context.invoked_subcommand is None:
        print(context.get_help())
