"""Completions, OpenAI's older interface: body to engine requests, and how they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from quintet.errors import RequestError
from quintet.server.answers import Answer
from quintet.server.dialects.openai.bodies import (
    MAX_CHOICES,
    CompletionBody,
    wants_continuous_usage,
    wants_usage,
)
from quintet.server.dialects.openai.completion_replies import (
    CompletionChunks,
    Echo,
    Shape,
    completion_reply,
)
from quintet.server.dialects.openai.replies import ReplyHeader, Work
from quintet.server.dialects.openai.sampling import (
    asked_parameters,
    refuse,
    request_options,
    sampling_params,
)
from quintet.server.dialects.openai.structure import constraint_of
from quintet.server.engines import ServedTokenizer
from quintet.server.requests import GenerationRequest
from quintet.server.served_model import ServedModel

DEFAULT_MAX_TOKENS = 16  # OpenAI's, which chat completions do not have


def completion_requests(body: CompletionBody) -> list[GenerationRequest]:
    """The engine requests of a body, one per prompt; `best_of` answers each, or `n`.

    Raises:
        RequestError: values out of range, no prompt, or too many answers at once.
        UnsupportedParameterError: fields that cannot be honoured.
    """
    if body.suffix:
        raise refuse("suffix", "not supported: the text is continued, not filled in")
    num_answers = _num_answers(body)
    prompts = _prompts(body)
    num_choices = len(prompts) * num_answers
    if not 1 <= num_choices <= MAX_CHOICES:
        raise RequestError(
            f"expected 1 to {MAX_CHOICES} answers (prompts times n), found {num_choices}",
            parameter="prompt",
        )
    max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    is_ranked = num_answers > (body.n or 1)
    params = sampling_params(
        body,
        # The engine generates at least one token; it is left out of the reply.
        max_tokens=1 if is_prompt_alone(body) else max_tokens,
        logprobs=0 if is_ranked and body.logprobs is None else body.logprobs,
        constraint=constraint_of(body),
        n=num_answers,
        prompt_logprobs=body.logprobs if body.echo else None,
    )
    options = request_options(body)
    asked = asked_parameters(body, body.max_tokens)
    return [GenerationRequest(prompt, params, options, asked) for prompt in prompts]


def is_prompt_alone(body: CompletionBody) -> bool:
    """Whether only the prompt is asked for, which evaluations do for its log probabilities."""
    return bool(body.echo) and body.max_tokens == 0


async def completion_work(
    body: CompletionBody, requests: Sequence[GenerationRequest], model: ServedModel
) -> Work:
    """How the requests of a body are answered."""
    tokenizer = model.engine.tokenizer
    num_answers, n = _num_answers(body), body.n or 1
    prompt_lengths: list[int] | None = None
    prompts = [request.prompt for request in requests]
    wants_ids = bool(body.echo) and body.logprobs is not None
    if wants_ids or wants_continuous_usage(body):
        ids = await asyncio.to_thread(_token_ids, prompts, tokenizer)
        requests = [
            replace(request, prompt=own) for request, own in zip(requests, ids, strict=True)
        ]
        if wants_continuous_usage(body):
            prompt_lengths = [len(own) for own in ids]
    header = ReplyHeader.new("cmpl", "text_completion", body.model)
    echoes = [
        Echo(tokenizer, prompt, request.prompt)
        for prompt, request in zip(prompts, requests, strict=True)
        if body.echo
    ]
    shape = Shape(n, body.logprobs is not None, is_prompt_alone(body))

    def reply(answers: Sequence[Answer]) -> dict[str, Any]:
        ranked = [
            index
            for first in range(0, len(answers), num_answers)
            for index in best(answers[first : first + num_answers], n, first)
        ]
        return completion_reply(header, shape, answers, ranked, echoes, tokenizer.token_bytes)

    def chunks() -> CompletionChunks:
        return CompletionChunks(
            header,
            shape,
            num_choices=len(requests) * n,
            wants_usage=wants_usage(body),
            token_bytes=tokenizer.token_bytes,
            echoes=echoes,
            prompt_lengths=prompt_lengths,
        )

    return Work(requests, reply, chunks)


def best(answers: Sequence[Answer], n: int, first: int) -> list[int]:
    """The places of the n answers with the highest log probability per token, best first."""

    def score(index: int) -> float:
        values = [item.logprob for item in answers[index].logprobs]
        return sum(values) / len(values) if values else 0.0

    if len(answers) == n:
        return list(range(first, first + n))
    places = sorted(range(len(answers)), key=score, reverse=True)
    return [first + place for place in places[:n]]


def _num_answers(body: CompletionBody) -> int:
    n = body.n or 1
    if body.best_of is None or body.best_of == n:
        return n
    if body.best_of < n:
        raise RequestError(f"expected at least n, {n}, found {body.best_of}", parameter="best_of")
    if body.stream:
        raise refuse("best_of", "the best answers are known only when all are whole: do not stream")
    return body.best_of


def _prompts(body: CompletionBody) -> list[str | list[int]]:
    """Four wire shapes, one meaning: an empty list is no prompt at all."""
    prompt = body.prompt
    if isinstance(prompt, str):
        return [prompt]
    if prompt and isinstance(prompt[0], int):
        return [[token for token in prompt if isinstance(token, int)]]
    return [item for item in prompt if not isinstance(item, int)]


def _token_ids(prompts: Sequence[Any], tokenizer: ServedTokenizer) -> list[list[int]]:
    """As the engine encodes text itself."""
    return [
        tokenizer.encode(prompt, add_special=True, parse_special=True)
        if isinstance(prompt, str)
        else prompt
        for prompt in prompts
    ]
