"""A message as a reply: whole, or as the events that build it up block by block.

Source: Anthropic API reference, "Streaming messages".
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from quintet.engine.output import OutputChunk, Usage
from quintet.server.answers import Answer, call_arguments
from quintet.server.streaming import event

PING = event({"type": "ping"}, "ping")


def message(model: str, answer: Answer) -> dict[str, Any]:
    """The whole reply of a request that does not stream."""
    blocks: list[dict[str, Any]] = []
    if answer.reasoning:
        blocks.append({"type": "thinking", "thinking": answer.reasoning, "signature": ""})
    if answer.text or not answer.tool_calls:
        blocks.append({"type": "text", "text": answer.text})
    for call in answer.calls:
        block = {"type": "tool_use", "id": _tool_id(call.id), "name": call.name}
        blocks.append({**block, "input": call_arguments(call)})
    return {**_envelope(model), "content": blocks, **_end(answer), "usage": usage(answer.usage)}


class MessageEvents:
    """The events of a streamed reply.

    A block ends when something of another kind begins; a tool call ends with the next one.

    Args:
        model: as the client named it.
        num_prompt_tokens: told in the first event.
    """

    def __init__(self, model: str, num_prompt_tokens: int) -> None:
        self._model = model
        self._num_prompt_tokens = num_prompt_tokens
        self._answer = Answer()
        self._num_blocks = 0
        self._open: str | None = None  # the type of the block that is not closed yet

    def start(self) -> Iterator[bytes]:
        """The message, still empty."""
        opening = {
            **_envelope(self._model),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage(Usage(self._num_prompt_tokens, 0, 0)),
        }
        yield _event("message_start", message=opening)
        yield PING

    def add(self, chunk: OutputChunk) -> Iterator[bytes]:
        """What an engine chunk adds."""
        self._answer.add(chunk)
        if chunk.reasoning:
            yield from self._switch("thinking", thinking="", signature="")
            yield self._delta("thinking_delta", thinking=chunk.reasoning)
        if chunk.text:
            yield from self._switch("text", text="")
            yield self._delta("text_delta", text=chunk.text)
        for call in chunk.tool_calls:
            if call.name is not None:
                yield from self._close()
                yield from self._switch("tool_use", id=_tool_id(call.id), name=call.name, input={})
            if call.arguments:
                yield self._delta("input_json_delta", partial_json=call.arguments)

    def end(self) -> Iterator[bytes]:
        """The open block's end, why the message ended, and the usage."""
        if self._num_blocks == 0:
            yield from self._switch("text", text="")
        yield from self._close()
        yield _event("message_delta", delta=_end(self._answer), usage=usage(self._answer.usage))
        yield _event("message_stop")

    def _switch(self, kind: str, **start: Any) -> Iterator[bytes]:
        if self._open == kind:
            return
        yield from self._close()
        self._open = kind
        self._num_blocks += 1
        block = {"type": kind, **start}
        yield _event("content_block_start", index=self._num_blocks - 1, content_block=block)

    def _close(self) -> Iterator[bytes]:
        if self._open is None:
            return
        if self._open == "thinking":
            yield self._delta("signature_delta", signature="")
        self._open = None
        yield _event("content_block_stop", index=self._num_blocks - 1)

    def _delta(self, kind: str, **content: Any) -> bytes:
        delta = {"type": kind, **content}
        return _event("content_block_delta", index=self._num_blocks - 1, delta=delta)


def usage(spent: Usage | None) -> dict[str, int]:
    """Anthropic counts the cached part of a prompt apart from the rest."""
    if spent is None:
        return {"input_tokens": 0, "output_tokens": 0}
    return {
        "input_tokens": spent.num_prompt_tokens - spent.num_cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": spent.num_cached_tokens,
        "output_tokens": spent.num_generated_tokens,
    }


def _envelope(model: str) -> dict[str, Any]:
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": model,
    }


def _end(answer: Answer) -> dict[str, str | None]:
    reason = "end_turn"
    sequence = None
    if answer.finish_reason in ("length", "timeout"):
        reason = "max_tokens"
    elif answer.tool_calls:
        reason = "tool_use"
    elif isinstance(answer.stop_reason, str):
        reason, sequence = "stop_sequence", answer.stop_reason
    return {"stop_reason": reason, "stop_sequence": sequence}


def _tool_id(call_id: str | None) -> str:
    return call_id or f"toolu_{secrets.token_hex(12)}"


def _event(kind: str, **content: Any) -> bytes:
    return event({"type": kind, **content}, kind)
