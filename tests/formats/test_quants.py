"""Number formats: the bits against the gguf package."""

from __future__ import annotations

import tracemalloc

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from gguf import quants as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quintet.errors import UnsupportedModelError
from quintet.formats import quants
from quintet.formats.ggml_types import DEQUANTIZABLE, GGMLType
from quintet.formats.quants import dequantize, quantize

READABLE = sorted(DEQUANTIZABLE)
WRITABLE = [GGMLType.F32, GGMLType.F16, GGMLType.BF16, GGMLType.Q8_0, GGMLType.Q4_0]

every_format = pytest.mark.parametrize("ggml_type", READABLE, ids=lambda t: t.name)


def random_blocks(ggml_type: GGMLType, rows: int, blocks_per_row: int) -> npt.NDArray[np.uint8]:
    """Random bytes of whole rows, [rows, row_bytes]: every code, many an odd scale."""
    random = np.random.default_rng(int(ggml_type))
    size = (rows, blocks_per_row * ggml_type.block_bytes)
    return random.integers(0, 256, size, dtype=np.uint8)


def oracle_dequantize(raw: npt.NDArray[np.uint8], ggml_type: GGMLType) -> npt.NDArray[np.float32]:
    with np.errstate(all="ignore"):
        return oracle.dequantize(raw, gguf.GGMLQuantizationType(ggml_type))


def assert_same_bits(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> None:
    """Equal bit for bit, except that any NaN equals any other."""
    assert ours.dtype == theirs.dtype == np.float32
    assert ours.shape == theirs.shape
    is_nan = np.isnan(theirs)
    np.testing.assert_array_equal(np.isnan(ours), is_nan)
    np.testing.assert_array_equal(ours[~is_nan].view(np.uint32), theirs[~is_nan].view(np.uint32))


@every_format
def test_random_bytes_dequantise_to_the_bits_of_the_gguf_package(ggml_type: GGMLType) -> None:
    """Whatever a block holds, its values are those the gguf package computes."""
    raw = random_blocks(ggml_type, rows=24, blocks_per_row=100)
    ours = dequantize(raw, ggml_type, (24, 100 * ggml_type.block_size))
    assert_same_bits(ours, oracle_dequantize(raw, ggml_type))


@every_format
def test_a_tensor_longer_than_a_chunk_dequantises_as_one(ggml_type: GGMLType) -> None:
    """The border between two chunks of work leaves no trace."""
    blocks = 2 * quants._WEIGHTS_PER_CHUNK // ggml_type.block_size + 1
    raw = random_blocks(ggml_type, rows=1, blocks_per_row=blocks)
    ours = dequantize(raw, ggml_type, (blocks * ggml_type.block_size,))
    assert_same_bits(ours, oracle_dequantize(raw, ggml_type).reshape(-1))


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4", "BF16"])
def test_quantised_data_dequantises_to_the_bits_of_the_gguf_package(name: str) -> None:
    """Real weights, quantised by the gguf package, come back as it gives them back."""
    weights = np.random.default_rng(7).standard_normal((16, 512), dtype=np.float32)
    raw = oracle.quantize(weights, gguf.GGMLQuantizationType[name])
    ours = dequantize(raw, GGMLType[name], (16, 512))
    assert_same_bits(ours, oracle_dequantize(raw, GGMLType[name]))
    assert np.abs(ours - weights).max() < 0.6


@every_format
def test_every_output_element_is_written(ggml_type: GGMLType) -> None:
    """What was in the memory of the output before does not show through (CVE-2026-53923)."""
    layout, decode = quants._DECODERS[ggml_type]
    blocks = random_blocks(ggml_type, 1, 50).reshape(-1).view(layout)
    first, second = (
        np.full((50, ggml_type.block_size), poison, dtype=np.float32) for poison in (7.5e33, -1e-9)
    )
    with np.errstate(all="ignore"):
        decode(blocks, first)
        decode(blocks, second)
    np.testing.assert_array_equal(first, second)


@every_format
def test_an_empty_tensor_and_an_unaligned_one_dequantise(ggml_type: GGMLType) -> None:
    """No rows give no rows, and the bytes may start anywhere."""
    width = 2 * ggml_type.block_size
    assert dequantize(np.empty(0, np.uint8), ggml_type, (0, width)).shape == (0, width)
    raw = random_blocks(ggml_type, rows=3, blocks_per_row=2)
    shifted = np.concatenate((np.zeros(1, np.uint8), raw.reshape(-1)))[1:]
    shifted.flags.writeable = False
    values = dequantize(shifted, ggml_type, (3, width))
    assert_same_bits(values, oracle_dequantize(raw, ggml_type))
    assert values.flags.writeable


def test_dequantising_takes_little_more_memory_than_its_result() -> None:
    """Peak memory beyond the output is a few megabytes, however large the tensor."""
    raw = random_blocks(GGMLType.Q4_K, rows=256, blocks_per_row=64)
    shape = (256, 64 * 256)
    tracemalloc.start()
    try:
        values = dequantize(raw, GGMLType.Q4_K, shape)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - values.nbytes < 4 * 2**20


@pytest.mark.parametrize(
    "name", [name for name in GGMLType.__members__ if GGMLType[name] not in DEQUANTIZABLE]
)
def test_a_format_without_a_decoder_is_refused_by_name(name: str) -> None:
    """The refusal names the format and lists those that can be read."""
    with pytest.raises(UnsupportedModelError, match=f"'{name}'; supported: BF16, .*Q8_0"):
        dequantize(np.empty(0, np.uint8), GGMLType[name], (0,))


@pytest.mark.parametrize(
    ("raw", "shape", "message"),
    [
        (np.zeros(17, np.uint8), (32,), "expected 18 bytes for Q4_0 of shape \\(32,\\), found 17"),
        (np.zeros(36, np.uint8), (32,), "found 36"),
        (np.zeros(18, np.int8), (32,), "expected uint8, found int8"),
        (np.zeros(18, np.uint8), (31,), "multiple of 32"),
    ],
)
def test_bytes_that_do_not_match_the_shape_are_refused(
    raw: npt.NDArray[np.uint8], shape: tuple[int, ...], message: str
) -> None:
    """Neither a short nor a long buffer is read."""
    with pytest.raises(ValueError, match=message):
        dequantize(raw, GGMLType.Q4_0, shape)


def oracle_quantize(values: npt.NDArray[np.float32], ggml_type: GGMLType) -> npt.NDArray[np.uint8]:
    with np.errstate(all="ignore"):
        return oracle.quantize(values, gguf.GGMLQuantizationType(ggml_type)).view(np.uint8)


@pytest.mark.parametrize("ggml_type", WRITABLE, ids=lambda t: t.name)
def test_quantising_gives_the_bytes_of_the_gguf_package(ggml_type: GGMLType) -> None:
    """Ordinary, zero, tiny and huge rows encode to the same bytes."""
    values = np.random.default_rng(3).standard_normal((40, 256), dtype=np.float32)
    values[0] = 0
    values[1] = 1e-40
    values[2] *= 1e20
    values[3, ::2] = np.arange(128) - 64
    encoded = quantize(values, ggml_type)
    expected = oracle_quantize(values, ggml_type)
    assert encoded.dtype == np.uint8
    np.testing.assert_array_equal(encoded, expected)


@settings(max_examples=100, deadline=None)
@given(
    values=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.sampled_from([32, 64])),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    ),
    ggml_type=st.sampled_from(WRITABLE),
)
def test_quantising_any_finite_values_gives_the_bytes_of_the_gguf_package(
    values: npt.NDArray[np.float32], ggml_type: GGMLType
) -> None:
    """The encoders agree on whatever hypothesis finds."""
    np.testing.assert_array_equal(quantize(values, ggml_type), oracle_quantize(values, ggml_type))


