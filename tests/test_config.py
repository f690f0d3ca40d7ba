"""Engine options: checked when they are made."""

import pytest

from quintet.config import EngineConfig
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
