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
import numpy.typing as npt

from quintet.errors import RequestError
from quintet.tools.likelihood import Floats, Logits, divergences, log_normalizers
from quintet.tools.text_pass import DEFAULT_CONTEXT, Backend, Dtype, TextPass


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
        perplexity_ratio: B's over A's.
        ratio_error: one standard error of it, from the differences token by token: far below those
            of the two perplexities, which the same hard tokens raise together.
        mean_kl: mean over tokens of KL(a || b), in nats.
        kl_error: one standard error of it.
        max_kl: the largest.
        top1_agreement: how often both find the same token likeliest.
    """

    perplexity_a: Perplexity
    perplexity_b: Perplexity
    perplexity_ratio: float
    ratio_error: float
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
    with TextPass(
        model, context=context, backend=backend, dtype=dtype, num_threads=num_threads
    ) as reader:
        losses: list[Floats] = []
        chunks = reader.chunks(text)[:max_chunks]
        for done, chunk in enumerate(chunks):
            for position, logits in reader.logits(chunk, first=context // 2):
                rows, targets = _with_targets(logits, chunk, position)
                losses.append(_losses(rows, log_normalizers(rows), targets))
            if progress is not None:
                progress(done + 1, len(chunks))
    return _perplexity(np.concatenate(losses), len(chunks))


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
    losses_a: list[Floats] = []
    losses_b: list[Floats] = []
    all_divergences: list[Floats] = []
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
            both = zip(
                first.logits(chunk, first=context // 2),
                second.logits(chunk, first=context // 2),
                strict=True,
            )
            for (position, logits_a), (_, logits_b) in both:
                # A padded vocabulary has columns that stand for no token.
                width = min(logits_a.shape[1], logits_b.shape[1])
                rows_a, targets = _with_targets(logits_a[:, :width], chunk, position)
                rows_b, _ = _with_targets(logits_b[:, :width], chunk, position)
                norms_a, norms_b = log_normalizers(rows_a), log_normalizers(rows_b)
                losses_a.append(_losses(rows_a, norms_a, targets))
                losses_b.append(_losses(rows_b, norms_b, targets))
                all_divergences.append(divergences(rows_a, norms_a, rows_b, norms_b))
                agreements += int((rows_a.argmax(axis=1) == rows_b.argmax(axis=1)).sum())
            if progress is not None:
                progress(done + 1, len(chunks))
    of_a, of_b, kl = (np.concatenate(x) for x in (losses_a, losses_b, all_divergences))
    ratio, ratio_error = _exp_mean(of_b - of_a)
    return Comparison(
        perplexity_a=_perplexity(of_a, len(chunks)),
        perplexity_b=_perplexity(of_b, len(chunks)),
        perplexity_ratio=ratio,
        ratio_error=ratio_error,
        mean_kl=float(kl.mean()),
        kl_error=float(kl.std() / math.sqrt(len(kl))),
        max_kl=float(kl.max()),
        top1_agreement=agreements / len(kl),
    )


def _with_targets(
    logits: Logits, chunk: list[int], position: int
) -> tuple[Logits, npt.NDArray[np.intp]]:
    """The rows that a token of the chunk follows, and that token."""
    targets = np.array(chunk[position + 1 : position + 1 + len(logits)], np.intp)
    return logits[: len(targets)], targets


def _losses(logits: Logits, norms: Floats, targets: npt.NDArray[np.intp]) -> Floats:
    """[n]: negative log-likelihoods."""
    return np.asarray(norms - logits[np.arange(len(targets)), targets], np.float64)


def _perplexity(losses: Floats, num_chunks: int) -> Perplexity:
    value, error = _exp_mean(losses)
    return Perplexity(value, error, len(losses), num_chunks)


def _exp_mean(values: Floats) -> tuple[float, float]:
    """exp of the mean, and its standard error."""
    result = math.exp(values.mean())
    return result, result * float(values.std()) / math.sqrt(len(values))
