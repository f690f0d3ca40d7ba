"""Number formats: ids and sizes."""

from __future__ import annotations

import gguf
import pytest

from quintet.errors import UnsupportedModelError
from quintet.formats.ggml_types import DEQUANTIZABLE, GGMLType

REMOVED = [
    name
    for name in GGMLType.__members__
    if name in {"Q4_2", "Q4_3"} or name.startswith(("Q4_0_", "IQ4_NL_"))
]


@pytest.mark.parametrize("oracle", list(gguf.GGMLQuantizationType), ids=lambda o: o.name)
def test_ids_and_block_sizes_are_those_of_the_gguf_package(
    oracle: gguf.GGMLQuantizationType,
) -> None:
    """Every format the gguf package knows has its id, block size and block bytes here."""
    ours = GGMLType[oracle.name]
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[oracle]
    if ours is GGMLType.Q8_1:  # the package says 4 + 4 + 32; block_q8_1 has two float16: 2 + 2 + 32
        block_bytes = 36
    assert (int(ours), ours.block_size, ours.block_bytes) == (oracle, block_size, block_bytes)


@pytest.mark.parametrize("name", REMOVED)
def test_a_removed_format_is_refused_by_name(name: str) -> None:
    """A format llama.cpp gave up is named in the refusal, with what can be read instead."""
    with pytest.raises(UnsupportedModelError, match=rf"number format '{name}'.*Q4_K"):
        GGMLType[name].num_bytes((256,))


def test_the_formats_of_model_files_can_be_dequantised() -> None:
    """The promised formats, no more and no fewer."""
    promised = (
        "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 NVFP4 "
        "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S TQ1_0 TQ2_0"
    )
    assert {known.name for known in DEQUANTIZABLE} == set(promised.split())


@pytest.mark.parametrize(
    ("ggml_type", "shape", "num_bytes"),
    [
        (GGMLType.F32, (), 4),
        (GGMLType.F32, (0, 7), 0),
        (GGMLType.F16, (3, 5), 30),
        (GGMLType.Q4_0, (2, 64), 72),
        (GGMLType.Q6_K, (2, 3, 256), 1260),
        (GGMLType.MXFP4, (4, 32), 68),
    ],
)
def test_num_bytes_counts_whole_blocks(
    ggml_type: GGMLType, shape: tuple[int, ...], num_bytes: int
) -> None:
    """A tensor takes its blocks, and nothing else."""
    assert ggml_type.num_bytes(shape) == num_bytes


@pytest.mark.parametrize(
    ("ggml_type", "shape", "message"),
    [
        (GGMLType.Q4_0, (64, 31), "multiple of 32 weights for Q4_0, found 31"),
        (GGMLType.Q4_K, (256, 128), "multiple of 256 weights for Q4_K, found 128"),
        (GGMLType.Q4_0, (), "found 1"),
        (GGMLType.F32, (-1, 4), "at least 0"),
        (GGMLType.F32, (2**62,), "below 2\\^63"),
        (GGMLType.I8, (2**32, 2**32), "below 2\\^63"),
        (GGMLType.F32, (2**63, 0), "below 2\\^63"),
    ],
)
def test_num_bytes_refuses_impossible_shapes(
    ggml_type: GGMLType, shape: tuple[int, ...], message: str
) -> None:
    """Broken rows and sizes that overflow 64 bits are errors, not wrapped numbers."""
    with pytest.raises(ValueError, match=message):
        ggml_type.num_bytes(shape)
