"""What each number format takes in memory, and formats rewritten for the layout of another."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from quintet._native import Layout, Plan, SourceType
from quintet.backends._packing import PackedWeights, choose_layout
from quintet.backends._widening import WIDENED
from quintet.formats.ggml_types import DEQUANTIZABLE, GGMLType
from quintet.formats.weights import TensorInfo

# Bits per weight as packed.  Up to 5 % more than the file's, but for what no layout is made for:
OWN = {
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "Q8_0": 8.5,
    "Q4_0": 4.5,
    "Q4_1": 5,
    "Q5_0": 5.5,
    "Q5_1": 6,
    "Q2_K": 2.625,
    "Q3_K": 3.5625,
    "Q4_K": 4.625,
    "Q5_K": 5.625,
    "Q6_K": 6.5625,
    "IQ4_NL": 4.5,
    "IQ4_XS": 4.3125,
    "MXFP4": 4.25,
    "NVFP4": 4.59375,
}
WIDE = {
    "TQ1_0": 2.625,
    "TQ2_0": 2.625,
    "IQ1_S": 3.59375,
    "IQ1_M": 3.59375,
    "IQ2_XXS": 3.59375,
    "IQ2_XS": 3.59375,
    "IQ2_S": 3.59375,
    "IQ3_XXS": 4.59375,
    "IQ3_S": 4.59375,
}
EXACT = [t for t in WIDENED if t is not GGMLType.NVFP4]


class OneMatrix:
    """A source of one tensor, "m"."""

    is_mapped = False

    def __init__(self, raw: np.ndarray, ggml_type: GGMLType, shape: tuple[int, int]) -> None:
        self.tensors = {"m": TensorInfo("m", shape, ggml_type, raw.size)}
        self._raw = raw

    def raw(self, name: str) -> np.ndarray:
        return self._raw


def oracle(raw: np.ndarray, ggml_type: GGMLType) -> np.ndarray:
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(ggml_type))


def random_blocks(ggml_type: GGMLType, count: int) -> np.ndarray:
    """[count, bytes]: every code, and finite scales."""
    random = np.random.default_rng(int(ggml_type))
    raw = random.integers(0, 256, (2 * count, ggml_type.block_bytes), np.uint8)
    finite = np.isfinite(oracle(raw, ggml_type)).all(axis=1)
    return raw[finite][:count]


def table_values(wide: np.ndarray) -> np.ndarray:
    """Weights of `Table` blocks, from the comment in csrc/kernels/gguf_blocks.h."""
    d = wide[:, :2].copy().view("<f2").astype(np.float64)
    values = wide[:, 2:18].astype(int) - 64
    scales = wide[:, 18:34].view(np.int8)
    nibbles = wide[:, 34:].reshape(-1, 8, 16)
    codes = np.concatenate((nibbles & 15, nibbles >> 4), axis=2).reshape(-1, 256)
    numbers = np.take_along_axis(values, codes.astype(int), axis=1)
    return d * np.repeat(scales, 16, axis=1) * numbers / 8


def rewritten(raw: np.ndarray, ggml_type: GGMLType) -> np.ndarray:
    """Weights of the blocks that `raw` becomes, as 256 to a row."""
    widening = WIDENED[ggml_type]
    wide = widening(raw)
    if widening.source is SourceType.Q2_K:
        return oracle(wide.reshape(-1, GGMLType.Q2_K.block_bytes), GGMLType.Q2_K)
    return table_values(wide.reshape(-1, 162))


@pytest.mark.parametrize("ggml_type", EXACT, ids=lambda t: t.name)
def test_a_widened_format_keeps_every_weight(ggml_type: GGMLType) -> None:
    """The rewritten blocks say what the gguf package reads in the file's; also past a chunk."""
    raw = random_blocks(ggml_type, 700)
    expected = oracle(raw, ggml_type)
    found = rewritten(raw, ggml_type)
    # A d of IQ3_S is written times 8, which a half cannot hold above 8188.
    fits = np.abs(expected).max(axis=1) < 8188
    assert fits.sum() > 400
    np.testing.assert_array_equal(found[fits], expected[fits])


def test_nvfp4_is_exact_down_to_an_eighth_of_the_largest_scale() -> None:
    """Groups of nearby scales keep every weight, others are off by 1/128 of the largest scale."""
    random = np.random.default_rng(1)
    raw = random.integers(0, 256, (400, 4, GGMLType.NVFP4.block_bytes), np.uint8)
    raw[:200, :, :4] = 0x40 + raw[:200, :, :4] % 32  # four exponents
    raw[0, :, :4] = 0
    expected = oracle(raw.reshape(-1, raw.shape[-1]), GGMLType.NVFP4).reshape(400, 256)
    found = rewritten(raw.ravel(), GGMLType.NVFP4)
    np.testing.assert_array_equal(found[:200], expected[:200])
    largest = np.abs(oracle_scales(raw)).max(axis=1, keepdims=True)
    assert (np.abs(found - expected) <= 12 * largest / 128).all()


def oracle_scales(raw: np.ndarray) -> np.ndarray:
    """[n, 4, bytes] NVFP4 -> [n, 16] what the gguf package multiplies by."""
    scales = raw[:, :, :4].reshape(len(raw), 16)
    return gguf.quants.NVFP4.ue4m3_to_fp32(scales)


def packed_bits(ggml_type: GGMLType, k: int = 512) -> float:
    """Bits per weight of a packed matrix, from what the native plan says it reads."""
    n = 32
    blocks = random_blocks(ggml_type, n * k // ggml_type.block_size)
    plan = Plan(
        max_tokens=1, max_logits_rows=1, num_blocks=1, num_layers=1, num_kv_heads=1, head_dim=32,
        kv_type="float32", num_threads=1,
    )  # fmt: skip
    weights = PackedWeights(OneMatrix(blocks.ravel(), ggml_type, (n, k)), plan, "auto")
    weights.matrix("m")
    weights.load()
    return plan.weight_bytes * 8 / (n * k)


@pytest.mark.parametrize("ggml_type", sorted(DEQUANTIZABLE), ids=lambda t: t.name)
def test_decode_reads_what_the_file_has(ggml_type: GGMLType) -> None:
    """Within 5 % for formats with a layout, and the figures above for the others."""
    name = ggml_type.name
    found = packed_bits(ggml_type)
    assert found == {**OWN, **WIDE}[name]
    file_bits = ggml_type.block_bytes * 8 / ggml_type.block_size
    assert found / file_bits <= (1.05 if name in OWN else 2.31)
    assert (name in WIDE) == (found > file_bits * 1.05)


def test_nvfp4_rows_that_are_no_super_blocks_are_held_in_eight_bits() -> None:
    """A row of an odd number of blocks of 64 has no table layout, and is quantised to int8."""
    info = TensorInfo("m", (4, 320), GGMLType.NVFP4, 720)
    assert choose_layout(info, "auto") is Layout.W8
