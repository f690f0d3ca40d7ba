"""How well a model foretells a text, and how far two models are apart on it.

As llama.cpp's `llama-perplexity` does it: chunks of `context` tokens, and of each chunk the second
half counts, since tokens at its start are foretold from little.  So figures for the same model,
text and context can be compared.

Source: tools/perplexity/perplexity.cpp of ggml-org/llama.cpp.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from quintet.errors import RequestError
from quintet.tools.text_pass import DEFAULT_CONTEXT, Backend, Dtype, TextPass, log_softmax


@dataclass(frozen=True, slots=True)
class Perplexity:
    """
    The outcome.

    Args:
        value: exp of the mean negative log-likelihood per token.
        error: one standard error of `value`.
        num_tokens: that counted.
        num_chunks: read.
    """

    value: float
    error: float
    num_tokens: int
    num_chunks: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    Model `b` against model `a`, token by token.

    Args:
        perplexity_a, perplexity_b: of each.
        mean_kl: mean over tokens of KL(a || b), in nats.
        kl_error: one standard error of it.
        max_kl: the largest.
        top1_agreement: how often both find the same token likeliest.
    """

    perplexity_a: Perplexity
    perplexity_b: Perplexity
    mean_kl: float
    kl_error: float
    max_kl: float
    top1_agreement: float


def perplexity(
    model: str | os.PathLike[str],
    text: str,
    *,
    context: int = DEFAULT_CONTEXT,
    max_chunks: int | None = None,
    backend: Backend = "auto",
    dtype: Dtype = "auto",
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Perplexity:
    """
    The perplexity of a model on a text.

    Args:
        model: a GGUF file or a Hugging Face directory.
        context, max_chunks: of the text; see above.
        backend, dtype, num_threads: see `TextPass`.
        progress: called with chunks done and chunks in all.

    Raises: as for `TextPass`, and
        RequestError: the text is shorter than a chunk.
    """
    losses: list[float] = []
    with TextPass(
        model, context=context, backend=backend, dtype=dtype, num_threads=num_threads
    ) as reader:
        chunks = reader.chunks(text)[:max_chunks]
        for done, chunk in enumerate(chunks):
            for position, logits in reader.logits(chunk, first=context // 2):
                found = log_softmax(logits)
                targets = chunk[position + 1 : position + 1 + len(found)]
                losses.extend((-found[np.arange(len(targets)), targets]).tolist())
            if progress is not None:
                progress(done + 1, len(chunks))
    return _perplexity(losses, len(chunks))


def compare(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    text: str,
    *,
    context: int = DEFAULT_CONTEXT,
    max_chunks: int | None = None,
    backend: Backend = "auto",
    dtype: Dtype = "auto",
    num_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """
    How far model `b`, say a quantised one, is from model `a` on a text.

    Args and raises: as for `perplexity`, and
        RequestError: the models' vocabularies differ.
    """
    losses: tuple[list[float], list[float]] = ([], [])
    divergences: list[float] = []
    agreements = 0
    with (
        TextPass(
            a, context=context, backend=backend, dtype=dtype, num_threads=num_threads
        ) as first,
        TextPass(
            b, context=context, backend=backend, dtype=dtype, num_threads=num_threads
        ) as second,
    ):
        chunks = first.chunks(text)[:max_chunks]
        if second.chunks(text)[:max_chunks] != chunks:
            raise RequestError(
                f"expected two models of one vocabulary; {first.path.name} and {second.path.name} "
                "cut the text into other tokens",
                parameter="b",
            )
        for done, chunk in enumerate(chunks):
            rows = zip(
                first.logits(chunk, first=context // 2),
                second.logits(chunk, first=context // 2),
                strict=True,
            )
            for (position, logits_a), (_, logits_b) in rows:
                # A padded vocabulary has columns that stand for no token.
                width = min(logits_a.shape[1], logits_b.shape[1])
                log_a = log_softmax(logits_a[:, :width])
                log_b = log_softmax(logits_b[:, :width])
                targets = chunk[position + 1 : position + 1 + len(log_a)]
                places = np.arange(len(targets))
                losses[0].extend((-log_a[places, targets]).tolist())
                losses[1].extend((-log_b[places, targets]).tolist())
                log_a, log_b = log_a[: len(targets)], log_b[: len(targets)]
                divergences.extend((np.exp(log_a) * (log_a - log_b)).sum(axis=1).tolist())
                agreements += int((log_a.argmax(axis=1) == log_b.argmax(axis=1)).sum())
            if progress is not None:
                progress(done + 1, len(chunks))
    return Comparison(
        _perplexity(losses[0], len(chunks)),
        _perplexity(losses[1], len(chunks)),
        float(np.mean(divergences)),
        float(np.std(divergences) / math.sqrt(len(divergences))),
        float(np.max(divergences)),
        agreements / len(divergences),
    )


def _perplexity(losses: list[float], num_chunks: int) -> Perplexity:
    value = math.exp(np.mean(losses))
    return Perplexity(
        value, value * float(np.std(losses)) / math.sqrt(len(losses)), len(losses), num_chunks
    )
