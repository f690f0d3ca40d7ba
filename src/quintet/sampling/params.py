"""What a request may ask of the sampler, checked when it is made.

A row of logits becomes a token like this: logit_bias, then the stages in the order of
`sampler_order`, then the draw.  Before min_tokens, tokens that would end the sequence are excluded
between the stages that change single logits ("penalties", "dry") and those that choose among them.
Each stage sees what the one before it left; probabilities are those of the tokens still in play,
at the temperature reached so far (1 until "temperature" has had its turn), and a token less than
e**-80 times as probable as the most probable one counts as impossible.  Ties go to the lower token
id everywhere.  At temperature 0 the largest logit is taken, after the penalties.

The draw is Philox4x32-10 with the seed as key and the token's place in the output as counter, so a
seeded request gives the same tokens alone, in any batch and after a preemption.

Sources: OpenAI API reference, "Create chat completion" (logit_bias, logprobs, the presence and
frequency penalties, stop); Keskar et al. 2019, arXiv:1909.05858, section 4.1 (repetition penalty);
Fan et al. 2018, arXiv:1805.04833, section 5.4 (top-k); Holtzman et al. 2020, arXiv:1904.09751,
section 3.1 (top-p); Nguyen et al. 2024, arXiv:2407.01082, section 3 (min-p); Meister et al. 2022,
arXiv:2202.00666, section 3 (typical-p); Tang et al. 2024, arXiv:2411.07641, section 3
(top-n-sigma); Basu et al. 2021, arXiv:2007.14966, section 4 (Mirostat); text-generation-webui, pull
requests 5677 (DRY) and 6335 (XTC); llama.cpp, src/llama-sampling.cpp (dynamic temperature, DRY's
breakers); Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 4 (Philox).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from quintet.errors import RequestError
from quintet.sampling.checks import (
    MAX_BREAKER_BYTES,
    checked_bool,
    checked_float,
    checked_int,
    checked_logit_bias,
    checked_processors,
    checked_strings,
    checked_token_ids,
)
from quintet.sampling.constraint import Constraint
from quintet.sampling.stages import STAGES, check_combinations, checked_order

# (prompt_ids, output_ids, logits [vocab_size]) -> logits [vocab_size]
LogitsProcessor: TypeAlias = Callable[
    [Sequence[int], Sequence[int], NDArray[np.float32]], NDArray[Any]
]

MAX_LOGPROBS = 20
MAX_TOKENS = 2**31 - 1
MAX_N = 16

_FLOAT_RANGES = {
    "temperature": (0.0, 100.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "top_n_sigma": (0.0, 100.0),
    "dynatemp_range": (0.0, 100.0),
    "dynatemp_exponent": (0.0, 100.0),
    "xtc_probability": (0.0, 1.0),
    "xtc_threshold": (0.0, 0.5),
    "dry_multiplier": (0.0, 100.0),
    "dry_base": (1.0, 100.0),
    "mirostat_tau": (0.0, 100.0),
    "mirostat_eta": (0.0, 1.0),
    "repetition_penalty": (0.01, 100.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}
_INT_RANGES = {
    "top_k": (-1, MAX_TOKENS),
    "min_tokens": (0, MAX_TOKENS),
    "penalty_last_n": (-1, MAX_TOKENS),
    "dry_allowed_length": (1, MAX_TOKENS),
    "dry_penalty_last_n": (-1, MAX_TOKENS),
    "mirostat": (0, 2),
    "n": (1, MAX_N),
}
_OPTIONAL_INT_RANGES = {
    "max_tokens": (1, MAX_TOKENS),
    "seed": (-(2**63), 2**64 - 1),
    "logprobs": (0, MAX_LOGPROBS),
    "prompt_logprobs": (0, MAX_LOGPROBS),
}
_FLAGS = ("ignore_eos", "include_stop_str_in_output", "echo")


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
        penalty_last_n: the three penalties look at this many of the newest tokens of prompt and
            output; -1 at all of them, 0 at none.
        typical_p: 0 to 1; keep the fewest tokens that together have this probability, those first
            whose surprise is nearest to the expected one.  1 is off.
        top_n_sigma: 0 to 100; keep logits within this many standard deviations of the largest.
            0 is off.
        dynatemp_range: 0 to 100; the temperature lies this far below (but not below 0) to this far
            above `temperature`, the higher the more evenly the probabilities are spread: their
            entropy, as a share of the largest possible for as many tokens, places it.  0 is off.
        dynatemp_exponent: 0 to 100; that share is raised to it.
        xtc_probability: 0 to 1; the chance, at each token, that XTC acts.  0 is off.
        xtc_threshold: 0 to 0.5; when it acts, all tokens of at least this probability are dropped
            but the least probable of them.
        dry_multiplier: 0 to 100; a token that would continue a repetition of n tokens gets
            dry_multiplier * dry_base ** (n - dry_allowed_length) subtracted from its logit.
            0 is off.
        dry_base: 1 to 100.
        dry_allowed_length: repetitions of fewer tokens are free; from 1.
        dry_penalty_last_n: DRY looks back at this many tokens of prompt and output; -1 at all of
            them, 0 at none.
        dry_sequence_breakers: up to 16 strings of 1 to 40 bytes in UTF-8; no repetition reaches
            over text that holds one.
        mirostat: version 1 or 2 keeps the surprise per token near mirostat_tau by feedback, in the
            place of all other truncation.  0 is off.
        mirostat_tau: 0 to 100; in bits per token.
        mirostat_eta: 0 to 1; the share of an error that the next token makes up for.
        sampler_order: the stages that take part, in their order; `STAGES` names all of them, and
            "penalties" and "dry" come before the rest.
        n: answers to generate, 1 to 16.  They share the prompt's blocks in the prefix cache;
            answer i draws with the seed plus i.
        prompt_logprobs: like `logprobs`, for each token of the prompt but the first, which nothing
            precedes.  The prompt is computed anew, whatever the prefix cache holds.
        echo: the prompt's text, without control tokens, stands before the answer's.
        logits_processors: up to 16 functions, for engines in this process: each takes the ids of
            the prompt, those of the output so far and the logits [vocab_size] float32, and returns
            logits.  They act before everything else, so that what they return counts as the
            model's own.  One that raises fails its request.
        constraint: the form the answer must have.  It acts before everything else: the other
            parameters see only the tokens it allows.

    Raises:
        RequestError: a value of the wrong type, not finite or out of range, naming the parameter;
            or parameters of which one would keep another from acting.
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
    penalty_last_n: int = -1
    typical_p: float = 1.0
    top_n_sigma: float = 0.0
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: Sequence[str] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    sampler_order: Sequence[str] = STAGES
    n: int = 1
    prompt_logprobs: int | None = None
    echo: bool = False
    logits_processors: Sequence[LogitsProcessor] = ()
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        checked: dict[str, object] = {
            "stop": checked_strings("stop", self.stop),
            "stop_token_ids": checked_token_ids("stop_token_ids", self.stop_token_ids),
            "dry_sequence_breakers": checked_strings(
                "dry_sequence_breakers", self.dry_sequence_breakers, max_bytes=MAX_BREAKER_BYTES
            ),
            "sampler_order": checked_order(self.sampler_order),
            "logits_processors": checked_processors(self.logits_processors),
        }
        for name, (lowest, highest) in _FLOAT_RANGES.items():
            checked[name] = checked_float(name, getattr(self, name), lowest, highest)
        for name, (low, high) in _INT_RANGES.items():
            checked[name] = checked_int(name, getattr(self, name), low, high)
        for name, (low, high) in _OPTIONAL_INT_RANGES.items():
            if (value := getattr(self, name)) is not None:
                checked[name] = checked_int(name, value, low, high)
        for name in _FLAGS:
            checked[name] = checked_bool(name, getattr(self, name))
        if self.logit_bias is not None:
            checked["logit_bias"] = checked_logit_bias(self.logit_bias)
        if not (self.constraint is None or isinstance(self.constraint, Constraint)):
            raise RequestError("expected a Constraint", parameter="constraint")
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise RequestError(
                f"expected at most max_tokens, {self.max_tokens}, found {self.min_tokens}",
                parameter="min_tokens",
            )
        check_combinations(self)

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
