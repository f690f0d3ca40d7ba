"""Packed weights in a file: the same model, found again, and never trusted when it is not."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from backends.steps import prefill
from engine.tiny_model import write_tiny_model
from quintet._native import Layout, Plan, SourceType
from quintet.backends import default_cache_directory
from quintet.backends._packing import PackedWeights
from quintet.backends.cpu import CPUExecutor, cpu_memory
from quintet.formats.gguf import GGUFFile
from quintet.models import load_model

TOKENS = list(range(1, 20))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model's file."""
    path = tmp_path_factory.mktemp("packed") / "tiny.gguf"
    write_tiny_model(path)
    return path.read_bytes()


class Starts:
    """Starts a model from one file and one cache directory, and counts how often it packs."""

    def __init__(self, root: Path, template: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model = root / "tiny.gguf"
        self.model.write_bytes(template)
        self.directory = root / "cache"
        self.num_packed = 0
        pack = PackedWeights._pack

        def counted(weights: PackedWeights) -> None:
            self.num_packed += 1
            pack(weights)

        monkeypatch.setattr(PackedWeights, "_pack", counted)

    def logits(self, *, cached: bool = True, dtype: str = "auto") -> np.ndarray:
        """Of a short prompt, from a model that is loaded anew."""
        with GGUFFile.open(self.model) as source:
            executor = CPUExecutor(
                load_model(source),
                num_blocks=8,
                max_num_batched_tokens=32,
                max_logits_rows=32,
                weight_dtype=dtype,
                kv_dtype="bfloat16",
                num_threads=2,
                packed_cache=self.directory if cached else None,
            )
        logits = prefill(executor, TOKENS, [0, 1], 7)
        executor.close()
        return logits

    @property
    def file(self) -> Path:
        """The only file of the cache."""
        (path,) = self.directory.iterdir()
        return path


@pytest.fixture
def starts(tmp_path: Path, template: bytes, monkeypatch: pytest.MonkeyPatch) -> Starts:
    return Starts(tmp_path, template, monkeypatch)


def test_a_second_start_packs_nothing_and_computes_the_same(starts: Starts) -> None:
    """The file is written once, private, and gives the same bits."""
    expected = starts.logits(cached=False)
    np.testing.assert_array_equal(starts.logits(), expected)
    assert starts.num_packed == 2
    assert starts.file.stat().st_mode & 0o777 == 0o600
    assert starts.directory.stat().st_mode & 0o777 == 0o700
    np.testing.assert_array_equal(starts.logits(), expected)
    assert starts.num_packed == 2


def test_another_type_of_weights_has_a_file_of_its_own(starts: Starts) -> None:
    """The cache never gives a model in another precision than was asked for."""
    starts.logits()
    expected = starts.logits(cached=False, dtype="int8")
    np.testing.assert_array_equal(starts.logits(dtype="int8"), expected)
    assert len(list(starts.directory.iterdir())) == 2


def test_a_model_that_was_written_to_is_packed_anew(starts: Starts) -> None:
    """A change of the model's file makes its packed weights stale; they are replaced."""
    starts.logits()
    stamp = starts.model.stat().st_mtime_ns
    data = bytearray(starts.model.read_bytes())
    data[-64:] = bytes(64)  # other weights, same size
    starts.model.write_bytes(data)
    os.utime(starts.model, ns=(stamp + 1, stamp + 1))
    expected = starts.logits(cached=False)
    np.testing.assert_array_equal(starts.logits(), expected)
    assert starts.num_packed == 3
    np.testing.assert_array_equal(starts.logits(), expected)
    assert starts.num_packed == 3
    assert starts.file  # one file still


@pytest.mark.parametrize("damage", ["header", "checksum", "weights", "cut off", "longer", "empty"])
def test_a_damaged_file_is_packed_anew(starts: Starts, damage: str) -> None:
    """Whatever is wrong with the file, the model is right, and so is the file afterwards."""
    expected = starts.logits()
    data = bytearray(starts.file.read_bytes())
    if damage == "header":
        data[20] ^= 1
    elif damage == "checksum":
        data[52] ^= 1
    elif damage == "weights":
        data[-1000] ^= 16
    elif damage == "cut off":
        data = data[:-1]
    elif damage == "longer":
        data.append(0)
    else:
        data.clear()
    starts.file.write_bytes(data)
    np.testing.assert_array_equal(starts.logits(), expected)
    assert starts.num_packed == 2
    np.testing.assert_array_equal(starts.logits(), expected)
    assert starts.num_packed == 2


def test_others_files_are_not_trusted(starts: Starts, tmp_path: Path) -> None:
    """A link, or a file or folder that others may write to, is not read."""
    starts.logits()
    path = starts.file
    path.chmod(0o620)
    starts.logits()
    assert starts.num_packed == 2
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    starts.logits()
    assert starts.num_packed == 3
    assert not path.is_symlink()
    starts.directory.chmod(0o770)
    starts.logits()
    assert starts.num_packed == 4


def test_a_cache_that_cannot_be_written_stops_nobody(
    starts: Starts, caplog: pytest.LogCaptureFixture
) -> None:
    """The model runs; the log says why its weights are not kept."""
    starts.directory.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        starts.logits()
    assert "not kept" in caplog.text


def test_nothing_unfinished_is_left_behind(
    starts: Starts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk leaves no file."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    starts.logits()
    assert list(starts.directory.iterdir()) == []
    assert "No space left" in caplog.text


def test_the_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG's variable counts where it is absolute."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_directory() == tmp_path / "quintet" / "packed"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache_directory() == Path.home() / ".cache" / "quintet" / "packed"


def test_memory_is_told_without_being_taken(starts: Starts) -> None:
    """What a plan says it needs is what the executor has."""
    with GGUFFile.open(starts.model) as source:
        model = load_model(source)
        weights, buffers = cpu_memory(
            model, max_num_batched_tokens=32, max_logits_rows=8, weight_dtype="auto"
        )
        executor = CPUExecutor(
            model,
            num_blocks=8,
            max_num_batched_tokens=32,
            max_logits_rows=8,
            weight_dtype="auto",
            kv_dtype="int8",
            num_threads=2,
        )
    assert (executor.plan.weight_bytes, executor.plan.buffer_bytes) == (weights, buffers)
    assert weights > 0 < buffers


def resident_bytes(path: Path) -> int:
    """Of mappings of a file, in this process.  Linux, Documentation/filesystems/proc.rst, smaps."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            inside = line.endswith(str(path))
        elif inside and words[0] == "Rss:":
            total += int(words[1]) * 1024
    return total


def test_packing_lets_go_of_the_file(tmp_path: Path) -> None:
    """At no time are both the file and the packed weights resident."""
    path = tmp_path / "weights"
    n, k = 4096, 1024
    weights = np.random.default_rng(0).standard_normal((n, k), np.float32)
    path.write_bytes(weights.tobytes())
    mapped = np.memmap(path, np.uint8, "r")
    plan = Plan(
        max_tokens=1,
        max_logits_rows=1,
        num_blocks=1,
        num_layers=1,
        num_kv_heads=1,
        head_dim=32,
        kv_type="float32",
        num_threads=2,
    )
    matrix = plan.add_matrix(n, k, Layout.F32)
    plan.allocate_weights()
    assert int(mapped.max()) == 255  # touches all of it
    assert resident_bytes(path) == n * k * 4
    plan.pack([(matrix, np.asarray(mapped), SourceType.F32)], is_mapped=True)
    assert resident_bytes(path) < n * k * 4 // 16
    panels = plan.packed_weights().view(np.float32).reshape(n // 16, k, 16)
    np.testing.assert_array_equal(panels.transpose(0, 2, 1).reshape(n, k), weights)
