"""The native encoders: their error, against llama.cpp's on the same rows."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quintet.errors import ModelFormatError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.quants import dequantize
from quintet.tools.encode import encode
from quintet.tools.recipes import TENSOR_TYPES

# Root mean square errors of ggml (0.25.3, of llama-cpp-python 0.3.36) on `rows()`: without
# importance, and with it, each square multiplied by its column's.
GGML_ERRORS = {
    "Q4_0": (2.7928e-03, 7.0624e-03),
    "Q4_1": (2.3410e-03, 4.9480e-03),
    "Q5_0": (1.3931e-03, 3.5350e-03),
    "Q5_1": (1.1278e-03, 2.3872e-03),
    "Q8_0": (1.7444e-04, 4.9968e-04),
    "Q2_K": (8.6431e-03, 1.6463e-02),
    "Q3_K": (4.5581e-03, 1.0718e-02),
    "Q4_K": (2.1566e-03, 5.1262e-03),
    "Q5_K": (1.0933e-03, 2.7137e-03),
    "Q6_K": (5.5660e-04, 1.3726e-03),
    "IQ4_NL": (2.2934e-03, 5.7188e-03),
    "IQ4_XS": (2.3170e-03, 5.8362e-03),
    "MXFP4": (3.2816e-03, 9.4042e-03),
}
TOLERANCE = 1.0005  # of rounding in the numbers above; ours are smaller, or for Q8_0 the same
BLOCKED = [kind for kind in TENSOR_TYPES if kind.block_size > 1]
every_format = pytest.mark.parametrize("kind", BLOCKED, ids=lambda kind: kind.name)
Rows = npt.NDArray[np.float32]


def rows() -> tuple[Rows, Rows]:
    """Long-tailed weights [48, 1024] and importances [1024] over four orders of magnitude."""
    random = np.random.default_rng(11)
    weights = (random.standard_t(5, (48, 1024)) * 0.02).astype(np.float32)
    return weights, (random.chisquare(2, 1024) ** 2 + 0.01).astype(np.float32)


def encoded(weights: Rows, kind: GGMLType, importance: Rows | None = None, threads: int = 1):
    raw = np.ascontiguousarray(weights).reshape(-1).view(np.uint8)
    return encode(
        raw, GGMLType.F32, weights.shape[1], kind, importance=importance, num_threads=threads
    )


def error(weights: Rows, kind: GGMLType, raw: npt.NDArray[np.uint8], importance=None) -> float:
    square = (dequantize(raw, kind, weights.shape) - weights).astype(np.float64) ** 2
    return float(np.sqrt((square if importance is None else square * importance).mean()))


def test_every_format_is_compared():
    """A format without a figure of ggml's would go unchecked."""
    assert {kind.name for kind in BLOCKED} == set(GGML_ERRORS)


@every_format
def test_the_error_is_no_larger_than_llama_cpps(kind: GGMLType):
    """With and without importance, the (weighted) error is at most that of llama.cpp."""
    weights, importance = rows()
    plain, weighted = GGML_ERRORS[kind.name]
    assert error(weights, kind, encoded(weights, kind)) <= plain * TOLERANCE
    found = error(weights, kind, encoded(weights, kind, importance), importance)
    assert found <= weighted * TOLERANCE


@pytest.mark.skipif(not importlib.util.find_spec("llama_cpp"), reason="needs llama-cpp-python")
@every_format
def test_the_error_is_no_larger_than_the_installed_llama_cpps(kind: GGMLType):
    """As above, against the library that is there."""
    weights, importance = rows()
    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None
    assert spec.origin is not None
    library = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libggml-base.so"))
    call = library.ggml_quantize_chunk
    sizes = [ctypes.c_int64] * 3
    call.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *sizes, ctypes.c_void_p]
    for columns in (None, importance):
        theirs = np.empty(kind.num_bytes(weights.shape), np.uint8)
        pointer = None if columns is None else columns.ctypes.data
        call(int(kind), weights.ctypes.data, theirs.ctypes.data, 0, *weights.shape, pointer)
        found = error(weights, kind, encoded(weights, kind, columns), columns)
        assert found <= error(weights, kind, theirs, columns) * TOLERANCE


@pytest.mark.parametrize("name", ["Q8_0", "F16", "BF16"])
def test_formats_without_a_search_have_the_bits_of_the_gguf_package(name: str):
    """Nothing is chosen, so nothing may differ."""
    weights, _ = rows()
    expected = quants.quantize(weights, GGMLQuantizationType[name])
    assert encoded(weights, GGMLType[name]).tolist() == expected.reshape(-1).view(np.uint8).tolist()


@every_format
def test_importance_lowers_the_weighted_error(kind: GGMLType):
    """An importance that is asked for is used, except by Q8_0, which has no search."""
    weights, importance = rows()
    without = error(weights, kind, encoded(weights, kind), importance)
    found = error(weights, kind, encoded(weights, kind, importance), importance)
    assert found < without if kind != GGMLType.Q8_0 else found == without


