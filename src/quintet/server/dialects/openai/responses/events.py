"""A response in the making: engine chunks to typed, numbered events and to the response itself.

Sources: OpenAI API reference, "Responses: streaming events" (names, order and fields);
openai-python, src/openai/lib/streaming/responses (which of them a client puts together).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

from quintet.engine.output import OutputChunk, TokenLogprob, Usage
from quintet.server.answers import text_logprobs
from quintet.server.dialects.openai.replies import TokenBytes, chat_logprobs
from quintet.server.dialects.openai.responses.items import new_id
from quintet.server.errors import ErrorReply

ItemKind = Literal["reasoning", "message", "function_call"]
Event = dict[str, Any]


class ResponseEvents:
    """
    The events of one response.

    Args:
        response: its fields as they are before anything is generated.
        token_bytes: of the model.
        origin: namespace and name of the function that the model calls by a name.
        shows_answer: False where only the prompt was to be computed.
    """

    def __init__(
        self,
        response: dict[str, Any],
        token_bytes: TokenBytes,
        origin: Callable[[str], tuple[str | None, str]],
        *,
        shows_answer: bool = True,
    ) -> None:
        self.response = response
        self._token_bytes = token_bytes
        self._origin = origin
        self._shows_answer = shows_answer
        self._num_sent = 0
        self._output: list[dict[str, Any]] = []
        self._is_open = False
        self._logprobs: list[TokenLogprob] = []  # of tokens whose text is still held back

    def start(self) -> Iterator[Event]:
        """What comes before everything."""
        self.response["status"] = "in_progress"
        yield self._event("response.created", response=self._snapshot())
        yield self._event("response.in_progress", response=self._snapshot())

    def add(self, chunk: OutputChunk) -> Iterator[Event]:
        """What a chunk adds; with the last one, all that ends the response."""
        if self._shows_answer:
            yield from self._add_text(chunk)
        if chunk.finish_reason is not None:
            yield from self._end(chunk)

    def failed(self, reply: ErrorReply) -> Event:
        """The end of a response that an error has cut."""
        self._end_item("incomplete")
        code = "rate_limit_exceeded" if reply.status in (429, 503) else "server_error"
        self.response |= {
            "status": "failed",
            "error": {"code": code, "message": reply.message},
        }
        return self._event("response.failed", response=self._snapshot())

    def cancelled(self) -> None:
        """Mark the response: its client has called it off."""
        self._end_item("incomplete")
        self.response["status"] = "cancelled"
        self._snapshot()

    def _add_text(self, chunk: OutputChunk) -> Iterator[Event]:
        if chunk.reasoning:
            yield from self._delta("reasoning", chunk.reasoning)
        logprobs = text_logprobs(chunk)
        if not chunk.reasoning and not chunk.tool_calls:
            self._logprobs += logprobs
        if chunk.text:
            yield from self._delta("message", chunk.text)
        for call in chunk.tool_calls:
            self._logprobs.clear()
            if call.name is not None:
                yield from self._close()
                yield from self._open_call(call.id or new_id("call"), call.name)
            if call.arguments:
                yield from self._call_delta(call.arguments)

    def _delta(self, kind: ItemKind, text: str) -> Iterator[Event]:
        if not self._is_open or self._output[-1]["type"] != kind:
            yield from self._close()
            yield from self._open_text(kind)
        part = self._output[-1]["content"][0]
        part["text"] += text
        if kind == "reasoning":
            yield self._part_event("response.reasoning_text.delta", delta=text)
            return
        logprobs = chat_logprobs(self._logprobs, self._token_bytes)
        self._logprobs.clear()
        part["logprobs"] += logprobs
        yield self._part_event("response.output_text.delta", delta=text, logprobs=logprobs)

    def _open_text(self, kind: ItemKind) -> Iterator[Event]:
        if kind == "reasoning":
            item: dict[str, Any] = {"id": new_id("rs"), "type": kind, "summary": []}
            part: dict[str, Any] = {"type": "reasoning_text", "text": ""}
        else:
            item = {"id": new_id("msg"), "type": kind, "role": "assistant"}
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield from self._open({**item, "status": "in_progress", "content": []})
        self._output[-1]["content"].append(part)
        yield self._part_event("response.content_part.added", part=_copy(part))

    def _open_call(self, call_id: str, shown_name: str) -> Iterator[Event]:
        namespace, name = self._origin(shown_name)
        item = {
            "id": new_id("fc"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": call_id,
            "name": name,
            "arguments": "",
        }
        yield from self._open(item if namespace is None else {**item, "namespace": namespace})

    def _open(self, item: dict[str, Any]) -> Iterator[Event]:
        self._output.append(item)
        self._is_open = True
        yield self._item_event("response.output_item.added", item=_copy(item))

    def _call_delta(self, arguments: str) -> Iterator[Event]:
        item = self._output[-1]
        item["arguments"] += arguments
        yield self._item_event(
            "response.function_call_arguments.delta", item_id=item["id"], delta=arguments
        )

    def _close(self, status: str = "completed") -> Iterator[Event]:
        """Say that the open item, if there is one, is whole."""
        if not self._is_open:
            return
        item = self._output[-1]
        if item["type"] == "function_call":
            yield self._item_event(
                "response.function_call_arguments.done",
                item_id=item["id"],
                name=item["name"],
                arguments=item["arguments"],
            )
        else:
            part = item["content"][0]
            if item["type"] == "reasoning":
                yield self._part_event("response.reasoning_text.done", text=part["text"])
            else:
                yield self._part_event(
                    "response.output_text.done", text=part["text"], logprobs=[*part["logprobs"]]
                )
            yield self._part_event("response.content_part.done", part=_copy(part))
        self._end_item(status)
        yield self._item_event("response.output_item.done", item=_copy(item))

    def _end_item(self, status: str) -> None:
        if self._is_open:
            self._output[-1]["status"] = status
            self._is_open = False

    def _end(self, chunk: OutputChunk) -> Iterator[Event]:
        # One that is out of time was cut by a limit of its request: clients know no other word.
        is_cut = self._shows_answer and chunk.finish_reason in ("length", "timeout")
        if not self._output and not is_cut and self._shows_answer:
            yield from self._open_text("message")
        yield from self._close("incomplete" if is_cut else "completed")
        status = "incomplete" if is_cut else "completed"
        self.response |= {
            "status": status,
            "completed_at": None if is_cut else int(time.time()),
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "usage": _usage(chunk.usage, self._shows_answer),
        }
        yield self._event(f"response.{status}", response=self._snapshot())

    def _snapshot(self) -> dict[str, Any]:
        self.response["output"] = [_copy(item) for item in self._output]
        return dict(self.response)

    def _part_event(self, kind: str, **fields: Any) -> Event:
        item_id = self._output[-1]["id"]
        return self._item_event(kind, item_id=item_id, content_index=0, **fields)

    def _item_event(self, kind: str, **fields: Any) -> Event:
        return self._event(kind, output_index=len(self._output) - 1, **fields)

    def _event(self, kind: str, **fields: Any) -> Event:
        self._num_sent += 1
        return {"type": kind, "sequence_number": self._num_sent - 1, **fields}


def _usage(usage: Usage | None, shows_answer: bool) -> dict[str, Any] | None:
    if usage is None:
        return None
    generated = usage.num_generated_tokens if shows_answer else 0
    return {
        "input_tokens": usage.num_prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.num_cached_tokens,
            "cache_write_tokens": 0,
        },
        "output_tokens": generated,
        "output_tokens_details": {"reasoning_tokens": usage.num_reasoning_tokens},
        "total_tokens": usage.num_prompt_tokens + generated,
    }


def _copy(value: Any) -> Any:
    """As far down as it changes later: items hold parts, which hold texts and lists."""
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value
