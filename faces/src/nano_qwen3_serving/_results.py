"""Answers as the dictionaries that programs get."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from nano_qwen3_serving._jobs import Job
from quintet import OutputChunk, RequestOutput, Tokenizer
from quintet.beams import BeamSearchOutput
from quintet.tokenizer import Detokenizer

Result = dict[str, Any]


def result_of(job: Job, output: RequestOutput) -> Result:
    """An answer."""
    usage = output.usage
    return _result(
        job, output.text, usage.num_generated_tokens, usage.num_prompt_tokens, usage.block_ids
    )


def beam_result_of(job: Job, output: BeamSearchOutput, tokenizer: Tokenizer) -> Result:
    """The best answer of a beam search, cut where it is to stop."""
    token_ids, text = output.beams[0].token_ids, output.text
    stops = set(job.params.stop_token_ids or ())
    end = next((i for i, token_id in enumerate(token_ids) if token_id in stops), None)
    if end is not None:
        text = tokenizer.decode(token_ids[:end])
        token_ids = token_ids[: end + 1]
    ends = [text.find(stop) for stop in job.params.stop_sequences or () if stop in text]
    text = text[: min(ends)] if ends else text
    return _result(job, text, len(token_ids), len(output.prompt_token_ids), output.block_ids)


def _result(
    job: Job, text: str, num_tokens: int, num_prompt_tokens: int, block_ids: Iterable[int]
) -> Result:
    return {
        "request_id": job.request_id,
        "prompt": job.prompt,
        "generated_text": text,
        "tokens_generated": num_tokens,
        "total_tokens": num_prompt_tokens + num_tokens,
        "block_indices": list(block_ids),
    }


class StreamResults:
    """
    Turns chunks into the dictionaries of a stream, one per token.

    Args:
        request_id: of all of them.
    """

    def __init__(self, request_id: int) -> None:
        self.request_id = request_id
        self._text = ""
        self._num_tokens = 0
        self._token_id = -1

    def of(self, chunk: OutputChunk) -> Result:
        """The next one."""
        self._num_tokens += len(chunk.token_ids)
        self._token_id = chunk.token_ids[-1] if chunk.token_ids else self._token_id
        return self._result(chunk.text, chunk.is_last)

    def replay(self, tokenizer: Tokenizer, output: BeamSearchOutput, text: str) -> Iterator[Result]:
        """The best answer of a finished beam search, token by token; `text` as it is to be."""
        detokenizer = Detokenizer(tokenizer, prompt_ids=output.prompt_token_ids)
        token_ids = output.beams[0].token_ids
        ends_hidden = output.beams[0].finish_reason == "stop"
        for index, token_id in enumerate(token_ids):
            is_last = index + 1 == len(token_ids)
            piece = "" if is_last and ends_hidden else detokenizer.push(token_id)
            if is_last:
                piece += detokenizer.flush()
            self._num_tokens += 1
            self._token_id = token_id
            room = len(text) - len(self._text)
            is_cut = len(piece) > room
            yield self._result(piece[:room], is_last or is_cut)
            if is_cut:
                return

    def _result(self, token: str, finished: bool) -> Result:
        self._text += token
        return {
            "token": token,
            "token_id": self._token_id,
            "text": self._text,
            "finished": finished,
            "tokens_generated": self._num_tokens,
            "request_id": self.request_id,
        }
