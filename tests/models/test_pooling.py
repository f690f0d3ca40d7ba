"""What files say about pooling: GGUF's key, and the files of sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest

from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.models import _pooling

TYPES = {"NONE": None, "MEAN": "mean", "CLS": "cls", "LAST": "last", "RANK": "rank"}


def write(directory: Path, modules: object, pooling: object = None, **files: object) -> Path:
    (directory / "1_Pooling").mkdir()
    (directory / "modules.json").write_text(json.dumps(modules))
    if pooling is not None:
        (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return directory


def modules(*kinds: str, path: object = "1_Pooling") -> list[dict[str, object]]:
    return [
        {"type": f"sentence_transformers.models.{k}", "path": path if k == "Pooling" else ""}
        for k in kinds
    ]


@pytest.mark.parametrize("name", TYPES)
def test_gguf_key_has_the_numbers_of_the_gguf_package(name):
    """Each pooling type of the package is what it says; none leaves the choice open."""
    key = gguf.Keys.LLM.POOLING_TYPE.format(arch="bert")
    found = _pooling.from_gguf({key: int(gguf.PoolingType[name])}, "bert", None)
    assert found == TYPES[name]
    assert _pooling.from_gguf({}, "bert", None) is None


@pytest.mark.parametrize("value", [5, -1, "mean", True, 1.5])
def test_unknown_gguf_pooling_is_refused(value):
    """A number without a meaning is an error with its key."""
    with pytest.raises(ModelFormatError, match="pooling_type"):
        _pooling.from_gguf({"bert.pooling_type": value}, "bert", None)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, "last"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "lasttoken"}, "last"),
    ],
)
def test_sentence_transformers_pooling_is_read(tmp_path, config, expected):
    """Both ways of writing it down give the pooling."""
    write(tmp_path, modules("Transformer", "Pooling", "Normalize"), config)
    assert _pooling.from_directory(tmp_path) == expected


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"pooling_mode_mean_sqrt_len_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
        {"pooling_mode": "weightedmean"},
        {"pooling_mode": 3},
    ],
)
def test_other_pooling_is_refused_by_name(tmp_path, config):
    """A pooling that is not ours would give other vectors."""
    write(tmp_path, modules("Transformer", "Pooling"), config)
    with pytest.raises(UnsupportedModelError, match="pooling"):
        _pooling.from_directory(tmp_path)


def test_step_behind_the_pooling_is_refused(tmp_path):
    """A dense layer behind the pooling changes the vectors."""
    write(tmp_path, modules("Transformer", "Pooling", "Dense"), {"pooling_mode": "mean"})
    with pytest.raises(UnsupportedModelError, match="Dense"):
        _pooling.from_directory(tmp_path)


@pytest.mark.parametrize("path", ["../1_Pooling", "/etc", 7, None])
def test_path_out_of_the_directory_is_refused(tmp_path, path):
    """The listing cannot make us read elsewhere."""
    write(tmp_path, modules("Transformer", "Pooling", path=path), {"pooling_mode": "mean"})
    with pytest.raises(ModelFormatError, match="folder inside"):
        _pooling.from_directory(tmp_path)


@pytest.mark.parametrize("listing", [{}, [3], [{"type": "Transformer"}, "x"]])
def test_broken_listing_is_refused(tmp_path, listing):
    """What is no list of modules is an error."""
    write(tmp_path, listing)
    with pytest.raises((ModelFormatError, UnsupportedModelError)):
        _pooling.from_directory(tmp_path)


@pytest.mark.parametrize("value", [0, -5, True, "256", 2.5])
def test_broken_length_is_refused(tmp_path, value):
    """The longest text is a positive number of tokens."""
    write(tmp_path, [], sentence_bert_config={"max_seq_length": value})
    with pytest.raises(ModelFormatError, match="max_seq_length"):
        _pooling.max_seq_length(tmp_path)


def test_other_directories_say_nothing(tmp_path):
    """Without the files, or the key, the choice is open."""
    assert _pooling.from_directory(tmp_path) is None
    assert _pooling.max_seq_length(tmp_path) is None
    write(tmp_path, modules("Transformer"), sentence_bert_config={"max_seq_length": None})
    assert _pooling.from_directory(tmp_path) is None
    assert _pooling.max_seq_length(tmp_path) is None
