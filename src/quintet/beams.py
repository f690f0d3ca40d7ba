"""Beam searches as rounds of requests: what `LLM.beam_search` and its async twin share."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from quintet.engine.beam_search import Beam, BeamSearch, BeamSearchParams
from quintet.engine.output import RequestOutput
from quintet.engine.request import Priority, Request
from quintet.runtime import Prompt, Runtime, several_prompts
from quintet.sampling.params import SamplingParams
from quintet.tokenizer import Detokenizer


@dataclass(frozen=True, slots=True)
class BeamSearchOutput:
    """
    What a beam search found.

    Args:
        prompt_token_ids: the prompt as the model saw it.
        beams: best first.
        texts: of the beams, without an end-of-sequence token.
        block_ids: KV blocks that its steps have used.
    """

    prompt_token_ids: tuple[int, ...]
    beams: tuple[Beam, ...]
    texts: tuple[str, ...]
    block_ids: tuple[int, ...] = field(default=(), compare=False, repr=False)

    @property
    def text(self) -> str:
        """The best answer."""
        return self.texts[0]


class Beams:
    """
    A search per prompt, all in step.

    Args:
        runtime: the model.
        prompts, params, priority: see `LLM.beam_search`.

    Raises:
        RequestError: a prompt that cannot be served, or too large a beam.
    """

    def __init__(
        self,
        runtime: Runtime,
        prompts: Prompt | Sequence[Prompt],
        params: BeamSearchParams | None,
        priority: Priority,
    ) -> None:
        self._runtime = runtime
        self._priority = priority
        limits = runtime.client.limits
        self._searches = [
            BeamSearch(
                runtime.request(
                    prompt, SamplingParams.greedy(1), priority=priority
                ).prompt_token_ids,
                params or BeamSearchParams(),
                eos_ids=limits.eos_ids,
                max_model_len=limits.max_model_len,
            )
            for prompt in several_prompts(prompts)
        ]
        self._block_ids: list[dict[int, None]] = [{} for _ in self._searches]  # in order

    def requests(self) -> list[Request]:
        """A request per prefix to score next; none at the end."""
        return [
            self._runtime.request(
                prefix, _scoring(search.num_continuations), priority=self._priority
            )
            for search in self._unfinished()
            for prefix in search.prefixes
        ]

    def advance(self, outputs: Iterable[RequestOutput]) -> None:
        """Take the answers to `requests`, in order."""
        remaining = iter(outputs)
        for search, block_ids in zip(self._searches, self._block_ids, strict=True):
            if search.is_finished:
                continue
            answered = list(itertools.islice(remaining, len(search.prefixes)))
            for output in answered:
                block_ids.update(dict.fromkeys(output.usage.block_ids))
            search.advance([(output.logprobs or ())[0].top for output in answered])

    def outputs(self) -> list[BeamSearchOutput]:
        """What has been found, per prompt."""
        return [
            BeamSearchOutput(
                prompt_token_ids=search.prompt_token_ids,
                beams=search.beams,
                texts=tuple(self._text(search, beam) for beam in search.beams),
                block_ids=tuple(block_ids),
            )
            for search, block_ids in zip(self._searches, self._block_ids, strict=True)
        ]

    def _unfinished(self) -> list[BeamSearch]:
        return [search for search in self._searches if not search.is_finished]

    def _text(self, search: BeamSearch, beam: Beam) -> str:
        detokenizer = Detokenizer(self._runtime.tokenizer, prompt_ids=search.prompt_token_ids)
        token_ids = beam.token_ids[:-1] if beam.finish_reason == "stop" else beam.token_ids
        return "".join(map(detokenizer.push, token_ids)) + detokenizer.flush()


def _scoring(num_continuations: int) -> SamplingParams:
    """For one step: the most probable next tokens."""
    return SamplingParams(
        max_tokens=1, temperature=0.0, logprobs=num_continuations, ignore_eos=True
    )
