"""One exchange of a conversation: which messages the model sees, and what is kept of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from quintet.chat import Tools
from quintet.engine.admission import EngineLimits
from quintet.engine.output import OutputChunk, RequestOutput, whole_calls
from quintet.errors import RequestError
from quintet.parsing.events import ToolCall
from quintet.sampling.params import SamplingParams
from quintet.sessions.store import Conversation, Message, SessionStore
from quintet.tokenizer import Tokenizer

_KEPT_REASONS = ("stop", "length", "timeout")


class Model(Protocol):
    """What trimming needs to know of a model; `LLM` and `AsyncLLM` have it."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""

    @property
    def limits(self) -> EngineLimits:
        """What its engine takes."""


@dataclass(frozen=True, slots=True)
class Reply:
    """
    An answer in a conversation.

    Args:
        output: the answer.
        num_hidden_turns: turns at the start of the conversation that the model did not see
            any more, for want of room.
    """

    output: RequestOutput
    num_hidden_turns: int

    @property
    def text(self) -> str:
        """The answer's text."""
        return self.output.text


@dataclass(frozen=True, slots=True)
class Exchange:
    """
    What is asked now, after what was said before.

    Args:
        conversation: as it is to be when the answer is there, that turn apart.
        question: the new messages.
    """

    conversation: Conversation
    question: tuple[Message, ...]

    @classmethod
    def begin(
        cls,
        store: SessionStore,
        model: Model,
        name: str,
        content: str | Sequence[Message],
        *,
        params: SamplingParams,
        system: str | None,
        tools: Tools | None,
        enable_thinking: bool | None,
    ) -> Exchange:
        """
        Read a conversation and trim it to the model's context.

        Args:
            content: a text is one message of the user's; otherwise messages, such as the
                results of tools.
            params: their `max_tokens` are left free for the answer, half of the context at
                most; a quarter where there is no such bound.
            system: replaces the conversation's system prompt; None keeps it.

        Raises:
            RequestError: several answers are asked for, or there is no question.
        """
        if params.n != 1:
            raise RequestError(
                f"expected one answer in a conversation, found {params.n}", parameter="n"
            )
        question = ({"role": "user", "content": content},) if isinstance(content, str) else content
        if not question:
            raise RequestError("expected at least one message, found none", parameter="content")
        conversation = store.read(name)
        if system is not None:
            conversation = dataclasses.replace(conversation, system=system)
        exchange = cls(conversation, tuple(question))
        max_model_len = model.limits.max_model_len
        wanted = max_model_len // 4 if params.max_tokens is None else params.max_tokens

        def num_tokens(first_turn: int) -> int:
            messages = exchange.starting_at(first_turn).messages
            return len(
                model.tokenizer.encode_chat(messages, tools=tools, enable_thinking=enable_thinking)
            )

        first_turn = trim(
            conversation.first_turn,
            len(conversation.turns),
            num_tokens,
            max_model_len - min(wanted, max_model_len // 2),
        )
        return exchange.starting_at(first_turn)

    @property
    def messages(self) -> list[Message]:
        """What the model sees."""
        conversation = self.conversation
        system = conversation.system
        return [
            *([] if system is None else [{"role": "system", "content": system}]),
            *(m for turn in conversation.turns[conversation.first_turn :] for m in turn),
            *self.question,
        ]

    def starting_at(self, first_turn: int) -> Exchange:
        """The same with this turn as the first one the model sees."""
        conversation = dataclasses.replace(self.conversation, first_turn=first_turn)
        return dataclasses.replace(self, conversation=conversation)

    def finish(self, store: SessionStore, output: RequestOutput) -> Reply:
        """Keep the answer, unless it was aborted.

        Raises:
            RequestError: the conversation was changed by another; see `SessionStore.append`.
        """
        if output.finish_reason in _KEPT_REASONS:
            self._keep(store, output.text, output.tool_calls)
        return Reply(output, self.conversation.first_turn)

    def finish_stream(self, store: SessionStore, chunks: Sequence[OutputChunk]) -> None:
        """The same for an answer in pieces, all of which have been read."""
        if chunks and chunks[-1].finish_reason in _KEPT_REASONS:
            deltas = (delta for chunk in chunks for delta in chunk.tool_calls)
            self._keep(store, "".join(chunk.text for chunk in chunks), whole_calls(deltas))

    def _keep(self, store: SessionStore, text: str, tool_calls: Sequence[ToolCall]) -> None:
        """The answer without its thought, which models are not to see again."""
        answer: dict[str, Any] = {"role": "assistant", "content": text}
        if calls := [call for call in map(_rendered, tool_calls) if call is not None]:
            answer["tool_calls"] = calls
        store.append(self.conversation, (*self.question, answer))


def _rendered(call: ToolCall) -> Message | None:
    """A call as chat templates read it; None for one that was cut short."""
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        return None
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def trim(first_turn: int, num_turns: int, num_tokens: Callable[[int], int], max_tokens: int) -> int:
    """
    The first turn the model is to see.

    It stays where it is as long as all fits.  When it does not, turns are hidden until
    three quarters of the room suffice: then the start of the prompt stays the same for some
    exchanges, and is found in the prefix cache.  The new question is never cut; where it is too
    long by itself the engine says so.

    Args:
        first_turn: the first one seen until now.
        num_tokens: length of the prompt that starts with a turn; falls from turn to turn.
        max_tokens: room for the prompt.
    """
    if num_tokens(first_turn) <= max_tokens:
        return first_turn
    low, high = first_turn + 1, num_turns  # the answer is among these, found by halves
    while low < high:
        middle = (low + high) // 2
        if num_tokens(middle) <= max_tokens * 3 // 4:
            high = middle
        else:
            low = middle + 1
    return min(low, num_turns)
