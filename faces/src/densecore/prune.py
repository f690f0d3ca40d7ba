"""Models with fewer parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from densecore.exceptions import InvalidConfigError, load_errors

__all__ = ["IMPORTANCE_METHODS", "STRATEGIES", "PruneConfig", "prune_model"]

STRATEGIES = ("depth", "width", "attention", "combined")
IMPORTANCE_METHODS = ("magnitude", "l2_norm", "activation")
Progress = Callable[[int, int, str], None]


@dataclass
class PruneConfig:
    """
    What to leave out of a model.

    What a strategy prunes and no target is given for is cut to three quarters.

    Args:
        strategy: "depth" leaves out whole layers, "width" neurons of the feed-forward networks,
            "attention" heads, "combined" layers and neurons, and heads if there is a target.
        target_n_layer: layers to keep.
        importance_method: what is left out is what matters least by the mean magnitude of its
            weights, by their L2 norm, or by what it does while the model reads a text.
        target_ffn_hidden_size: neurons to keep in each feed-forward network.
        target_n_heads: query heads to keep in each layer.
        calibration_text: for "activation"; None: a sample of English.

    Raises:
        InvalidConfigError: a value that is none of these.
    """

    strategy: str = "depth"
    target_n_layer: int | None = None
    importance_method: str = "magnitude"
    target_ffn_hidden_size: int | None = None
    target_n_heads: int | None = None
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
        for name, strategies in (
            ("target_n_layer", ("depth", "combined")),
            ("target_ffn_hidden_size", ("width", "combined")),
            ("target_n_heads", ("attention", "combined")),
        ):
            value = getattr(self, name)
            if value is not None and self.strategy not in strategies:
                raise InvalidConfigError(
                    f"{name}: expected none with strategy {self.strategy!r}, found {value!r}"
                )
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InvalidConfigError(f"{name}: expected a number from 1, found {value!r}")


def prune_model(
    input_path: str | os.PathLike[str],
    output_path: str | os.PathLike[str],
    config: PruneConfig | None = None,
    progress_callback: Progress | None = None,
) -> None:
    """
    Write a model without its least important parts, as a GGUF file that loads everywhere.

    It should be trained on afterwards: what is left out is missed.

    Args:
        input_path: a GGUF file, or a name of Quintet's.
        output_path: the GGUF file to write.
        config: None: a quarter of the layers less.
        progress_callback: gets tensors done, tensors there are, and the name of the present one.

    Raises:
        ModelLoadError: there is no such model, it is broken or of another shape, or the output
            cannot be written.
        InvalidConfigError: a target that the model's shape does not allow.
    """
    from quintet.tools.prune import PruneTargets, prune

    from quintet.hub.resolve import resolve

    config = config or PruneConfig()
    config.check()
    prunes = {
        "depth": {"num_layers"},
        "width": {"ffn_size"},
        "attention": {"num_heads"},
        "combined": {"num_layers", "ffn_size"},
    }[config.strategy]
    with load_errors():
        path = resolve(input_path)
        shape = PruneTargets.of(path)
        targets = PruneTargets(
            num_layers=config.target_n_layer
            or (max(1, shape.num_layers * 3 // 4) if "num_layers" in prunes else None),
            ffn_size=config.target_ffn_hidden_size
            or (shape.ffn_size_near(3 / 4) if "ffn_size" in prunes else None),
            num_heads=config.target_n_heads
            or (shape.num_heads_near(3 / 4) if "num_heads" in prunes else None),
        )
        prune(
            path,
            output_path,
            targets,
            importance=config.importance_method,
            text=config.calibration_text,
            progress=progress_callback,
        )
