"""`quintet run`: one answer to a prompt, or a conversation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quintet.cli.options import (
    Backend,
    BackendOption,
    ContextOption,
    Dtype,
    DtypeOption,
    MaxMemoryOption,
    MlockOption,
    MmapOption,
    ModelArgument,
    PackedCacheOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quintet.engine.output import OutputChunk


def run(
    model: ModelArgument,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            help="What to say to it; text piped in is added.  Without either, a chat begins.",
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="Instructions before the prompt.")] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the prompt as it is, without a chat template.")
    ] = False,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens to generate at most.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 always takes the likeliest token.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Keep the likeliest tokens up to this.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Makes the answer repeatable.")] = None,
    think: Annotated[
        bool | None,
        typer.Option("--think/--no-think", help="For models that can reason before they answer."),
    ] = None,
    json_schema: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Answer with JSON of the schema in this file."),
    ] = None,
    grammar: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Answer in this grammar: Lark (*.lark), or GBNF."),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show tokens per second on stderr.")
    ] = False,
    context: ContextOption = None,
    threads: ThreadsOption = None,
    backend: BackendOption = Backend.auto,
    dtype: DtypeOption = Dtype.auto,
    mmap: MmapOption = True,
    mlock: MlockOption = False,
    max_memory: MaxMemoryOption = None,
    packed_cache: PackedCacheOption = False,
) -> None:
    """Ask a model, or chat with it."""
    from quintet.cli.chat import Chat
    from quintet.cli.constraints import read_constraint
    from quintet.cli.options import status
    from quintet.cli.stored import stored_defaults
    from quintet.errors import RequestError

    text = _prompt(prompt)
    wants_chat = text is None and sys.stdin.isatty()
    if text is None and not wants_chat:
        raise RequestError("expected a prompt, as an argument or piped in", parameter="prompt")
    if raw and (wants_chat or system is not None):
        raise RequestError("goes with a prompt, and without --system", parameter="raw")
    from quintet.llm import LLM
    from quintet.sampling.params import SamplingParams

    given = {"temperature": temperature, "top_p": top_p, "seed": seed, "max_tokens": max_tokens}
    stored = stored_defaults(model)
    chosen: dict[str, Any] = {"max_tokens": None, **stored.sampling}
    chosen |= {name: value for name, value in given.items() if value is not None}
    params = SamplingParams(constraint=read_constraint(json_schema, grammar), **chosen)
    with status(f"Loading {model}"):
        llm = LLM(
            model,
            max_model_len=context or stored.max_model_len,
            num_threads=threads,
            backend=backend.value,
            dtype=dtype.value,
            use_mmap=mmap,
            use_mlock=mlock,
            max_memory=max_memory,
            packed_cache=packed_cache,
        )
    with llm:
        if raw and text is not None:
            write_answer(llm.stream(text, params), verbose=verbose)
            return
        chat = Chat(
            llm,
            params,
            system=stored.system if system is None else system,
            opening=stored.messages,
            enable_thinking=think,
            verbose=verbose,
        )
        if text is not None:
            chat.say(text)
        else:
            from quintet.cli.terminal import converse

            converse(chat, model)


def write_answer(chunks: Iterable[OutputChunk], *, verbose: bool) -> str:
    """Write an answer to stdout as it comes, a thought before it to stderr; returns the answer."""
    text = thought = ""
    usage = timings = None
    clean = printable if sys.stdout.isatty() else str
    for chunk in chunks:
        if chunk.reasoning:
            thought += chunk.reasoning
            print(clean(chunk.reasoning), end="", file=sys.stderr, flush=True)
        if chunk.text and thought and not text:
            print("\n", file=sys.stderr, flush=True)
        text += chunk.text
        sys.stdout.write(clean(chunk.text))
        sys.stdout.flush()
        usage, timings = chunk.usage, chunk.timings
    if not text.endswith("\n"):
        sys.stdout.write("\n")
        sys.stdout.flush()
    if verbose and usage is not None and timings is not None:
        num_computed = usage.num_prompt_tokens - usage.num_cached_tokens
        print(
            f"prompt: {usage.num_prompt_tokens} tokens, {usage.num_cached_tokens} of them cached, "
            f"{_rate(num_computed, timings.prefill_s)}; "
            f"answer: {usage.num_generated_tokens} tokens, "
            f"{_rate(usage.num_generated_tokens - 1, timings.decode_s)}",
            file=sys.stderr,
        )
    return text


def printable(text: str) -> str:
    """Text that cannot steer the terminal: control characters as pictures of themselves."""
    return text.translate(_CONTROL_PICTURES)


_CONTROL_PICTURES = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: 0x2421,
    **dict.fromkeys(range(128, 160), 65533),
}


def _prompt(argument: str | None) -> str | None:
    """The argument, with what is piped in after it; None when there is neither."""
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read().rstrip("\n")
    if argument is None:
        return piped or None
    return f"{argument}\n\n{piped}" if piped else argument


def _rate(num_tokens: int, seconds: float) -> str:
    return f"{num_tokens / seconds:.1f} tokens/s" if num_tokens > 0 and seconds > 0 else "-"
