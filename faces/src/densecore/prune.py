"""Models with fewer parts."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from densecore.exceptions import InvalidConfigError, load_errors

if TYPE_CHECKING:
    from quintet.tools.progress import Progress

__all__ = ["IMPORTANCE_METHODS", "STRATEGIES", "PruneConfig", "prune_model"]

STRATEGIES = ("depth", "width", "attention", "combined")
IMPORTANCE_METHODS = ("magnitude", "l2_norm", "activation")

_SAMPLE_CONTEXT = 32  # tokens read at a time, so that the sample is some of them
_SAMPLE = (
    "The river rises in the hills north of the town and runs past the old mill before it reaches "
    "the sea. In spring, when the snow melts, the meadows on both sides are under water, and the "
    "farmers move their sheep to higher ground. Anna lived in the last house of the village. Every "
    'morning she walked down to the bridge, counted the boats and asked herself: "What will today '
    'bring?" Her brother, who studied physics, said that nobody could know; a system of three '
    "bodies is enough to make a prediction fail. To make bread you need flour, water, salt and "
    "yeast. Mix them, let the dough rest for two hours, and bake it at 230 degrees for 35 minutes. "
    "A function that calls itself must have a case in which it does not: otherwise it never ends. "
    "In 1969 two people walked on the Moon. They came back with 21 kilograms of rock, and with "
    "photographs of a small blue planet."
)


@dataclass
class PruneConfig:
    """
    What to leave out of a model.

    Args:
        strategy: "depth" leaves out whole layers, "width" neurons of the feed-forward networks,
            "attention" key-value heads with their query heads, "combined" all three.
        target_n_layer: layers to keep; None: three quarters.
        importance_method: what goes is what matters least by the mean magnitude of its weights,
            by their L2 norm, or by what it does while the model reads a text.
        width_ratio, head_ratio: shares of neurons and of heads to keep.
        calibration_text: for "activation"; None: a page of English.

    Raises:
        InvalidConfigError: a value that is none of these, or one that its strategy has no use for.
    """

    strategy: str = "depth"
    target_n_layer: int | None = None
    importance_method: str = "magnitude"
    width_ratio: float = 0.75
    head_ratio: float = 0.75
    calibration_text: str | None = None

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """See the class; what was set later counts as well."""
        for name, known in (("strategy", STRATEGIES), ("importance_method", IMPORTANCE_METHODS)):
            value = getattr(self, name)
            if value not in known:
                raise InvalidConfigError(
                    f"{name}: expected one of {', '.join(known)}, found {value!r}"
                )
        if self.target_n_layer is not None and self.strategy not in ("depth", "combined"):
            raise InvalidConfigError(
                f"target_n_layer: expected none with strategy {self.strategy!r}, "
                f"found {self.target_n_layer!r}"
            )
        if self.calibration_text is not None and self.importance_method != "activation":
            raise InvalidConfigError(
                'calibration_text: expected none but with importance_method "activation"'
            )


def prune_model(
    input_path: str | os.PathLike[str],
    output_path: str | os.PathLike[str],
    config: PruneConfig | None = None,
    progress_callback: Callable[[int, int, str], None] | None = None,
) -> None:
    """
    Write a model without its least important parts, as a GGUF file.

    It is meant to be trained on: what has gone is missed.  llama.cpp opens it, but with fewer heads
    of qwen2, phi3 or olmo2: see docs/prune.md.

    Args:
        input_path: a GGUF file, a Hugging Face directory, or a name of Quintet's.
        output_path: the GGUF file to write.
        config: None: a quarter of the layers less.
        progress_callback: gets tensors done, tensors there are, and the name of the present one.

    Raises:
        ModelLoadError: there is no such model, it is broken or of another architecture, or the
            output cannot be written.
        InvalidConfigError: what the model's shape does not allow; an output that is the input.
    """
    from quintet.hub.resolve import resolve

    config = config or PruneConfig()
    config.check()
    text, context = config.calibration_text, None
    if config.importance_method == "activation" and text is None:
        text, context = _SAMPLE, _SAMPLE_CONTEXT

    def tell(progress: Progress) -> None:
        if progress_callback is not None:
            progress_callback(progress.num_tensors_done, progress.num_tensors, progress.tensor)

    tool = importlib.import_module("quintet.tools.prune")
    with load_errors():
        tool.prune(
            resolve(input_path),
            output_path,
            strategy=config.strategy,
            target_n_layer=config.target_n_layer,
            width_ratio=config.width_ratio,
            head_ratio=config.head_ratio,
            importance=config.importance_method,
            text=text,
            context=context,
            progress=tell,
        )
