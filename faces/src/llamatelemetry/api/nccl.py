"""Several processes of one computation: a thin layer on torch.distributed.

NCCL joins NVIDIA's GPUs; without them the same calls go through Gloo, on the CPU.
"""

from __future__ import annotations

from typing import Any

from llamatelemetry.exceptions import ConfigurationError


def is_available() -> bool:
    """Whether NCCL can be used: torch is here with it, and a GPU."""
    try:
        import torch
        import torch.distributed
    except ImportError:
        return False
    return bool(
        torch.cuda.is_available()
        and torch.distributed.is_available()
        and torch.distributed.is_nccl_available()
    )


def get_version() -> str | None:
    """NCCL's version, e.g. "2.21.5"; None without it."""
    if not is_available():
        return None
    import torch

    cuda: Any = torch.cuda
    return ".".join(str(part) for part in cuda.nccl.version())


def init_process_group(
    rank: int, world_size: int, init_method: str = "env://", backend: str | None = None
) -> str:
    """
    Join the other processes.

    Args:
        rank, world_size: this process's number, and how many there are.
        init_method: where they meet; see torch.distributed.
        backend: "nccl" or "gloo"; None for the first that this machine has.

    Returns:
        The backend.

    Raises:
        ConfigurationError: torch is not here, or NCCL was asked for and is not.
    """
    if backend == "nccl" and not is_available():
        raise ConfigurationError("backend: NCCL needs torch with CUDA and a GPU")
    chosen = backend or ("nccl" if is_available() else "gloo")
    _distributed().init_process_group(
        chosen, init_method=init_method, rank=rank, world_size=world_size
    )
    return chosen


def all_reduce(tensor: Any, op: str = "sum") -> Any:
    """
    Make a tensor the sum (or "product", "min", "max") of all processes' in place; returns it.

    Raises:
        ConfigurationError: another operation.
    """
    distributed = _distributed()
    if op not in ("sum", "product", "min", "max"):
        raise ConfigurationError(f"op: expected sum, product, min or max, found {op!r}")
    distributed.all_reduce(tensor, op=getattr(distributed.ReduceOp, op.upper()))
    return tensor


def broadcast(tensor: Any, src: int = 0) -> Any:
    """Make a tensor that of process `src`, in place; returns it."""
    _distributed().broadcast(tensor, src=src)
    return tensor


def all_gather(tensor: Any) -> list[Any]:
    """The tensors of all processes, in their order."""
    import torch

    distributed = _distributed()
    gathered = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, tensor)
    return gathered


def barrier() -> None:
    """Wait for all processes."""
    _distributed().barrier()


def destroy_process_group() -> None:
    """Leave the other processes."""
    _distributed().destroy_process_group()


def _distributed() -> Any:
    try:
        import torch.distributed as distributed
    except ImportError:
        raise ConfigurationError("api.nccl needs torch: pip install torch") from None
    return distributed