@pytest.mark.parametrize(("name", "tolerance"), [("Q3_K", 0.003), ("Q2_K", 0.015)])
def test_few_bits_keep_the_norm(name: str, tolerance: float):
    """Plain least squares would lose 1 and 3 % of the norm of normal weights."""
    weights = np.random.default_rng(5).standard_normal((48, 1024), dtype=np.float32)
    values = dequantize(encoded(weights, GGMLType[name]), GGMLType[name], weights.shape)
    assert np.linalg.norm(values) / np.linalg.norm(weights) == pytest.approx(1, abs=tolerance)


@every_format
def test_the_number_of_threads_changes_nothing(kind: GGMLType):
    """Rows longer than a thread's share come out the same however they are shared."""
    weights = np.random.default_rng(3).standard_normal((160, 512), dtype=np.float32)
    importance = np.linspace(0.1, 2, 512, dtype=np.float32)
    one = encoded(weights, kind, importance, threads=1)
    assert one.tolist() == encoded(weights, kind, importance, threads=3).tolist()


@every_format
def test_a_block_does_not_depend_on_its_neighbours(kind: GGMLType):
    """Rows encoded alone, and a number of blocks that fills no vector, give the same bytes."""
    weights, importance = rows()
    whole = encoded(weights[:3], kind, importance).reshape(3, -1)
    for row in range(3):
        assert encoded(weights[row : row + 1], kind, importance).tolist() == whole[row].tolist()


@every_format
def test_degenerate_blocks_keep_their_value(kind: GGMLType):
    """Zeros stay zeros; a constant, or one weight among zeros, is kept within its step."""
    zeros = np.zeros((1, 256), np.float32)
    np.testing.assert_array_equal(
        dequantize(encoded(zeros, kind), kind, zeros.shape), np.zeros((1, 256))
    )
    for constant in (0.75, -0.75, 1e-3, 2.5e4):
        same = np.full((1, 256), constant, np.float32)
        found = dequantize(encoded(same, kind), kind, same.shape)
        np.testing.assert_allclose(found, same, rtol=0.08)
    spike = zeros.copy()
    spike[0, 77] = -3.0
    found = dequantize(encoded(spike, kind), kind, spike.shape)
    np.testing.assert_allclose(found, spike, rtol=0.08, atol=0.05)


@every_format
def test_columns_without_importance_do_not_disturb(kind: GGMLType):
    """All importances 0, or most of them, still gives finite weights."""
    weights, _ = rows()
    for importance in (np.zeros(1024, np.float32), np.eye(1, 1024, 5, dtype=np.float32)[0]):
        values = dequantize(encoded(weights, kind, importance), kind, weights.shape)
        assert np.isfinite(values).all()
        assert np.abs(values).max() < 40 * np.abs(weights).max()


@given(
    rows=hnp.arrays(
        np.float32,
        (2, 256),
        elements=st.floats(-65504, 65504, width=32, allow_subnormal=True),
    ),
    kind=st.sampled_from(BLOCKED),
)
def test_any_finite_row_gives_finite_weights_of_its_size(rows: Rows, kind: GGMLType):
    """Whatever the weights, none comes back infinite, NaN or far beyond the largest."""
    values = dequantize(encoded(rows, kind), kind, rows.shape)
    assert np.isfinite(values).all()
    assert np.abs(values).max() <= 1.3 * np.abs(rows).max() + 1e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_name(bad: float):
    """A damaged tensor is named, in every blocked format; F16 keeps what it can hold."""
    weights, _ = rows()
    weights[17, 900] = bad
    raw = weights.reshape(-1).view(np.uint8)
    for kind in BLOCKED:
        with pytest.raises(ModelFormatError, match=r"blk\.0\.x"):
            encode(raw, GGMLType.F32, 1024, kind, name="blk.0.x")
    half = encode(raw, GGMLType.F32, 1024, GGMLType.F16).view(np.float16)
    assert not np.isfinite(half[17 * 1024 + 900])


@pytest.mark.parametrize("source", [GGMLType.F16, GGMLType.BF16, GGMLType.Q8_0])
def test_sources_of_fewer_bits_are_read_as_their_values(source: GGMLType):
    """Encoding from F16, BF16 or blocks equals encoding the values they stand for."""
    weights, _ = rows()
    raw = encoded(weights, source)
    values = dequantize(raw, source, weights.shape)
    found = encode(raw, source, 1024, GGMLType.Q4_K)
    assert found.tolist() == encoded(values, GGMLType.Q4_K).tolist()
    back = encode(raw, source, 1024, GGMLType.F32).view(np.float32)
    assert back.tolist() == values.reshape(-1).tolist()


def digest() -> str:
    """Of all formats' bytes, for comparison between instruction sets."""
    weights, importance = rows()
    total = hashlib.sha256()
    for kind in TENSOR_TYPES:
        total.update(encoded(weights, kind).tobytes())
        total.update(encoded(weights, kind, importance).tobytes())
    return total.hexdigest()


def test_every_instruction_set_gives_the_same_bytes():
    """A file does not depend on the machine that quantised it."""
    found = set()
    for name in ("reference", "avx2", "avx512"):
        result = subprocess.run(
            [sys.executable, "-c", "from tools.test_encode import digest; print(digest())"],
            env={
                **os.environ,
                "QUINTET_KERNELS": name,
                "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[1])]),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(result.stdout.strip())
    assert len(found) == 1
