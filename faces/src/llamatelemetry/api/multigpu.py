"""GPUs there are, and how a model is divided among several."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llamatelemetry.exceptions import ConfigurationError
from llamatelemetry.server import ServerConfig

GIB = 2**30
ALL_LAYERS = 99


@dataclass
class GPUInfo:
    """
    A GPU.

    Args:
        index: as CUDA numbers them by bus.
        name: of the product.
        total_memory_gb, free_memory_gb: GiB.
        compute_capability: e.g. "7.5".
    """

    index: int
    name: str
    total_memory_gb: float
    free_memory_gb: float
    compute_capability: str


def kaggle_t4_dual_config(model_path: str | None = None, context_size: int = 4096) -> ServerConfig:
    """
    Options of a llama-server on Kaggle's two T4: all layers on them, half on each.

    Args:
        model_path: of the model; None leaves it out of the command line.
        context_size: tokens.
    """
    return ServerConfig(
        model_path=model_path or "",
        n_gpu_layers=ALL_LAYERS,
        tensor_split="0.5,0.5",
        split_mode="layer",
        context_size=context_size,
        flash_attn=True,
    )


def create_tensor_split_config(gpu_memory: Sequence[float], model_size_gb: float) -> str:
    """
    Each GPU's share of a model, as llama-server's --tensor-split takes it.

    Args:
        gpu_memory: GB of each GPU.
        model_size_gb: of the model.

    Returns:
        E.g. "0.5,0.5": in proportion to their memory.

    Raises:
        ConfigurationError: no GPU, a memory below 0, or a model that does not fit.
    """
    memory = [float(each) for each in gpu_memory]
    total = sum(memory)
    if not memory or min(memory) < 0 or total <= 0:
        raise ConfigurationError(f"gpu_memory: expected GB of each GPU, found {gpu_memory!r}")
    if not 0 < model_size_gb <= total:
        raise ConfigurationError(
            f"model_size_gb: expected at most the {total:g} GB of all GPUs, found {model_size_gb}"
        )
    return ",".join(f"{round(each / total, 3):g}" for each in memory)


def detect_gpus() -> list[GPUInfo]:
    """
    NVIDIA's GPUs of this machine; none without its driver.

    Source: NVML API reference, nvmlInit_v2, nvmlDeviceGetMemoryInfo,
    nvmlDeviceGetCudaComputeCapability.
    """
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return []
    if nvml.nvmlInit_v2() != 0:
        return []
    try:
        count = ctypes.c_uint()
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return []
        found = (_gpu(nvml, index) for index in range(count.value))
        return [gpu for gpu in found if gpu is not None]
    finally:
        nvml.nvmlShutdown()


class _Memory(ctypes.Structure):
    """nvmlMemory_t, in bytes."""

    _fields_ = [
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    ]


def _gpu(nvml: Any, index: int) -> GPUInfo | None:
    """One of them; None if it does not answer, as one of another user's."""
    device = ctypes.c_void_p()
    if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(device)) != 0:
        return None
    name = ctypes.create_string_buffer(96)  # NVML_DEVICE_NAME_V2_BUFFER_SIZE
    memory = _Memory()
    major, minor = ctypes.c_int(), ctypes.c_int()
    failures = (
        nvml.nvmlDeviceGetName(device, name, ctypes.c_uint(len(name))),
        nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)),
        nvml.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor)),
    )
    if any(failures):
        return None
    return GPUInfo(
        index=index,
        name=name.value.decode(errors="replace"),
        total_memory_gb=round(memory.total / GIB, 2),
        free_memory_gb=round(memory.free / GIB, 2),
        compute_capability=f"{major.value}.{minor.value}",
    )
