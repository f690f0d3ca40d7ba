"""What pruning did, or would do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quintet.tools.perplexity import Perplexity
from quintet.tools.prune.anatomy import Sizes
from quintet.tools.prune.scores import Importance
from quintet.tools.prune.sizes import Strategy


@dataclass(frozen=True, slots=True)
class Reencoded:
    """A matrix whose values were rounded anew; `before` and `after` are its number formats."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class PruneReport:
    """
    What was written, or would be.

    Args:
        path: the output.
        strategy, importance: as asked for.
        before, after: sizes of the model.
        removed_layers: blocks that went, by their old number.
        num_parameters_before, num_parameters_after: weights of all tensors.
        source_bytes, file_bytes: sizes of the input's and of the output's files.
        reencoded: tensors that lost columns within blocks of weights, or were multiplied.
        llama_cpp_refuses: why llama.cpp will not open the output; "" where it will.
        perplexity_before, perplexity_after: on the text; None without one or in a dry run.
        seconds: the work took.
    """

    path: Path
    strategy: Strategy
    importance: Importance
    before: Sizes
    after: Sizes
    removed_layers: tuple[int, ...]
    num_parameters_before: int
    num_parameters_after: int
    source_bytes: int
    file_bytes: int
    reencoded: tuple[Reencoded, ...]
    llama_cpp_refuses: str
    perplexity_before: Perplexity | None
    perplexity_after: Perplexity | None
    seconds: float
