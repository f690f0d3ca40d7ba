"""A conversation with a model: what was said, and the commands that steer it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quintet.cli.run import write_answer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quintet.llm import LLM
    from quintet.sampling.params import SamplingParams

HELP = """\
/help           show this
/system TEXT    set the instructions, and start over
/clear          forget the conversation
/bye            leave; so does Ctrl-D
Ctrl-C stops an answer.  Alt-Enter starts a new line."""


class Chat:
    """
    Turns of a conversation, each answer written to stdout as it comes.

    Args:
        llm: who answers.
        params: how.
        system: instructions before the first turn.
        opening: messages that every conversation begins with, after the instructions.
        enable_thinking: for templates that know the switch.
        verbose: show tokens per second after each answer.
    """

    def __init__(
        self,
        llm: LLM,
        params: SamplingParams,
        *,
        system: str | None = None,
        opening: Sequence[Mapping[str, Any]] = (),
        enable_thinking: bool | None = None,
        verbose: bool = False,
    ) -> None:
        self._llm = llm
        self._params = params
        self._system = system
        self._opening = opening
        self._enable_thinking = enable_thinking
        self._verbose = verbose
        self.messages: list[dict[str, Any]] = []
        self.clear()

    def clear(self) -> None:
        """Forget everything but the instructions and the opening."""
        self.messages = []
        if self._system:
            self.messages.append({"role": "system", "content": self._system})
        self.messages += [dict(message) for message in self._opening]

    def say(self, text: str) -> None:
        """One turn.  A turn that is interrupted or fails leaves no trace in the conversation."""
        messages = [*self.messages, {"role": "user", "content": text}]
        chunks = self._llm.stream_chat(
            messages, self._params, enable_thinking=self._enable_thinking
        )
        answer = write_answer(chunks, verbose=self._verbose)
        self.messages = [*messages, {"role": "assistant", "content": answer}]

    def command(self, line: str) -> bool:
        """Obey a line that starts with a slash; returns whether the chat goes on."""
        name, _, rest = line[1:].partition(" ")
        if name in ("bye", "exit", "quit"):
            return False
        if name == "help":
            print(HELP)
        elif name == "clear":
            self.clear()
        elif name == "system":
            self._system = rest.strip() or None
            self.clear()
        else:
            print(f"no command /{name}; /help lists them")
        return True
