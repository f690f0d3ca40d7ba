"""Chat completions: body to engine requests, engine output to replies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from quintet.engine.output import OutputChunk, TokenLogprob, Usage
from quintet.errors import RequestError
from quintet.server.answers import Answer, text_logprobs
from quintet.server.dialects.openai.bodies import ChatBody, ContentPart, Message, ToolCall
from quintet.server.dialects.openai.replies import (
    ReplyHeader,
    TokenBytes,
    token_name,
    usage_body,
    wire_logprob,
)
from quintet.server.dialects.openai.sampling import refuse, sampling_params
from quintet.server.dialects.openai.structure import (
    checked_tool_choice,
    deltas,
    finish_reason,
    message,
    response_constraint,
    shown_tools,
)
from quintet.server.engines import ChatPrompt, GenerationRequest
from quintet.server.limits import parse_json

MAX_ARGUMENTS_DEPTH = 32


def chat_requests(body: ChatBody) -> list[GenerationRequest]:
    """The engine requests of a body: `n` answers to one conversation.

    Raises:
        RequestError: values out of range, or a history that cannot be understood.
        UnsupportedParameterError: fields that cannot be honoured.
    """
    _refuse_unsupported(body)
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("expected logprobs: true beside it", parameter="top_logprobs")
    prompt = ChatPrompt(
        [_history(sent, index) for index, sent in enumerate(body.messages)],
        shown_tools(body),
        _enable_thinking(body),
        checked_tool_choice(body.tool_choice),
        body.parallel_tool_calls is not False,
    )
    max_tokens = body.max_tokens
    if body.max_completion_tokens is not None:
        max_tokens = body.max_completion_tokens
    all_params = sampling_params(
        body,
        max_tokens=max_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        constraint=response_constraint(body.response_format),
    )
    return [GenerationRequest(prompt, params) for params in all_params]


def chat_reply(
    header: ReplyHeader, answers: Sequence[Answer], wants_logprobs: bool, token_bytes: TokenBytes
) -> dict[str, Any]:
    """The whole reply of a request that does not stream."""
    choices = [
        {
            "index": index,
            "message": message(answer.text, answer.reasoning, answer.tool_calls),
            "logprobs": _logprobs(answer.logprobs, token_bytes) if wants_logprobs else None,
            "finish_reason": finish_reason(answer.finish_reason, bool(answer.tool_calls)),
        }
        for index, answer in enumerate(answers)
    ]
    usages = [answer.usage for answer in answers]
    return header.reply(choices, usage=usage_body(usages, num_per_prompt=len(answers)))


class ChatChunks:
    """The chunks of a streamed reply: role, deltas, finish, and usage if asked for."""

    def __init__(
        self,
        header: ReplyHeader,
        *,
        num_choices: int,
        wants_logprobs: bool,
        wants_usage: bool,
        token_bytes: TokenBytes,
    ) -> None:
        self._header = header
        self._num_choices = num_choices
        self._wants_logprobs = wants_logprobs
        self._wants_usage = wants_usage
        self._token_bytes = token_bytes
        self._usages: list[Usage | None] = [None] * num_choices
        self._has_calls = [False] * num_choices

    def start(self) -> Iterator[dict[str, Any]]:
        """Every choice says who speaks."""
        for index in range(self._num_choices):
            yield self._chunk(index, {"role": "assistant", "content": ""})

    def add(self, index: int, chunk: OutputChunk) -> Iterator[dict[str, Any]]:
        """What an engine chunk adds to choice `index`; nothing while its text is undecided."""
        logprobs = text_logprobs(chunk) if self._wants_logprobs else ()
        parts = list(deltas(chunk)) or ([{"content": ""}] if logprobs else [])
        for part in parts:
            yield self._chunk(index, part, logprobs=logprobs)
            logprobs = ()
        self._has_calls[index] |= bool(chunk.tool_calls)
        if chunk.finish_reason is not None:
            self._usages[index] = chunk.usage
            reason = finish_reason(chunk.finish_reason, self._has_calls[index])
            yield self._chunk(index, {}, finish_reason=reason)

    def end(self) -> Iterator[dict[str, Any]]:
        """The usage, in a chunk without choices."""
        if self._wants_usage:
            yield self._header.reply([], usage=usage_body(self._usages, self._num_choices))

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        logprobs: Sequence[TokenLogprob] = (),
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": _logprobs(logprobs, self._token_bytes) if logprobs else None,
            "finish_reason": finish_reason,
        }
        return self._header.reply([choice])


def _refuse_unsupported(body: ChatBody) -> None:
    if body.modalities not in (None, ["text"]):
        raise refuse("modalities", 'only ["text"] is supported')
    for name in ("functions", "function_call"):
        if getattr(body, name) is not None:
            raise refuse(name, "not supported; use tools")
    if body.chat_template is not None:
        raise refuse("chat_template", "templates in requests are refused; the model's own is used")


def _enable_thinking(body: ChatBody) -> bool | None:
    if body.enable_thinking is not None:
        return body.enable_thinking
    return body.chat_template_kwargs.enable_thinking if body.chat_template_kwargs else None


def _history(message: Message, index: int) -> dict[str, Any]:
    """A message in the shape chat templates expect; templates know no developer role."""
    where = f"messages.{index}"
    rendered: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": _text(message.content, where),
    }
    for name in ("name", "tool_call_id"):
        if (value := getattr(message, name)) is not None:
            rendered[name] = value
    reasoning = message.reasoning_content or message.reasoning
    if reasoning:
        rendered["reasoning_content"] = reasoning
    if message.tool_calls:
        rendered["tool_calls"] = [_tool_call(call, where) for call in message.tool_calls]
    elif message.content is None:
        raise RequestError("expected content", parameter=where)
    return rendered


def _text(content: str | list[ContentPart] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(_part_text(part, where) for part in content)


def _part_text(part: ContentPart, where: str) -> str:
    if part.type != "text":
        raise refuse(f"{where}.content", "only text parts are supported")
    if part.text is None:
        raise RequestError("expected a text in the text part", parameter=f"{where}.content")
    return part.text


def _tool_call(call: ToolCall, where: str) -> dict[str, Any]:
    """Arguments travel as a JSON string but templates print an object."""
    try:
        arguments = parse_json(call.function.arguments.encode() or b"{}", MAX_ARGUMENTS_DEPTH)
    except RequestError:
        arguments = None
    if not isinstance(arguments, dict):
        raise RequestError(
            "expected arguments that are a JSON object in a string", parameter=f"{where}.tool_calls"
        )
    function = {"name": call.function.name, "arguments": arguments}
    rendered: dict[str, Any] = {"type": "function", "function": function}
    if call.id is not None:
        rendered["id"] = call.id
    return rendered


def _logprobs(logprobs: Iterable[TokenLogprob], token_bytes: TokenBytes) -> dict[str, Any]:
    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        raw = token_bytes(token_id)
        return {"token": token_name(raw), "logprob": wire_logprob(logprob), "bytes": list(raw)}

    content = [
        {
            **entry(item.token_id, item.logprob),
            "top_logprobs": [entry(token_id, logprob) for token_id, logprob in item.top],
        }
        for item in logprobs
    ]
    return {"content": content, "refusal": None}
