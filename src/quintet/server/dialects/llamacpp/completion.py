"""Replies of /completion and /infill: chunks, the last object, timings, probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from quintet.engine.output import OutputChunk, Timings, TokenLogprob, Usage
from quintet.sampling.params import SamplingParams
from quintet.server.answers import Answer, text_logprobs
from quintet.server.dialects.llamacpp.bodies import GenerationBody
from quintet.server.dialects.llamacpp.params import settings
from quintet.server.engines import ServedTokenizer

_MIN_LOGPROB = -9999.0  # JSON has no minus infinity
_STOP_TYPES = {"length": "limit", "timeout": "limit"}


@dataclass
class Reply:
    """One prompt's reply, from its first chunk to its last object.

    Args:
        body: what was asked.
        params: what acted.
        index: of the prompt.
        prompt_ids: the prompt.
        model: as clients call it.
        tokenizer: of the model.
    """

    body: GenerationBody
    params: SamplingParams
    index: int
    prompt_ids: list[int]
    model: str
    tokenizer: ServedTokenizer
    answer: Answer = field(default_factory=Answer)

    def add(self, chunk: OutputChunk) -> Iterator[dict[str, Any]]:
        """What is sent of a chunk in a stream: the text so far undecided is held back."""
        self.answer.add(chunk)
        logprobs = text_logprobs(chunk) if self.body.n_probs else ()
        if self._is_silent or not (chunk.text or logprobs):
            return
        partial = {
            "index": self.index,
            "content": chunk.text,
            "tokens": list(chunk.token_ids),
            "stop": False,
            "id_slot": -1,
            "tokens_predicted": len(self.answer.token_ids),
            "tokens_evaluated": len(self.prompt_ids),
        }
        if self.body.n_probs:
            partial["completion_probabilities"] = self._probabilities(logprobs)
        yield partial

    def end(self, *, is_streamed: bool) -> dict[str, Any]:
        """The last object; the whole answer where nothing was streamed."""
        answer = self.answer
        usage = answer.usage or Usage(len(self.prompt_ids), 0, len(answer.token_ids))
        shows_answer = not is_streamed and not self._is_silent
        whole: dict[str, Any] = {
            "index": self.index,
            "content": answer.text if shows_answer else "",
            "tokens": answer.token_ids if shows_answer and self.body.return_tokens else [],
            "id_slot": -1,
            "stop": True,
            "model": self.model,
            "tokens_predicted": 0 if self._is_silent else usage.num_generated_tokens,
            "tokens_evaluated": usage.num_prompt_tokens,
            "generation_settings": settings(self.body, self.params),
            "prompt": self.tokenizer.decode(self.prompt_ids, skip_special=False),
            "has_new_line": "\n" in answer.text,
            "truncated": usage.num_dropped_tokens > 0,
            **self._stop(),
            "tokens_cached": usage.num_prompt_tokens + usage.num_generated_tokens,
            "timings": timings(usage, answer.timings),
        }
        if self.body.n_probs and shows_answer:
            whole["completion_probabilities"] = self._probabilities(answer.logprobs)
        return _selected(whole, self.body.response_fields)

    @property
    def _is_silent(self) -> bool:
        return self.body.n_predict == 0

    def _stop(self) -> dict[str, str]:
        reason = self.answer.stop_reason
        if isinstance(reason, str):
            return {"stop_type": "word", "stopping_word": reason}
        if self._is_silent:
            return {"stop_type": "limit", "stopping_word": ""}
        return {
            "stop_type": _STOP_TYPES.get(str(self.answer.finish_reason), "eos"),
            "stopping_word": "",
        }

    def _probabilities(self, logprobs: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
        return [
            {
                **self._token(item.token_id, item.logprob),
                "top_logprobs": [self._token(token_id, logprob) for token_id, logprob in item.top],
            }
            for item in logprobs
        ]

    def _token(self, token_id: int, logprob: float) -> dict[str, Any]:
        raw = self.tokenizer.token_bytes(token_id)
        return {
            "id": token_id,
            "token": raw.decode(errors="replace"),
            "bytes": list(raw),
            "logprob": max(logprob, _MIN_LOGPROB),
        }


def timings(usage: Usage, spent: Timings | None) -> dict[str, Any]:
    """llama-server's `timings`: counts, milliseconds, and rates per second."""
    prompt_n = usage.num_prompt_tokens - usage.num_cached_tokens
    prompt_ms = 1000 * spent.prefill_s if spent else 0.0
    predicted_ms = 1000 * spent.decode_s if spent else 0.0
    predicted_n = usage.num_generated_tokens
    return {
        "cache_n": usage.num_cached_tokens,
        "prompt_n": prompt_n,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_ms / prompt_n if prompt_n else 0.0,
        "prompt_per_second": 1000 * prompt_n / prompt_ms if prompt_ms else 0.0,
        "predicted_n": predicted_n,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": predicted_ms / predicted_n if predicted_n else 0.0,
        "predicted_per_second": 1000 * predicted_n / predicted_ms if predicted_ms else 0.0,
    }


def _selected(whole: dict[str, Any], fields: list[str] | None) -> dict[str, Any]:
    """The fields asked for, "a/b" meaning b of a, put at the top under its last name."""
    if not fields:
        return whole
    selected: dict[str, Any] = {}
    for path in fields[:64]:
        value: Any = whole
        *_, name = parts = path.split("/")
        for part in parts:
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            selected[name] = value
    return selected
