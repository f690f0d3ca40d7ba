"""Models in fewer bits."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from densecore.exceptions import InvalidConfigError, load_errors

__all__ = ["FORMATS", "QuantConfig", "quantize_model"]

FORMATS = ("q4_k_m", "q5_k_m", "q8_0", "q4_0")
_BLOCK_SIZE = 32
Progress = Callable[[int, int, str], None]


@dataclass
class QuantConfig:
    """
    How a model is quantised.

    Args:
        format: one of FORMATS.
        algorithm: what makes that format, which is named like it.
        block_size: weights that share a scale: 32 in each of the formats, whose larger blocks
            are made of such.

    Raises:
        InvalidConfigError: another format or block size, or an algorithm of another format.
    """

    format: str = "q4_k_m"
    algorithm: str = "q4_k_m"
    block_size: int = _BLOCK_SIZE

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """See the class; what was set later counts as well."""
        for name in ("format", "algorithm"):
            value = getattr(self, name)
            if value not in FORMATS:
                raise InvalidConfigError(
                    f"{name}: expected one of {', '.join(FORMATS)}, found {value!r}"
                )
        if self.block_size != _BLOCK_SIZE:
            raise InvalidConfigError(
                f"block_size: expected {_BLOCK_SIZE}, as the formats have it, "
                f"found {self.block_size!r}"
            )

    @property
    def type(self) -> str:
        """The quantisation type: of `format`, or of `algorithm` where only that was chosen.

        Raises:
            InvalidConfigError: they were chosen differently.
        """
        default = FORMATS[0]
        chosen = {self.format, self.algorithm} - {default} or {default}
        if len(chosen) > 1:
            raise InvalidConfigError(
                f"algorithm: expected that of format {self.format!r}, found {self.algorithm!r}"
            )
        return chosen.pop().upper()


def quantize_model(
    input_path: str | os.PathLike[str],
    output_path: str | os.PathLike[str],
    config: QuantConfig | None = None,
    progress_callback: Progress | None = None,
) -> None:
    """
    Write a model in fewer bits.

    Args:
        input_path: a GGUF file, a Hugging Face directory, or a name of Quintet's.
        output_path: the GGUF file to write.
        config: None: q4_k_m.
        progress_callback: gets tensors done, tensors there are, and the name of the present one.

    Raises:
        ModelLoadError: there is no such model, it is broken, or the output cannot be written.
        InvalidConfigError: see `QuantConfig`; also an output that is the input.
    """
    from quintet.hub.resolve import resolve
    from quintet.tools import progress as steps
    from quintet.tools import quantize as tool

    config = config or QuantConfig()
    config.check()

    def tell(progress: steps.Progress) -> None:
        if progress_callback is not None:
            progress_callback(progress.num_tensors_done, progress.num_tensors, progress.tensor)

    with load_errors():
        tool.quantize(resolve(input_path), output_path, config.type, progress=tell)
