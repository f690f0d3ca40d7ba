"""From logits to a token: the protocol that users implement, and two samplers of ours.

Sources: Basu et al. 2021, arXiv:2007.14966, algorithm 2 (Mirostat 2.0); Holtzman et al. 2020,
arXiv:1904.09751 (top-p).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from woolly.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quintet.sampling.params import LogitsProcessor


@runtime_checkable
class Sampler(Protocol):
    """Picks tokens; give one to `Engine.create_session`."""

    def sample(
        self, logits: NDArray[np.float32], temperature: float, top_p: float, top_k: int
    ) -> int:
        """
        The next token.

        Args:
            logits: [vocab_size] float32, its own copy.
            temperature, top_p: as `Session.generate` was given them.
            top_k: 0: no limit.
        """


class DefaultSampler:
    """
    Temperature, top-k and top-p, as sessions without a sampler of their own draw.

    Args:
        seed: makes the draws repeatable; None: different ones each time.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = random.SystemRandom().getrandbits(64) if seed is None else seed
        self._rows: tuple[tuple[float, float, int, int], Any] | None = None
        self._num_drawn = 0

    def sample(
        self, logits: NDArray[np.float32], temperature: float, top_p: float, top_k: int
    ) -> int:
        """See Sampler."""
        import numpy as np

        from quintet.sampling.params import SamplingParams
        from quintet.sampling.sampler import RowSampler, sample

        row = np.array(logits, np.float32, ndmin=2)
        key = (temperature, top_p, top_k, row.shape[1])
        if self._rows is None or self._rows[0] != key:
            limits = {"top_p": top_p, "top_k": top_k} if temperature > 0 else {}
            params = SamplingParams(max_tokens=None, temperature=temperature, **limits)  # type: ignore[arg-type]
            seed = self.seed + self._num_drawn  # a stream of its own for other parameters
            sampler = RowSampler(
                params, vocab_size=row.shape[1], eos_ids=frozenset(), prompt_ids=(), seed=seed
            )
            self._rows = key, sampler
        self._num_drawn += 1
        drawn = sample(row, [self._rows[1]])[0]
        if drawn.error is not None:
            self._rows = None
            raise InvalidRequest("logits: expected numbers, found NaN, infinity or nothing finite")
        return drawn.token_id


class MirostatSampler:
    """
    Keeps the surprise of the tokens near a target, by feedback (Mirostat 2.0).

    Args:
        tau: the target, in bits.
        eta: the share of an error that the next token makes up for.
        mu: the largest surprise allowed now, in bits; None: twice `tau`.
        seed: makes the draws repeatable.
    """

    def __init__(
        self,
        tau: float = 5.0,
        eta: float = 0.1,
        mu: float | None = None,
        seed: int | None = None,
    ) -> None:
        if not (tau > 0 and 0 <= eta <= 1):
            raise InvalidRequest(f"expected tau above 0 and eta from 0 to 1, found {tau}, {eta}")
        self.tau = tau
        self.eta = eta
        self.mu = 2 * tau if mu is None else mu
        self._random = random.Random(seed)  # noqa: S311 - no secrets here

    def sample(
        self, logits: NDArray[np.float32], temperature: float, top_p: float, top_k: int
    ) -> int:
        """See Sampler; `top_p` and `top_k` are what Mirostat stands in for."""
        import numpy as np

        scores = np.asarray(logits, np.float64)
        if temperature <= 0:
            return int(scores.argmax())
        scores = (scores - scores.max()) / temperature
        order = np.argsort(-scores, kind="stable")
        probabilities = np.exp(scores[order])
        probabilities /= probabilities.sum()
        with np.errstate(divide="ignore"):
            surprise = -np.log2(probabilities)
        num_kept = max(1, int(np.searchsorted(surprise, self.mu, side="right")))
        kept = probabilities[:num_kept] / probabilities[:num_kept].sum()
        place = int(np.searchsorted(np.cumsum(kept), self._random.random(), side="right"))
        place = min(place, num_kept - 1)
        self.mu -= self.eta * (-float(np.log2(kept[place])) - self.tau)
        return int(order[place])


def forcing(sampler: Sampler, temperature: float, top_p: float, top_k: int) -> LogitsProcessor:
    """A logits processor that leaves only the token which the sampler picks."""
    import numpy as np

    def process(
        prompt_ids: Sequence[int], output_ids: Sequence[int], logits: NDArray[np.float32]
    ) -> NDArray[Any]:
        token_id = int(sampler.sample(logits.copy(), temperature, top_p, top_k))
        if not 0 <= token_id < len(logits):
            raise ValueError(f"the sampler picked {token_id}, of {len(logits)} tokens")
        forced = np.full(len(logits), -np.inf, np.float32)
        forced[token_id] = 0.0
        return forced

    return process
