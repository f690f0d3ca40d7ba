"""One turn: a body to an engine request, and its answer as events; kept where it is wanted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from quintet.errors import RequestError
from quintet.sampling.constraint import Constraint
from quintet.sampling.params import SamplingParams
from quintet.server.dialect import Context
from quintet.server.dialects.openai.bodies import JsonSchema, ResponseFormat
from quintet.server.dialects.openai.responses.bodies import ResponseBody, TurnBody
from quintet.server.dialects.openai.responses.events import Event, ResponseEvents
from quintet.server.dialects.openai.responses.items import input_items, messages, new_id
from quintet.server.dialects.openai.responses.store import ResponseStore, found_previous
from quintet.server.dialects.openai.responses.tools import OfferedTools
from quintet.server.dialects.openai.sampling import (
    asked_parameters,
    refuse,
    request_options,
    sampling_params,
)
from quintet.server.dialects.openai.structure import (
    checked_tool_choice,
    constraint_of,
    response_constraint,
    thinking_budget,
    thinking_switch,
)
from quintet.server.errors import ErrorReply
from quintet.server.generation import stream_all
from quintet.server.keep_alive import keep_alive_s
from quintet.server.requests import ChatPrompt, GenerationRequest
from quintet.server.served_model import ServedModel
from quintet.server.stored import with_defaults

_LOGPROBS = "message.output_text.logprobs"


class Turn:
    """
    A request for a response.

    Args:
        body: what the client sent.
        stores: where the response it goes on from may be.
        keeps: where this one is put when it has ended.

    Raises:
        RequestError: values out of range, or items that cannot be understood.
        UnsupportedParameterError: fields that cannot be honoured.
        HTTPRefusal: the response it goes on from is not kept.
    """

    def __init__(
        self, body: ResponseBody, stores: Sequence[ResponseStore], keeps: Sequence[ResponseStore]
    ) -> None:
        self.body = body
        self.input_items = input_items(body)
        self.history = [*_previous_items(body, stores), *self.input_items]
        self._keeps = keeps
        self._offered = OfferedTools(body.tools)
        self._request = GenerationRequest(
            _prompt(body, self.history, self._offered),
            _params(body),
            {**request_options(body), **thinking_budget(body)},
            asked_parameters(body, 1 if body.generate is False else body.max_output_tokens),
        )
        self._keep_alive_s = keep_alive_s(body.keep_alive)
        self.response = _response(body, self._offered)
        self._events: ResponseEvents | None = None

    async def events(self, context: Context) -> AsyncGenerator[Event, None]:
        """Run it.  The first event waits for the engine's first chunk.

        Raises:
            QuintetError: it was refused, or failed; see `failed`.
        """
        async with contextlib.AsyncExitStack() as stack:
            model: ServedModel = await stack.enter_async_context(
                context.models.use(self.body.model, self._keep_alive_s)
            )
            request = with_defaults(self._request, model.manifest)
            acting = {"temperature": request.params.temperature, "top_p": request.params.top_p}
            self.response |= acting
            stream = await stack.enter_async_context(
                contextlib.aclosing(stream_all(model, [request]))
            )
            async for _, chunk in stream:
                if self._events is None:
                    self._events = self._new_events(model)
                    for event in self._events.start():
                        yield event
                events = list(self._events.add(chunk))
                if chunk.finish_reason is not None:
                    self.keep()  # before the client hears of the end, and goes on from it
                for event in events:
                    yield event

    def failed(self, reply: ErrorReply) -> Event | None:
        """The event that tells of an error; None where no event was sent before."""
        event = None
        if self._events is not None:
            event = self._events.failed(reply)
        else:
            error = {"code": "server_error", "message": reply.message}
            self.response |= {"status": "failed", "error": error}
        if event is not None or self.body.background:
            self.keep()
        return event

    def cancelled(self) -> None:
        """It was called off."""
        if self._events is None:
            self.response["status"] = "cancelled"
        else:
            self._events.cancelled()
        self.keep()

    def keep(self) -> None:
        """Put the response, as it is now, where it is to be found later."""
        for store in self._keeps:
            store.put(self.response, self.input_items, self.history)

    def _new_events(self, model: ServedModel) -> ResponseEvents:
        return ResponseEvents(
            self.response,
            model.engine.tokenizer.token_bytes,
            self._offered.origin,
            shows_answer=self.body.generate is not False,
        )


def turn_prompt(body: TurnBody, stores: Sequence[ResponseStore]) -> ChatPrompt:
    """The prompt of a body alone; raises as `Turn` does."""
    items = [*_previous_items(body, stores), *input_items(body)]
    return _prompt(body, items, OfferedTools(body.tools))


def _previous_items(body: TurnBody, stores: Sequence[ResponseStore]) -> list[dict[str, Any]]:
    if body.previous_response_id is None:
        return []
    return found_previous(body.previous_response_id, stores).items


def _prompt(body: TurnBody, items: Sequence[dict[str, Any]], offered: OfferedTools) -> ChatPrompt:
    for name in ("conversation", "prompt"):
        if getattr(body, name) is not None:
            raise refuse(name, "not supported; use input and previous_response_id")
    if body.truncation == "auto":
        raise refuse("truncation", "input is never cut; only disabled is supported")
    choice = body.tool_choice
    if isinstance(choice, dict) and choice.get("type") == "function":
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    return ChatPrompt(
        messages(items, body.instructions, offered),
        offered.chat_tools if choice != "none" else None,
        thinking_switch(body, body.reasoning.effort if body.reasoning else None),
        checked_tool_choice(choice),
        body.parallel_tool_calls is not False,
    )


def _params(body: ResponseBody) -> SamplingParams:
    wants_logprobs = body.top_logprobs is not None or _LOGPROBS in (body.include or ())
    return sampling_params(
        body,
        max_tokens=1 if body.generate is False else body.max_output_tokens,
        logprobs=(body.top_logprobs or 0) if wants_logprobs else None,
        constraint=_constraint(body),
    )


def _constraint(body: ResponseBody) -> Constraint | None:
    parameter = "text.format"
    wanted = body.text.format if body.text else None
    other = constraint_of(body)
    if wanted is None or wanted.type == "text":
        return other
    if other is not None:
        raise RequestError(f"expected it or {other.parameter}, found both", parameter=parameter)
    schema = None if wanted.schema_ is None else JsonSchema(schema=wanted.schema_)
    return response_constraint(
        ResponseFormat(type=wanted.type, json_schema=schema), parameter=parameter
    )


def _response(body: ResponseBody, offered: OfferedTools) -> dict[str, Any]:
    """The response before anything is known of it; fields of the request come back."""
    plain = {"type": "text"}
    text = body.text.format if body.text else None
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "queued",
        "background": bool(body.background),
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "model": body.model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": body.reasoning and body.reasoning.effort, "summary": None},
        "service_tier": "default",
        "store": body.store is not False,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {"format": text.model_dump(by_alias=True, exclude_none=True) if text else plain},
        "tool_choice": body.tool_choice or "auto",
        "tools": offered.echoed,
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "usage": None,
    }
