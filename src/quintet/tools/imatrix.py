"""Measures an importance matrix: the squared inputs that each column of each matrix meets.

The native engine reads the text as it would read a prompt and shows what its matrices are given;
of a mixture of experts what each expert is given, so that an expert the text never chose has none.
The output matrix is left out, as llama.cpp leaves it out: a sample of one text says little about
the whole vocabulary.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from quintet.tools.imatrix_file import Importances
from quintet.tools.text_pass import DEFAULT_CONTEXT, Dtype, TextPass


def compute_imatrix(
    model: str | os.PathLike[str],
    text: str,
    *,
    context: int = DEFAULT_CONTEXT,
    max_chunks: int | None = None,
    dataset: str = "",
    dtype: Dtype = "auto",
    num_threads: int | None = None,
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
        dtype, num_threads: see `TextPass`.
        progress: called with chunks done and chunks in all.

    Raises: as for `TextPass`, and
        RequestError: the text is shorter than a chunk.
    """
    with TextPass(
        model, context=context, dtype=dtype, num_threads=num_threads, observed=_is_matrix
    ) as text_pass:
        sums = _Sums(text_pass.shapes)
        chunks = text_pass.chunks(text)[:max_chunks]
        for done, chunk in enumerate(chunks):
            if progress is not None:
                progress(done, len(chunks))
            text_pass.observe(chunk, sums.add)
        if progress is not None:
            progress(len(chunks), len(chunks))
    return Importances(
        {name: values.astype(np.float32) for name, values in sums.squares.items()},
        {name: values.astype(np.float32) for name, values in sums.counts.items()},
        dataset=dataset,
        num_chunks=len(chunks),
        chunk_size=context,
    )


def _is_matrix(name: str) -> bool:
    return name.endswith(".weight") and not name.endswith("_norm.weight")


class _Sums:
    """
    Squared inputs by tensor: `squares` [num_matrices, row_size], `counts` [num_matrices].

    Args:
        shapes: of the tensors to count for.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.squares: dict[str, npt.NDArray[np.float64]] = {}
        self.counts: dict[str, npt.NDArray[np.float64]] = {}
        self._shapes = shapes

    def add(self, names: tuple[str, ...], matrix: int, rows: npt.NDArray[np.float32]) -> None:
        """See `Observer`."""
        square = np.einsum("ij,ij->j", rows, rows)
        for name in names:
            if name not in self._shapes:
                continue  # made on reading of one that has other columns
            if name not in self.squares:
                *matrices, _, width = self._shapes[name]
                self.squares[name] = np.zeros((math.prod(matrices), width))
                self.counts[name] = np.zeros(math.prod(matrices))
            self.squares[name][matrix] += square
            self.counts[name][matrix] += len(rows)
