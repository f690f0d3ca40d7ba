"""Number formats, and models in other ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum

from woolly.errors import InvalidRequest, ModelLoadFailed, translated


class QuantizationType(Enum):
    """A number format.  Woolly's own come first; the others are those its files may have too."""

    F32 = "F32"
    F16 = "F16"
    Q8_0 = "Q8_0"
    Q5_0 = "Q5_0"
    Q5_1 = "Q5_1"
    Q4_0 = "Q4_0"
    Q4_1 = "Q4_1"
    Q2_K = "Q2_K"
    BF16 = "BF16"
    Q3_K = "Q3_K"
    Q4_K = "Q4_K"
    Q5_K = "Q5_K"
    Q6_K = "Q6_K"
    IQ1_S = "IQ1_S"
    IQ1_M = "IQ1_M"
    IQ2_XXS = "IQ2_XXS"
    IQ2_XS = "IQ2_XS"
    IQ2_S = "IQ2_S"
    IQ3_XXS = "IQ3_XXS"
    IQ3_S = "IQ3_S"
    IQ4_NL = "IQ4_NL"
    IQ4_XS = "IQ4_XS"
    TQ1_0 = "TQ1_0"
    TQ2_0 = "TQ2_0"
    MXFP4 = "MXFP4"
    NVFP4 = "NVFP4"


def quantize_model(
    input_path: str | os.PathLike[str],
    output_path: str | os.PathLike[str],
    quantization: QuantizationType,
    progress_callback: Callable[[float], object] | None = None,
) -> None:
    """
    Write a model in another number format.

    Args:
        progress_callback: called with the share that is done, 0 to 1, from time to time; an
            exception of it ends the work.

    Raises:
        ModelNotFound, ModelLoadFailed: the input is not there, or no model.
        InvalidRequest: a format that models are not written in.
    """
    from quintet.tools.progress import Progress
    from quintet.tools.quantize import quantize

    if not isinstance(quantization, QuantizationType):
        raise InvalidRequest(f"quantization: expected a QuantizationType, found {quantization!r}")

    def report(progress: Progress) -> None:
        if progress_callback is not None:
            progress_callback(progress.num_weights_done / max(1, progress.num_weights))

    with translated():
        try:
            quantize(input_path, output_path, quantization.value, progress=report)
        except OSError as error:
            raise ModelLoadFailed(f"{error.filename or input_path}: {error.strerror}") from error
