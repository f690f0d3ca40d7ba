"""Replies of /api/generate and /api/chat: one object per chunk, or one for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

from quintet.engine.output import OutputChunk, TokenLogprob
from quintet.parsing.events import ToolCall
from quintet.server.answers import Answer, call_arguments, text_logprobs

_NS = 1_000_000_000
_MIN_LOGPROB = -9999.0  # JSON has no minus infinity


@dataclass
class Reply:
    """One reply, from its first chunk to its last object.

    Args:
        kind: which endpoint's shape.
        model: as the client named it.
        token_bytes: the bytes a token stands for.
        wants_logprobs: each chunk brings the log probabilities of its tokens.
        load_s: what loading the model took of this request, in seconds.
    """

    kind: Literal["generate", "chat"]
    model: str
    token_bytes: Callable[[int], bytes]
    wants_logprobs: bool = False
    load_s: float = 0.0
    answer: Answer = field(default_factory=Answer)
    started_s: float = field(default_factory=time.monotonic)

    def add(self, chunk: OutputChunk) -> Iterator[dict[str, Any]]:
        """What is sent of a chunk in a stream.  Calls wait until they are whole."""
        self.answer.add(chunk)
        logprobs = text_logprobs(chunk) if self.wants_logprobs else ()
        if chunk.text or chunk.reasoning or logprobs:
            yield self._object(chunk.text, chunk.reasoning, (), logprobs)
        if chunk.finish_reason is not None and self.answer.tool_calls:
            yield self._object("", "", self.answer.calls, ())

    def end(self, *, is_streamed: bool) -> dict[str, Any]:
        """The last object; the whole answer where nothing was streamed."""
        answer = self.answer
        if is_streamed:
            whole = self._object("", "", (), ())
        else:
            logprobs = answer.logprobs if self.wants_logprobs else ()
            whole = self._object(answer.text, answer.reasoning, answer.calls, logprobs)
        reason = "length" if answer.finish_reason in ("length", "timeout") else "stop"
        return {**whole, "done": True, "done_reason": reason, **self._metrics()}

    def _object(
        self,
        text: str,
        thinking: str,
        calls: Sequence[ToolCall],
        logprobs: Sequence[TokenLogprob],
    ) -> dict[str, Any]:
        whole: dict[str, Any] = {"model": self.model, "created_at": timestamp(), "done": False}
        if self.kind == "generate":
            whole["response"] = text
            if thinking:
                whole["thinking"] = thinking
        else:
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if thinking:
                message["thinking"] = thinking
            if calls:
                message["tool_calls"] = tool_calls(calls)
            whole["message"] = message
        if logprobs:
            whole["logprobs"] = [self._logprob(item) for item in logprobs]
        return whole

    def _metrics(self) -> dict[str, int]:
        """Counts, and durations in nanoseconds."""
        usage, spent = self.answer.usage, self.answer.timings
        metrics = {
            "total_duration": time.monotonic() - self.started_s + self.load_s,
            "load_duration": self.load_s,
            "prompt_eval_duration": spent.prefill_s if spent else 0.0,
            "eval_duration": spent.decode_s if spent else 0.0,
        }
        return {
            **{name: round(seconds * _NS) for name, seconds in metrics.items()},
            "prompt_eval_count": usage.num_prompt_tokens if usage else 0,
            "eval_count": usage.num_generated_tokens if usage else 0,
        }

    def _logprob(self, item: TokenLogprob) -> dict[str, Any]:
        return {
            **self._token(item.token_id, item.logprob),
            "top_logprobs": [self._token(token_id, logprob) for token_id, logprob in item.top],
        }

    def _token(self, token_id: int, logprob: float) -> dict[str, Any]:
        raw = self.token_bytes(token_id)
        return {
            "token": raw.decode(errors="replace"),
            "logprob": max(logprob, _MIN_LOGPROB),
            "bytes": list(raw),
        }


def empty_reply(kind: Literal["generate", "chat"], model: str, reason: str) -> dict[str, Any]:
    """What a request without a prompt gets: the model was loaded or unloaded."""
    content: dict[str, Any] = {"response": ""}
    if kind == "chat":
        content = {"message": {"role": "assistant", "content": ""}}
    return {
        "model": model,
        "created_at": timestamp(),
        **content,
        "done": True,
        "done_reason": reason,
    }


def tool_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """Whole calls, their arguments as objects."""
    return [
        {
            "id": f"call_{call.id}",
            "function": {"index": index, "name": call.name, "arguments": call_arguments(call)},
        }
        for index, call in enumerate(calls)
    ]


def timestamp(seconds: float | None = None) -> str:
    """RFC 3339 in UTC."""
    when = datetime.fromtimestamp(time.time() if seconds is None else seconds, timezone.utc)
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")
