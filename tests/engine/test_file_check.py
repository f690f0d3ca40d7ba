"""Model files read on trial: what is wrong with them is told as loading would, by a helper."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from engine.tiny_model import write_tiny_hf_model, write_tiny_model
from quintet.engine import file_check
from quintet.engine.file_check import FileCheck
from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.sandbox.frames import Ended, Late
from quintet.sandbox.helper import Limits
from quintet.sandbox.pool import Pool


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A sound GGUF file."""
    path = tmp_path / "tiny.gguf"
    write_tiny_model(path)
    return path


def test_sound_models_pass(tiny: Path, tmp_path: Path):
    """A file and a directory; what has not changed is not read again."""
    folder = tmp_path / "hf"
    folder.mkdir()
    write_tiny_hf_model(folder)
    check = FileCheck()
    for path in (tiny, folder):
        check.check(path)
    with mock.patch.object(file_check, "Pool", side_effect=AssertionError("read again")):
        check.check(tiny)
        check.check(folder)


def test_a_changed_file_is_read_again(tiny: Path):
    """A check is of what was there then."""
    check = FileCheck()
    check.check(tiny)
    whole = tiny.read_bytes()
    for hostile, error in (
        (whole[:-1], ModelFormatError),
        (whole.replace(b"qwen3", b"qwen9"), UnsupportedModelError),
    ):
        tiny.write_bytes(hostile)
        with pytest.raises(error):
            check.check(tiny)
    with pytest.raises(UnsupportedModelError):  # nor is a refused one taken for known
        check.check(tiny)


def test_all_files_of_a_model_count(tiny: Path, tmp_path: Path):
    """A shard that changes makes a model new, and so does what lies beside weights; a neighbour
    does not."""

    def states(path: Path, change: Path) -> bool:
        before = file_check._state(path)
        change.write_bytes(b"more than there was")
        return file_check._state(path) != before

    shards = [tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    folder = tmp_path / "hf"
    folder.mkdir()
    weights = folder / "model.safetensors"
    for path in (*shards, weights, tmp_path / "other-00001-of-00002.gguf"):
        path.write_bytes(b"some")
    assert file_check._state(shards[0])[1] == 8
    assert states(shards[0], shards[1])
    assert states(weights, folder / "config.json")
    assert states(folder, folder / "tokenizer.json")
    assert not states(shards[0], tmp_path / "other-00001-of-00002.gguf")
    assert not states(tiny, shards[0])


def test_what_takes_too_much_is_refused(tiny: Path):
    """Time, and memory beyond what the file itself has; the file is named."""
    with (
        mock.patch.object(Pool, "_take", return_value=_Ending(Late)),
        mock.patch.object(Pool, "_give_back"),
        pytest.raises(ModelFormatError, match=r"tiny\.gguf: reading it takes longer than 60 s"),
    ):
        FileCheck().check(tiny)
    with mock.patch.object(file_check, "Pool") as pool:
        FileCheck(Limits(60.0, 2**16)).check(tiny)
    assert pool.call_args.args[2] == Limits(60.0, 2**16 + tiny.stat().st_size)


def test_the_helper_crashing_is_the_files_fault(tiny: Path):
    """A reader that is brought down takes nobody along."""
    with (
        mock.patch.object(Pool, "_take", return_value=_Ending(Ended)),
        mock.patch.object(Pool, "_give_back"),
        pytest.raises(ModelFormatError, match="crashes"),
    ):
        FileCheck().check(tiny)


class _Ending:
    """A helper whose work ends so."""

    def __init__(self, how: type[Exception]) -> None:
        self._how = how

    def run(self, task: object) -> object:
        raise self._how


def test_no_threads_are_needed(tiny: Path):
    """A helper of an ordinary user may start none, which root's may all the same."""
    code = """
import sys
from quintet.engine import file_check_helper as helper
work = []
helper.serve = lambda prepare, **options: work.append(prepare(None))
helper.main()
def count():
    with open("/proc/self/status") as file:
        return file.read().partition("Threads:")[2].split()[0]
before = count()
work[0](sys.argv[1])
sys.exit(before != count())
"""
    arguments = [sys.executable, "-c", code, str(tiny)]
    assert subprocess.run(arguments, env=dict(os.environ), timeout=60).returncode == 0
