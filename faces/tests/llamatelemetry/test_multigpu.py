"""llamatelemetry.api.multigpu and api.nccl, with and without GPUs."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace

import pytest

from llamatelemetry.api import kaggle_t4_dual_config, multigpu, nccl
from llamatelemetry.api.multigpu import GPUInfo, create_tensor_split_config, detect_gpus
from llamatelemetry.exceptions import ConfigurationError


def test_two_t4():
    """kaggle_t4_dual_config(model_path, context_size): all layers, half on each."""
    config = kaggle_t4_dual_config(model_path="m.gguf", context_size=8192)
    arguments = config.to_cli_args()
    assert "--model m.gguf" in arguments
    assert "--ctx-size 8192" in arguments
    assert "--tensor-split 0.5,0.5" in arguments
    assert "--n-gpu-layers 99" in arguments
    assert "--model" not in kaggle_t4_dual_config().to_cli_args()


def test_shares_follow_memory():
    """create_tensor_split_config(gpu_memory, model_size_gb)."""
    assert create_tensor_split_config(gpu_memory=[15, 15], model_size_gb=10) == "0.5,0.5"
    assert create_tensor_split_config([24, 8], 20) == "0.75,0.25"
    assert create_tensor_split_config([8], 1) == "1"
    for memory, size in (([], 1), ([0, 0], 1), ([-1, 4], 1), ([4, 4], 9), ([4], 0)):
        with pytest.raises(ConfigurationError):
            create_tensor_split_config(memory, size)


def test_no_driver_no_gpus(monkeypatch: pytest.MonkeyPatch):
    """detect_gpus gives an empty list."""

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert detect_gpus() == []


def test_gpus_are_told_as_the_driver_has_them(monkeypatch: pytest.MonkeyPatch):
    """GPUInfo's index, name, total_memory_gb, free_memory_gb and compute_capability; a GPU that
    does not answer is left out."""

    def memory(device, out):
        out._obj.total, out._obj.free = 16 * 2**30, 15 * 2**30
        return 0

    def capability(device, major, minor):
        major._obj.value, minor._obj.value = 7, 5
        return 0

    def name(device, buffer, length):
        buffer.value = b"Tesla T4"
        return 0

    def count(out):
        out._obj.value = 2
        return 0

    library = SimpleNamespace(
        nvmlInit_v2=lambda: 0,
        nvmlShutdown=lambda: 0,
        nvmlDeviceGetCount_v2=count,
        nvmlDeviceGetHandleByIndex_v2=lambda index, out: index.value,
        nvmlDeviceGetName=name,
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetCudaComputeCapability=capability,
    )
    monkeypatch.setattr(multigpu.ctypes, "CDLL", lambda _: library)
    assert detect_gpus() == [
        GPUInfo(
            index=0,
            name="Tesla T4",
            total_memory_gb=16.0,
            free_memory_gb=15.0,
            compute_capability="7.5",
        )
    ]
    library.nvmlInit_v2 = lambda: 9
    assert detect_gpus() == []


def test_one_process_alone(tmp_path: Path):
    """nccl's calls, through Gloo where there is no GPU."""
    torch = pytest.importorskip("torch")
    backend = nccl.init_process_group(0, 1, f"file://{tmp_path}/meeting", "gloo")
    try:
        assert backend == "gloo"
        tensor = torch.tensor([1.0, 2.0])
        assert nccl.all_reduce(tensor).tolist() == [1.0, 2.0]
        assert nccl.broadcast(tensor).tolist() == [1.0, 2.0]
        assert [each.tolist() for each in nccl.all_gather(tensor)] == [[1.0, 2.0]]
        nccl.barrier()
        with pytest.raises(ConfigurationError, match="op"):
            nccl.all_reduce(tensor, "mean")
    finally:
        nccl.destroy_process_group()
    if not nccl.is_available():
        assert nccl.get_version() is None
        with pytest.raises(ConfigurationError, match="GPU"):
            nccl.init_process_group(0, 1, f"file://{tmp_path}/again", "nccl")
