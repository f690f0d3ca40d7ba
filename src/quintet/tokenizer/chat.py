"""Chat templates: Jinja2 in the immutable sandbox, rendered as `transformers` renders them.

The sandbox keeps a template away from Python's internals.  It bounds neither time nor memory: a
hostile template can still loop or build a huge string.  Only the size of what comes out is
limited here.

Source: transformers, utils/chat_template_utils.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from quintet.errors import ModelFormatError, RequestError

CHATML = (
    "{%- if tools %}{{ raise_exception('tools need a model with a chat template') }}{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' + (message.content or '') + '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
"""Used when a model carries no template of its own."""

MAX_TEMPLATE_SIZE = 1 << 20
MAX_RENDERED_SIZE = 4 << 20
_MAX_DEPTH = 64
_PART = "tokenizer.chat_template"


class ChatTemplate:
    """A compiled chat template.

    Args:
        source: Jinja2, at most 1 Mi characters.
        bos_token, eos_token: what templates find under these names.
        tool_use: another source that takes over when tools are given.

    Raises:
        ModelFormatError: too large, or not valid Jinja2.
    """

    def __init__(
        self, source: str, *, bos_token: str = "", eos_token: str = "", tool_use: str | None = None
    ) -> None:
        self.source = source
        self._template = _compile(source)
        self._tool_use = None if tool_use is None else _compile(tool_use)
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        enable_thinking: bool | None = None,
        **extra: Any,
    ) -> str:
        """The conversation as text.

        Args:
            messages: JSON-like; each has a role and a content, and what else the template reads.
                Reasoning may be under `reasoning_content`, `thinking` or `reasoning`.
            tools: JSON schemas of functions.
            add_generation_prompt: end with the opening of the assistant's answer.
            enable_thinking: handed to the template unless None.
            extra: further variables for the template.

        Raises:
            RequestError: the template refuses the conversation or cannot render it, a value is
                not JSON-like, or more than 4 Mi characters come out.
            ModelFormatError: the template reached for what the sandbox forbids.
        """
        conversation = plain_json(messages, "messages")
        for message in conversation:
            if not isinstance(message, dict):
                raise RequestError("expected objects with a role", parameter="messages")
        variables: dict[str, Any] = {
            **self._tokens,
            "documents": None,
            **plain_json(extra, "chat_template_kwargs"),
            "messages": [_with_reasoning(message) for message in conversation],
            "tools": None if tools is None else plain_json(tools, "tools"),
            "add_generation_prompt": add_generation_prompt,
        }
        if enable_thinking is not None:
            variables["enable_thinking"] = enable_thinking
        template = self._template
        if tools is not None and self._tool_use is not None:
            template = self._tool_use
        return _render(template, variables)


def plain_json(value: Any, parameter: str, *, depth: int = 0) -> Any:
    """A copy of JSON-like data in built-in types, so that a template meets no methods of ours.

    Raises:
        RequestError: something else is in it, or it is nested deeper than 64.
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if depth >= _MAX_DEPTH:
        raise RequestError(f"expected at most {_MAX_DEPTH} levels of nesting", parameter=parameter)
    if isinstance(value, Mapping):
        return {
            str(key): plain_json(item, parameter, depth=depth + 1) for key, item in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [plain_json(item, parameter, depth=depth + 1) for item in value]
    raise RequestError(f"expected JSON, found {type(value).__name__}", parameter=parameter)


class _ConversationRefused(jinja2.TemplateError):
    """`raise_exception` was called: the template wants other messages."""


class _GenerationTag(Extension):
    """`{% generation %}` marks what the assistant said, for training; here it only groups."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=lineno)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _compile(source: str) -> jinja2.Template:
    if len(source) > MAX_TEMPLATE_SIZE:
        raise ModelFormatError(
            f"expected at most {MAX_TEMPLATE_SIZE} characters, found {len(source)}", part=_PART
        )
    try:
        return _environment().from_string(source)
    except (jinja2.TemplateError, RecursionError, SyntaxError) as error:
        raise ModelFormatError(f"not a valid Jinja2 template: {error}", part=_PART) from None


def _render(template: jinja2.Template, variables: dict[str, Any]) -> str:
    try:
        return "".join(_limited(template.generate(variables)))
    except _ConversationRefused as error:
        raise RequestError(str(error), parameter="messages") from None
    except SecurityError as error:
        raise ModelFormatError(f"the template is not safe: {error}", part=_PART) from None
    except (
        *(jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError),
        *(ArithmeticError, RecursionError),
    ) as error:
        # A template meets a conversation it was not written for: no content, a lone tool answer.
        raise RequestError(
            f"the chat template cannot render this conversation: {error}", parameter="messages"
        ) from None


def _limited(chunks: Iterator[str]) -> Iterator[str]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > MAX_RENDERED_SIZE:
            raise RequestError(
                f"renders to more than {MAX_RENDERED_SIZE} characters", parameter="messages"
            )
        yield chunk


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """The message with its reasoning under the two names that templates read."""
    for name in ("reasoning_content", "thinking", "reasoning"):
        if message.get(name) is not None:
            return {"thinking": message[name], **message, "reasoning_content": message[name]}
    return message


def _raise_exception(message: str) -> NoReturn:
    raise _ConversationRefused(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML, which a model would read as text.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
