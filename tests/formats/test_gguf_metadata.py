"""GGUF metadata: every value type, against the gguf package's writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGUFValueType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quintet.formats.gguf import GGUFFile
from quintet.formats.gguf_metadata import ValueType
from quintet.formats.string_array import StringArray

SCALARS: list[tuple[GGUFValueType, Any]] = [
    (GGUFValueType.UINT8, 255),
    (GGUFValueType.INT8, -128),
    (GGUFValueType.UINT16, 65_535),
    (GGUFValueType.INT16, -32_768),
    (GGUFValueType.UINT32, 2**32 - 1),
    (GGUFValueType.INT32, -(2**31)),
    (GGUFValueType.UINT64, 2**64 - 1),
    (GGUFValueType.INT64, -(2**63)),
    (GGUFValueType.FLOAT32, 0.15625),
    (GGUFValueType.FLOAT64, 1e300),
    (GGUFValueType.BOOL, True),
    (GGUFValueType.BOOL, False),
    (GGUFValueType.STRING, "naïve 日本"),
]

FIXED_ITEMS = {
    GGUFValueType.UINT8: np.uint8,
    GGUFValueType.INT8: np.int8,
    GGUFValueType.UINT16: np.uint16,
    GGUFValueType.INT16: np.int16,
    GGUFValueType.UINT32: np.uint32,
    GGUFValueType.INT32: np.int32,
    GGUFValueType.UINT64: np.uint64,
    GGUFValueType.INT64: np.int64,
    GGUFValueType.FLOAT32: np.float32,
    GGUFValueType.FLOAT64: np.float64,
    GGUFValueType.BOOL: np.bool_,
}


def write(path: Path, values: dict[str, tuple[GGUFValueType, Any, GGUFValueType | None]]) -> Path:
    """A file without tensors, written by the gguf package."""
    writer = gguf.GGUFWriter(path, "test")
    for key, (value_type, value, item_type) in values.items():
        writer.add_key_value(key, value, value_type, item_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(("value_type", "value"), SCALARS, ids=lambda v: getattr(v, "name", None))
def test_a_scalar_is_read_as_the_gguf_package_wrote_it(
    tmp_path: Path, value_type: GGUFValueType, value: Any
) -> None:
    """Numbers, bools and strings become the Python values they stand for."""
    with GGUFFile.open(write(tmp_path / "a.gguf", {"k": (value_type, value, None)})) as file:
        assert file.metadata["k"] == value
        assert type(file.metadata["k"]) is type(value)
        assert file.value_types["k"] == ValueType[value_type.name]
        assert file.metadata["general.architecture"] == "test"


@pytest.mark.parametrize("item_type", list(FIXED_ITEMS), ids=lambda t: t.name)
def test_an_array_of_numbers_becomes_a_numpy_array(
    tmp_path: Path, item_type: GGUFValueType
) -> None:
    """Arrays keep their item type, and cannot be written to."""
    items = [True, False, True] if item_type == GGUFValueType.BOOL else [1, 0, 100]
    path = write(tmp_path / "a.gguf", {"k": (GGUFValueType.ARRAY, items, item_type)})
    with GGUFFile.open(path) as file:
        values = file.metadata["k"]
    assert values.dtype == FIXED_ITEMS[item_type]
    assert values.tolist() == items
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 1


def test_an_array_of_strings_is_lazy_and_outlives_the_file(tmp_path: Path) -> None:
    """Tokens are still there after the file is closed."""
    tokens = ["<s>", "", "日本", "a" * 300]
    path = write(tmp_path / "a.gguf", {"k": (GGUFValueType.ARRAY, tokens, None)})
    with GGUFFile.open(path) as file:
        strings = file.metadata["k"]
    assert isinstance(strings, StringArray)
    assert list(strings) == tokens


def test_nested_arrays_become_tuples(tmp_path: Path) -> None:
    """Arrays of arrays keep their structure, which the gguf package's reader flattens."""
    path = write(
        tmp_path / "a.gguf",
        {
            "numbers": (GGUFValueType.ARRAY, [[1, 2], [3]], None),
            "strings": (GGUFValueType.ARRAY, [[["a"], ["b", "c"]], [["d"]]], None),
        },
    )
    with GGUFFile.open(path) as file:
        assert [row.tolist() for row in file.metadata["numbers"]] == [[1, 2], [3]]
        nested = file.metadata["strings"]
    assert isinstance(nested, tuple)
    assert [[list(strings) for strings in row] for row in nested] == [[["a"], ["b", "c"]], [["d"]]]


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
VALUES = st.one_of(
    st.tuples(st.just(GGUFValueType.UINT64), st.integers(0, 2**64 - 1), st.none()),
    st.tuples(st.just(GGUFValueType.INT32), st.integers(-(2**31), 2**31 - 1), st.none()),
    st.tuples(st.just(GGUFValueType.BOOL), st.booleans(), st.none()),
    st.tuples(st.just(GGUFValueType.FLOAT64), st.floats(allow_nan=False), st.none()),
    st.tuples(st.just(GGUFValueType.STRING), st.text(max_size=50), st.none()),
    st.tuples(
        st.just(GGUFValueType.ARRAY),
        st.lists(st.text(max_size=9), min_size=1, max_size=40),
        st.just(GGUFValueType.STRING),
    ),
    st.tuples(
        st.just(GGUFValueType.ARRAY),
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40),
        st.just(GGUFValueType.INT64),
    ),
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(values=st.dictionaries(KEYS, VALUES, max_size=8))
def test_any_metadata_round_trips(tmp_path: Path, values: dict[str, Any]) -> None:
    """Whatever the gguf package writes is read back, in order."""
    values.pop("general.architecture", None)
    values.pop("general.alignment", None)
    for key in ("split.no", "split.count"):
        values.pop(key, None)
    with GGUFFile.open(write(tmp_path / "a.gguf", values)) as file:
        assert list(file.metadata) == ["general.architecture", *values]
        for key, (value_type, value, _) in values.items():
            found = file.metadata[key]
            assert (list(found) if value_type == GGUFValueType.ARRAY else found) == value
