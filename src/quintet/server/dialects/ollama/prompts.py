"""Prompts of /api/generate and /api/chat, with what the model's owner put before them."""

from __future__ import annotations

from typing import Any

from quintet.errors import RequestError
from quintet.server.dialects.llamacpp.bodies import InfillBody
from quintet.server.dialects.llamacpp.prompts import infill_prompt
from quintet.server.dialects.ollama.bodies import ChatBody, GenerateBody, GenerationBody, Message
from quintet.server.errors import HTTPRefusal, UnsupportedParameterError
from quintet.server.requests import ChatPrompt, Prompt
from quintet.server.served_model import ServedModel
from quintet.server.stored import with_stored

_ROLES = ("system", "user", "assistant", "tool")


def generate_prompt(body: GenerateBody, model: ServedModel, prompt: str) -> Prompt:
    """The prompt of /api/generate: as it stands if raw, the gap's frame, or a question.

    Raises:
        RequestError: fields that do not go together; a suffix, and a model that cannot fill gaps.
        UnsupportedParameterError: images, templates, or a context to continue.
    """
    for name, reason in (
        ("images", "this model does not support images"),
        ("template", "templates in requests are refused; the model's own is used"),
        ("context", "not kept by this server; send the messages to /api/chat"),
    ):
        if getattr(body, name):
            raise UnsupportedParameterError(reason, parameter=name)
    if body.raw:
        if body.system:
            raise RequestError("raw mode does not support template, system, or context")
        return prompt
    if body.suffix:
        gap = InfillBody(input_prefix=prompt, input_suffix=body.suffix)
        try:
            return infill_prompt(gap, model.engine.tokenizer)
        except HTTPRefusal:  # llama-server's answer; Ollama calls it the client's mistake
            raise RequestError(f'"{model.name}" does not support insert') from None
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    if body.system:
        messages.insert(0, {"role": "system", "content": body.system})
    return ChatPrompt(
        with_stored(messages, model.manifest),
        enable_thinking=enable_thinking(body, model),
    )


def chat_prompt(body: ChatBody, model: ServedModel) -> ChatPrompt:
    """The prompt of /api/chat.

    Raises:
        RequestError: a message that cannot be understood.
        UnsupportedParameterError: images.
    """
    messages = [_message(message, index) for index, message in enumerate(body.messages)]
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
    return ChatPrompt(
        with_stored(messages, model.manifest),
        tools or None,
        enable_thinking(body, model),
    )


def enable_thinking(body: GenerationBody, model: ServedModel) -> bool | None:
    """Whether to think; where it is not said, the model's template decides.

    Raises:
        RequestError: a model that does not think is asked to.
    """
    if body.think is None:
        return None
    wanted = body.think is not False
    template = model.manifest.template or model.engine.tokenizer.chat_templates.get("default", "")
    if wanted and not template_thinks(template):
        raise RequestError(f'"{model.name}" does not support thinking')
    return wanted


def template_thinks(template: str) -> bool:
    """Whether a chat template has a switch for thoughts, or writes them."""
    return "enable_thinking" in template or "<think>" in template


def _message(message: Message, index: int) -> dict[str, Any]:
    role = message.role.lower()
    where = f"messages.{index}"
    if role not in _ROLES:
        raise RequestError(f"expected one of {', '.join(_ROLES)}", parameter=f"{where}.role")
    if message.images:
        raise UnsupportedParameterError(
            "this model does not support images", parameter=f"{where}.images"
        )
    rendered: dict[str, Any] = {"role": role, "content": message.content or ""}
    if message.thinking:
        rendered["reasoning_content"] = message.thinking
    if message.tool_calls:
        rendered["tool_calls"] = [
            {
                **({} if call.id is None else {"id": call.id}),
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in message.tool_calls
        ]
    if message.tool_name:
        rendered["name"] = message.tool_name
    if message.tool_call_id:
        rendered["tool_call_id"] = message.tool_call_id
    return rendered
