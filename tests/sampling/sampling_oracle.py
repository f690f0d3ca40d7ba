"""The sampler in plain NumPy and Python: sorts everything, in float64, and remembers nothing.

Written from the papers and pull requests that `quintet.sampling.params` names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from quintet.sampling import RowSampler, SamplingParams, TokenSequences

Array = NDArray[np.float64]


def make_row(
    params: SamplingParams,
    vocab_size: int,
    *,
    prompt: Sequence[int] = (),
    output: Sequence[int] = (),
    eos: Sequence[int] = (),
    seed: int = 0,
    dry_breakers: Sequence[Sequence[int]] = (),
) -> RowSampler:
    """A row sampler that has generated `output`."""
    row = RowSampler(
        params,
        vocab_size=vocab_size,
        eos_ids=frozenset(eos),
        prompt_ids=prompt,
        seed=seed,
        dry_breakers=TokenSequences(dry_breakers) if dry_breakers else None,
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
    dry_breakers: Sequence[Sequence[int]] = (),
) -> Array:
    """Bias, penalties, DRY and min_tokens as SamplingParams documents them."""
    x = logits.astype(np.float64)
    for token_id, bias in (params.logit_bias or {}).items():
        x[token_id] += bias
    history = [*prompt, *output]
    for stage in params.sampler_order:
        if stage == "penalties":
            penalise(x, params, prompt, output)
        elif stage == "dry" and params.dry_multiplier > 0:
            for token_id, length in repeats(history, params, dry_breakers).items():
                x[token_id] -= params.dry_multiplier * params.dry_base ** (
                    length - params.dry_allowed_length
                )
    unmasked = x.copy()
    if len(output) < params.min_tokens:
        x[list(params.stop_token_ids)] = -np.inf
        if not params.ignore_eos:
            x[list(eos)] = -np.inf
        if np.all(x == -np.inf):
            x = unmasked
    return x


def penalise(
    x: Array, params: SamplingParams, prompt: Sequence[int], output: Sequence[int]
) -> None:
    """Repetition, presence and frequency penalties over the newest penalty_last_n tokens."""
    seen = [(token_id, False) for token_id in prompt] + [(token_id, True) for token_id in output]
    if params.penalty_last_n >= 0:
        seen = seen[max(len(seen) - params.penalty_last_n, 0) :]
    generated = [token_id for token_id, is_output in seen if is_output]
    for token_id in {token_id for token_id, _ in seen}:
        r = params.repetition_penalty
        x[token_id] = x[token_id] / r if x[token_id] > 0 else x[token_id] * r
    for token_id in set(generated):
        count = generated.count(token_id)
        x[token_id] -= params.presence_penalty + params.frequency_penalty * count


def repeats(
    tokens: Sequence[int], params: SamplingParams, breakers: Sequence[Sequence[int]]
) -> dict[int, int]:
    """Token to the length of the longest repetition it would continue, found by trying all."""
    if params.dry_penalty_last_n >= 0:
        tokens = tokens[max(len(tokens) - params.dry_penalty_last_n, 0) :]
    n, limit = len(tokens), len(tokens)
    singles = {breaker[0] for breaker in breakers if len(breaker) == 1}
    for start in reversed(range(n)):
        found = [b for b in breakers if list(tokens[start : start + len(b)]) == list(b)]
        if found:
            limit = n - start - max(map(len, found))
            break
    longest: dict[int, int] = {}
    for following in range(1, n):  # tokens[following] came after an earlier occurrence
        length = 0
        while (
            length < min(following, limit)
            and tokens[following - 1 - length] == tokens[n - 1 - length]
        ):
            length += 1
        token_id = tokens[following]
        if length >= params.dry_allowed_length and token_id not in singles:
            longest[token_id] = max(longest.get(token_id, 0), length)
    return longest if n > params.dry_allowed_length else {}


def distribution(x: Array, params: SamplingParams) -> dict[int, float]:
    """Token id to probability after the stages that choose, in their order; XTC is none or sure."""
    order = np.lexsort((np.arange(x.size), -x))  # largest first, of equal ones the lower id
    if params.temperature == 0:
        return {int(order[0]): 1.0}
    order = order[x[order] > -np.inf]
    temperature = 1.0
    for stage in params.sampler_order:
        p = softmax(x[order], temperature)
        if stage == "top_n_sigma" and params.top_n_sigma > 0:
            order = order[x[order] >= x[order[0]] - params.top_n_sigma * np.std(x[order])]
        elif stage == "temperature":
            temperature = params.temperature
            if params.dynatemp_range > 0 and order.size > 1:
                share = float(-(p * np.log(np.maximum(p, 1e-300))).sum() / math.log(order.size))
                low = max(0.0, temperature - params.dynatemp_range)
                high = temperature + params.dynatemp_range
                temperature = low + (high - low) * share**params.dynatemp_exponent
        elif stage == "top_k" and params.top_k > 0:
            order = order[: params.top_k]
        elif stage == "typical_p" and params.typical_p < 1:
            order = typical(order, p, params.typical_p)
        elif stage == "top_p" and params.top_p < 1:
            order = order[: int(np.searchsorted(np.cumsum(p), params.top_p)) + 1]
        elif stage == "min_p" and params.min_p > 0:
            order = order[p >= params.min_p * p[0]]
        elif stage == "xtc" and params.xtc_probability == 1:
            order = order[max(int((p >= params.xtc_threshold).sum()) - 1, 0) :]
    p = softmax(x[order], temperature)
    return {int(i): float(q) for i, q in zip(order, p, strict=True)}


def softmax(x: Array, temperature: float) -> Array:
    """Of finite logits, the largest first."""
    p = np.exp((x - x[0]) / max(temperature, 1e-30))
    return p / p.sum()


def typical(order: NDArray[np.intp], p: Array, mass: float) -> NDArray[np.intp]:
    """Meister et al. 2022, section 3: the fewest tokens near the entropy that reach `mass`."""
    surprise = -np.log(np.maximum(p, 1e-300))
    distance = np.abs(surprise - (p * surprise).sum())
    ranked = np.lexsort((order, distance))
    size = int(np.searchsorted(np.cumsum(p[ranked]), mass)) + 1
    return order[np.sort(ranked[:size])]


def mirostat(
    rows: Sequence[Array], params: SamplingParams, seed: int, vocab_size: int
) -> Iterator[tuple[int, dict[int, float]]]:
    """Basu et al. 2021, algorithm 1, and its version 2: tokens, and what each was drawn from."""
    mu = 2 * params.mirostat_tau
    for position, x in enumerate(rows):
        order = np.lexsort((np.arange(x.size), -x))
        p = softmax(x[order], params.temperature)
        if params.mirostat == 1:
            t = np.log(np.arange(2, 101) / np.arange(1, 100))[: p.size - 1]
            b = np.log(p[:99] / p[1:100]) if p.size >= 100 else np.log(p[:-1] / p[1:])
            s = float((t * b).sum() / (t * t).sum())
            factor = (s - 1) * 2**mu / (1 - float(vocab_size) ** (1 - s))
            size = int(max(1, min(math.exp(min(math.log(factor) / s, 99)), vocab_size)))
        else:
            size = max(1, int((-np.log2(p) <= mu).sum()))
        order, p = order[:size], p[:size] / p[:size].sum()
        by_id = np.argsort(order)
        edges = np.cumsum(p[by_id])
        place = int(np.searchsorted(edges, uniform(seed, position) * edges[-1], side="right"))
        chosen = by_id[place]
        yield int(order[chosen]), {int(i): float(q) for i, q in zip(order, p, strict=True)}
        mu -= params.mirostat_eta * (-math.log2(p[chosen]) - params.mirostat_tau)


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


def uniform(seed: int, position: int, stream: int = 0) -> float:
    """The number in [0, 1) that decides at `position`: the token (stream 0), or XTC (stream 1)."""
    mask = 2**32 - 1
    counter = [position & mask, position >> 32, stream, 0]
    words = philox4x32_10(counter, [seed & mask, seed >> 32])
    return ((words[0] << 32 | words[1]) >> 11) / 2**53
