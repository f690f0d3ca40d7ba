"""Chat completions: body to engine request, and how it is answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quintet.engine.request import RequestOptions
from quintet.errors import RequestError
from quintet.server.answers import Answer
from quintet.server.dialects.openai.bodies import (
    ChatBody,
    ContentPart,
    ConversationBody,
    Message,
    ToolCall,
    wants_continuous_usage,
    wants_usage,
)
from quintet.server.dialects.openai.chat_replies import ChatChunks, chat_reply
from quintet.server.dialects.openai.replies import ReplyHeader, Work
from quintet.server.dialects.openai.sampling import (
    asked_parameters,
    refuse,
    request_options,
    sampling_params,
)
from quintet.server.dialects.openai.structure import (
    checked_tool_choice,
    constraint_of,
    shown_tools,
    thinking_budget,
    thinking_switch,
)
from quintet.server.limits import parse_json
from quintet.server.requests import ChatPrompt, GenerationRequest
from quintet.server.served_model import ServedModel

MAX_ARGUMENTS_DEPTH = 32


def chat_requests(body: ChatBody) -> list[GenerationRequest]:
    """The engine request of a body: `n` answers to one conversation.

    Raises:
        RequestError: values out of range, or a history that cannot be understood.
        UnsupportedParameterError: fields that cannot be honoured.
    """
    _refuse_unsupported(body)
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("expected logprobs: true beside it", parameter="top_logprobs")
    max_tokens = body.max_tokens
    if body.max_completion_tokens is not None:
        max_tokens = body.max_completion_tokens
    params = sampling_params(
        body,
        max_tokens=max_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        constraint=constraint_of(body),
        n=body.n or 1,
    )
    asked = asked_parameters(body, max_tokens)
    options: RequestOptions = {**request_options(body), **thinking_budget(body)}
    return [GenerationRequest(chat_prompt(body), params, options, asked)]


def chat_prompt(body: ConversationBody) -> ChatPrompt:
    """The conversation of a body.

    Raises:
        RequestError: a history that cannot be understood.
        UnsupportedParameterError: fields that cannot be honoured.
    """
    return ChatPrompt(
        [_history(sent, index) for index, sent in enumerate(body.messages)],
        shown_tools(body.tools, body.tool_choice),
        thinking_switch(body, body.reasoning_effort),
        checked_tool_choice(body.tool_choice),
        body.parallel_tool_calls is not False,
    )


async def chat_work(
    body: ChatBody, requests: Sequence[GenerationRequest], model: ServedModel
) -> Work:
    """How the requests of a body are answered."""
    tokenizer = model.engine.tokenizer
    num_choices = body.n or 1
    prompt_lengths: list[int] | None = None
    prompt = requests[0].prompt
    if wants_continuous_usage(body) and isinstance(prompt, ChatPrompt):
        prompt_lengths = [await model.count_tokens(prompt)]

    def reply(answers: Sequence[Answer]) -> dict[str, Any]:
        header = ReplyHeader.new("chatcmpl", "chat.completion", body.model)
        return chat_reply(header, answers, bool(body.logprobs), tokenizer.token_bytes)

    def chunks() -> ChatChunks:
        return ChatChunks(
            ReplyHeader.new("chatcmpl", "chat.completion.chunk", body.model),
            num_choices=num_choices,
            wants_logprobs=bool(body.logprobs),
            wants_usage=wants_usage(body),
            token_bytes=tokenizer.token_bytes,
            prompt_lengths=prompt_lengths,
        )

    return Work(requests, reply, chunks)


def _refuse_unsupported(body: ChatBody) -> None:
    if body.modalities not in (None, ["text"]):
        raise refuse("modalities", 'only ["text"] is supported')
    for name in ("functions", "function_call"):
        if getattr(body, name) is not None:
            raise refuse(name, "not supported; use tools")
    if body.chat_template is not None:
        raise refuse("chat_template", "templates in requests are refused; the model's own is used")


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
    arguments = parsed_arguments(call.function.arguments, f"{where}.tool_calls")
    function = {"name": call.function.name, "arguments": arguments}
    rendered: dict[str, Any] = {"type": "function", "function": function}
    if call.id is not None:
        rendered["id"] = call.id
    return rendered


def parsed_arguments(text: str, where: str) -> dict[str, Any]:
    """The arguments of a call: they travel as a JSON string but templates print an object.

    Raises:
        RequestError: anything else.
    """
    try:
        arguments = parse_json(text.encode() or b"{}", MAX_ARGUMENTS_DEPTH)
    except RequestError:
        arguments = None
    if not isinstance(arguments, dict):
        raise RequestError("expected arguments that are a JSON object in a string", parameter=where)
    return arguments
