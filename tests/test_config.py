"""Engine options: checked when they are made."""

import pytest

from quintet.config import EngineConfig, parse_bytes
from quintet.errors import RequestError


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("max_num_seqs", 0),
        ("max_num_batched_tokens", 63),
        ("max_num_mixed_prefill_tokens", 0),
        ("max_model_len", 1),
        ("kv_cache_bytes", 0),
        ("max_queue", -1),
        ("ageing_steps", 0),
    ],
)
def test_config_refuses_values_out_of_range(parameter: str, value: int) -> None:
    """Each option names itself when it is out of range."""
    with pytest.raises(RequestError) as caught:
        EngineConfig(**{parameter: value})
    assert caught.value.parameter == parameter


def test_config_defaults_are_in_range() -> None:
    """The defaults pass their own checks."""
    assert EngineConfig().max_num_batched_tokens >= EngineConfig.max_num_seqs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (5, 5),
        ("800", 800),
        ("800B", 800),
        ("4GiB", 4 << 30),
        ("4 gib", 4 << 30),
        ("4GB", 4_000_000_000),
        ("1.5g", 1_500_000_000),
        ("0.1GiB", 107_374_182),
        ("3Mi", 3 << 20),
        ("2TB", 2_000_000_000_000),
    ],
)
def test_bytes_are_read_with_their_unit(text: int | str, expected: int) -> None:
    """Decimal units are decimal, those with an i are binary, as in IEC 80000-13."""
    assert parse_bytes(text, "max_memory") == expected


@pytest.mark.parametrize("text", ["", "GiB", "-1", "4 potatoes", "1e9", "4GiBs", "1..5G", "9" * 40])
def test_bytes_refuse_what_is_no_size(text: str) -> None:
    """The parameter is named, with examples of what is expected."""
    with pytest.raises(RequestError, match="max_memory: expected bytes, such as"):
        parse_bytes(text, "max_memory")