def test_bf16_keeps_nan_and_infinity() -> None:
    """Rounding does not turn a NaN into infinity, whatever its payload."""
    bits = np.array([0x7F800001, 0xFFFFFFFF, 0x7F800000, 0xFF800000, 0x7F7FFFFF], np.uint32)
    values = bits.view(np.float32).reshape(1, -1)
    back = dequantize(quantize(values, GGMLType.BF16), GGMLType.BF16, (1, 5))
    np.testing.assert_array_equal(back[0], [np.nan, np.nan, np.inf, -np.inf, np.inf])
    np.testing.assert_array_equal(
        quantize(values, GGMLType.BF16), oracle_quantize(values, GGMLType.BF16)
    )


def test_values_and_formats_that_cannot_be_encoded_are_refused() -> None:
    """A block cannot hold NaN, a row must be whole blocks, and K-quants have no encoder."""
    with pytest.raises(ValueError, match="finite values for Q8_0"):
        quantize(np.full((1, 32), np.nan, np.float32), GGMLType.Q8_0)
    with pytest.raises(ValueError, match="multiple of 32"):
        quantize(np.zeros((2, 33), np.float32), GGMLType.Q4_0)
    with pytest.raises(ValueError, match="scalar"):
        quantize(np.zeros((), np.float32), GGMLType.F32)
    with pytest.raises(UnsupportedModelError, match="to quantise to 'Q4_K'; supported: BF16"):
        quantize(np.zeros((1, 256), np.float32), GGMLType.Q4_K)
