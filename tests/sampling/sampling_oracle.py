"""The sampler in plain NumPy and Python integers: sorts everything, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quintet.sampling import RowSampler, SamplingParams


def make_row(
    params: SamplingParams,
    vocab_size: int,
    *,
    prompt: Sequence[int] = (),
    output: Sequence[int] = (),
    eos: Sequence[int] = (),
    seed: int = 0,
) -> RowSampler:
    """A row sampler that has generated `output`."""
    row = RowSampler(
        params, vocab_size=vocab_size, eos_ids=frozenset(eos), prompt_ids=prompt, seed=seed
    )
    for token_id in output:
        row.accept(token_id)
    return row


def processed_logits(
    logits: NDArray[np.float32],
    params: SamplingParams,
    prompt: Sequence[int] = (),
    output: Sequence[int] = (),
    eos: Sequence[int] = (),
) -> NDArray[np.float64]:
    """Bias, min_tokens and penalties as SamplingParams documents them."""
    x = logits.astype(np.float64)
    for token_id, bias in (params.logit_bias or {}).items():
        x[token_id] += bias
    unmasked = x.copy()
    if len(output) < params.min_tokens:
        x[list(params.stop_token_ids)] = -np.inf
        if not params.ignore_eos:
            x[list(eos)] = -np.inf
        if np.all(x == -np.inf):
            x = unmasked
    for token_id in set(prompt) | set(output):
        r = params.repetition_penalty
        x[token_id] = x[token_id] / r if x[token_id] > 0 else x[token_id] * r
    for token_id in set(output):
        count = list(output).count(token_id)
        x[token_id] -= params.presence_penalty + params.frequency_penalty * count
    return x


def distribution(x: NDArray[np.float64], params: SamplingParams) -> dict[int, float]:
    """Token id to probability after temperature, top_k, top_p and min_p."""
    order = np.lexsort((np.arange(x.size), -x))  # largest first, of equal ones the lower id
    if params.temperature == 0:
        return {int(order[0]): 1.0}
    order = order[x[order] > -np.inf]
    if params.top_k > 0:
        order = order[: params.top_k]
    p = np.exp((x[order] - x[order[0]]) / params.temperature)
    p /= p.sum()
    if params.top_p < 1:
        size = int(np.searchsorted(np.cumsum(p), params.top_p)) + 1
        order, p = order[:size], p[:size] / p[:size].sum()
    if params.min_p > 0:
        kept = p >= params.min_p * p[0]
        order, p = order[kept], p[kept] / p[kept].sum()
    return {int(i): float(q) for i, q in zip(order, p, strict=True)}


def assert_same_distribution(
    found: dict[int, float], wanted: dict[int, float], tolerance: float = 2e-5
) -> None:
    """Equal up to float32 weights: also at a cut, where a token at the very edge may go either way.

    A weight carries the rounding of (logit - max) / temperature, at most 80 * 2**-23 = 1e-5.
    """
    for token_id in found.keys() | wanted.keys():
        assert abs(found.get(token_id, 0.0) - wanted.get(token_id, 0.0)) <= tolerance * max(
            wanted.get(token_id, 0.0), 1e-3
        )


def philox4x32_10(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Salmon et al. 2011, section 4: the S-box of figure 3, ten rounds."""
    mask = 2**32 - 1
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return [c0, c1, c2, c3]


def uniform(seed: int, position: int) -> float:
    """The number in [0, 1) that decides the token at `position`."""
    mask = 2**32 - 1
    words = philox4x32_10([position & mask, position >> 32, 0, 0], [seed & mask, seed >> 32])
    return ((words[0] << 32 | words[1]) >> 11) / 2**53
