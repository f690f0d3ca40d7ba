"""What a request may ask of the sampler, checked when it is made.

A row of logits becomes a token in this order: constraint, logit_bias, min_tokens (tokens that
would end the sequence are excluded), repetition_penalty (tokens of the prompt and the output),
presence and frequency penalties (tokens of the output), temperature, top_k, top_p, min_p, the draw.
Each stage sees what the one before it left; probabilities are those of the tokens still in play.
Ties go to the lower token id everywhere.

The draw is Philox4x32-10 with the seed as key and the token's place in the output as counter, so a
seeded request gives the same tokens alone, in any batch and after a preemption.

Sources: OpenAI API reference, "Create chat completion" (logit_bias, logprobs, the presence and
frequency penalties, stop); Keskar et al. 2019, arXiv:1909.05858, section 4.1 (repetition penalty);
Fan et al. 2018, arXiv:1805.04833, section 5.4 (top-k); Holtzman et al. 2020, arXiv:1904.09751,
section 3.1 (top-p); Nguyen et al. 2024, arXiv:2407.01082, section 3 (min-p); Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3", section 4 (Philox).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from quintet.errors import RequestError
from quintet.sampling.checks import (
    checked_bool,
    checked_float,
    checked_int,
    checked_logit_bias,
    checked_stop,
    checked_token_ids,
)
from quintet.sampling.constraint import Constraint

MAX_LOGPROBS = 20
MAX_TOKENS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Parameters of one request; every one acts.

    Args:
        max_tokens: tokens to generate at most, from 1; None means until the context is full.
        temperature: 0 to 100; logits are divided by it.  0 takes the largest logit.
        top_k: keep this many of the largest logits; 0 or -1 keeps all.
        top_p: 0 to 1; keep the fewest tokens that together have this probability, at least one.
        min_p: 0 to 1; keep tokens at least this many times as probable as the most probable one.
        repetition_penalty: 0.01 to 100; divides positive logits of tokens in the prompt or the
            output, multiplies negative ones.  1 is off.
        presence_penalty: -2 to 2; subtracted from the logit of each token in the output.
        frequency_penalty: -2 to 2; subtracted once for each time a token is in the output.
        seed: 64 bits, signed or unsigned (-1 and 2**64 - 1 are the same seed).  None lets the
            engine draw one.
        logit_bias: token id to a number from -100 to 100 added to its logit; at most 1024 entries.
        logprobs: give the log-probability of each generated token and of this many (0 to 20) of
            the most probable ones.  They are the log-softmax of the model's own logits, before
            any of the other parameters acts.  None gives none.
        stop: up to 16 strings of 1 to 256 bytes in UTF-8 that end the output; see `StopChecker`.
        stop_token_ids: up to 1024 token ids that end the output.
        min_tokens: tokens to generate before the end-of-sequence token, a stop token or a stop
            string may end the output.  Where nothing but an ending token is possible it is taken.
        ignore_eos: the end-of-sequence token is a token like any other.
        include_stop_str_in_output: a matched stop string stays at the end of the text.
        constraint: the form the answer must have.  It acts before everything else: the other
            parameters see only the tokens it allows.

    Raises:
        RequestError: a value of the wrong type, not finite or out of range, naming the parameter.
    """

    max_tokens: int | None = 256
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    logit_bias: Mapping[int, float] | None = field(default=None, hash=False)
    logprobs: int | None = None
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    min_tokens: int = 0
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        checked: dict[str, object] = {
            "temperature": checked_float("temperature", self.temperature, 0.0, 100.0),
            "top_k": checked_int("top_k", self.top_k, -1, MAX_TOKENS),
            "top_p": checked_float("top_p", self.top_p, 0.0, 1.0),
            "min_p": checked_float("min_p", self.min_p, 0.0, 1.0),
            "repetition_penalty": checked_float(
                "repetition_penalty", self.repetition_penalty, 0.01, 100.0
            ),
            "presence_penalty": checked_float("presence_penalty", self.presence_penalty, -2.0, 2.0),
            "frequency_penalty": checked_float(
                "frequency_penalty", self.frequency_penalty, -2.0, 2.0
            ),
            "stop": checked_stop(self.stop),
            "stop_token_ids": checked_token_ids("stop_token_ids", self.stop_token_ids),
            "min_tokens": checked_int("min_tokens", self.min_tokens, 0, MAX_TOKENS),
            "ignore_eos": checked_bool("ignore_eos", self.ignore_eos),
            "include_stop_str_in_output": checked_bool(
                "include_stop_str_in_output", self.include_stop_str_in_output
            ),
        }
        if self.max_tokens is not None:
            checked["max_tokens"] = checked_int("max_tokens", self.max_tokens, 1, MAX_TOKENS)
        if self.seed is not None:
            checked["seed"] = checked_int("seed", self.seed, -(2**63), 2**64 - 1)
        if self.logit_bias is not None:
            checked["logit_bias"] = checked_logit_bias(self.logit_bias)
        if self.logprobs is not None:
            checked["logprobs"] = checked_int("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if not (self.constraint is None or isinstance(self.constraint, Constraint)):
            raise RequestError("expected a Constraint", parameter="constraint")
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise RequestError(
                f"expected at most max_tokens, {self.max_tokens}, found {self.min_tokens}",
                parameter="min_tokens",
            )

    @classmethod
    def greedy(cls, max_tokens: int | None = 256) -> SamplingParams:
        """The most probable token at each step."""
        return cls(max_tokens=max_tokens, temperature=0.0)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings as a tuple, whichever way they were given."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def check_vocab(self, vocab_size: int) -> None:
        """Refuse token ids that a model of `vocab_size` tokens does not have.

        Raises:
            RequestError: naming logit_bias or stop_token_ids.
        """
        for name, token_ids in (
            ("logit_bias", self.logit_bias or ()),
            ("stop_token_ids", self.stop_token_ids),
        ):
            for token_id in token_ids:
                if token_id >= vocab_size:
                    raise RequestError(
                        f"expected token ids below {vocab_size}, found {token_id}", parameter=name
                    )
