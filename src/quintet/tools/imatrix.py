"""Measures an importance matrix: the squared inputs that each column of each matrix meets.

Runs the reference executor, which can be watched op by op.  It takes the whole model in float32
and reads some tens of tokens per second and billion weights: an hour of CPU for a large model,
seconds for a small one.  The output matrix is left out, as llama.cpp leaves it out: a sample of
one text says little about the whole vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from quintet import graph
from quintet.tools.imatrix_file import Importances
from quintet.tools.text_pass import DEFAULT_CONTEXT, TextPass

_LEFT_OUT = ("output.weight", "token_embd.weight")


def compute_imatrix(
    model: str | os.PathLike[str],
    text: str,
    *,
    context: int = DEFAULT_CONTEXT,
    max_chunks: int | None = None,
    dataset: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Importances:
    """
    The importances of a model's matrices on a text.

    Args:
        model: a GGUF file or a Hugging Face directory, as exact as there is.
        text: like what the model will be used on.
        context: tokens of a chunk.
        max_chunks: read no more of the text than this.
        dataset: what the text is called in the file.
        progress: called with chunks done and chunks in all.

    Raises: as for `TextPass`, and
        RequestError: the text is shorter than a chunk.
    """
    sums: dict[str, npt.NDArray[np.float64]] = {}
    counts: dict[str, int] = {}

    def observe(op: graph.Op, values: Any) -> None:
        if not isinstance(op, graph.Linear) or op.weight in _LEFT_OUT:
            return
        x = values[op.x.node]
        square = np.einsum("ij,ij->j", x, x, dtype=np.float64)
        sums[op.weight] = sums.get(op.weight, 0.0) + square
        counts[op.weight] = counts.get(op.weight, 0) + len(x)

    with TextPass(model, context=context, observe=observe) as text_pass:
        chunks = text_pass.chunks(text)[:max_chunks]
        for done, chunk in enumerate(chunks):
            if progress is not None:
                progress(done, len(chunks))
            # Without logits beyond the last: only what the matrices are given matters.
            for _ in text_pass.logits(chunk, first=len(chunk) - 1):
                pass
        if progress is not None:
            progress(len(chunks), len(chunks))
    return Importances(
        {name: values[np.newaxis].astype(np.float32) for name, values in sums.items()},
        {name: np.array([count], np.float32) for name, count in counts.items()},
        dataset=dataset,
        num_chunks=len(chunks),
        chunk_size=context,
    )
