"""Which of a model's number formats to run: the best that fits into memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from oprel.core.exceptions import MemoryError, ModelNotFoundError, ValidationError
from quintet.errors import ModelFormatError
from quintet.errors import ModelNotFoundError as QuintetModelNotFoundError
from quintet.formats.gguf import GGUFFile
from quintet.hub.manifest import Manifest
from quintet.hub.names import HubSource

# Best first.
QUANTIZATIONS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
_QUANT = re.compile(
    r"(?:^|[-._])((?:I?Q[1-8](?:_[A-Z0-9]+)*)|BF16|F16|F32)(?=$|[-.])", re.IGNORECASE
)
# What the KV cache and buffers take besides the weights, at least, as a share of them.
_ROOM = 1.1
MAX_NUM_SEQS = 64  # in a step, unless the steps are smaller
_MAX_FAILURES = 3  # of asking the Hub what it has


def checked_quantization(name: str | None) -> str | None:
    """
    The name as it is written, whatever the case.

    Raises:
        ValidationError: it is none of QUANTIZATIONS.
    """
    if name is None:
        return None
    if not isinstance(name, str) or name.upper() not in QUANTIZATIONS:
        raise ValidationError(
            f"quantization: expected one of {', '.join(QUANTIZATIONS)}, found {name!r:.40}"
        )
    return name.upper()


def best_fit(sizes: Mapping[str, int], budget_bytes: int, name: str) -> str:
    """
    The largest of a model's number formats that fits, those of QUANTIZATIONS first.

    Args:
        sizes: bytes of the model in each format there is.
        budget_bytes: what may be taken.

    Raises:
        MemoryError: none fits; says what the smallest needs.
    """
    fitting = {quant: size for quant, size in sizes.items() if size * _ROOM <= budget_bytes}
    for quant in QUANTIZATIONS:
        if quant in fitting:
            return quant
    if fitting:
        return max(fitting, key=lambda quant: fitting[quant])
    smallest = min(sizes, key=lambda quant: sizes[quant])
    raise MemoryError(
        f"{name}: even {smallest} needs {_mib(int(sizes[smallest] * _ROOM))} MiB, "
        f"{_mib(budget_bytes)} MiB may be taken"
    )


def choose_file(folder: Path, quantization: str | None, budget_bytes: int) -> Path:
    """
    The GGUF file of a folder to run; the folder itself where it holds none.

    Raises:
        ModelNotFoundError: there is none in the format asked for; lists those there are.
        MemoryError: none fits.
    """
    found = {_quant_of(path.name): path for path in sorted(folder.glob("*.gguf"))}
    if not found:
        return folder
    if quantization is None:
        sizes = {quant: path.stat().st_size for quant, path in found.items()}
        return found[best_fit(sizes, budget_bytes, folder.name)]
    if quantization not in found:
        raise ModelNotFoundError(f"{folder} has no {quantization}; it has {', '.join(found)}")
    return found[quantization]


def choose_download(source: HubSource, budget_bytes: int) -> HubSource:
    """
    The source with a number format that fits into memory.

    Raises:
        MemoryError: none fits.
        DownloadError: the hub cannot be asked.
    """
    from quintet.hub.download import Retries
    from quintet.hub.repository import read_repository
    from quintet.hub.transport import Transport

    with Transport() as transport:
        repository = Retries(max_failures=_MAX_FAILURES).call(
            lambda: read_repository(transport, source.repo)
        )
    sizes: dict[str, int] = {}
    for file in repository.files:
        if file.name.lower().endswith(".gguf") and "mmproj" not in file.name.lower():
            quant = _quant_of(file.name)
            sizes[quant] = sizes.get(quant, 0) + file.size_bytes  # the parts of one
    if not sizes:
        return source  # safetensors, of which there is one
    return HubSource(source.repo, best_fit(sizes, budget_bytes, source.repo))


def quantization_of(manifest: Manifest) -> str | None:
    """The format in a model's name or file name; None where neither says."""
    for text in (manifest.name.rpartition(":")[2], manifest.path.name):
        if (match := _QUANT.search(text)) is not None:
            return match[1].upper()
    return None


def context_for(path: Path, parameters: Mapping[str, object], ctx_size: int) -> int | None:
    """
    Tokens of prompt and answer together; None for as many as the model was trained for, where
    that is no more than wanted.

    Args:
        parameters: the model's own, which may have a num_ctx.
    """
    wanted = parameters.get("num_ctx")
    ctx_size = wanted if isinstance(wanted, int) and wanted > 1 else ctx_size
    try:
        with GGUFFile.open(path) as file:
            architecture = file.metadata.get("general.architecture")
            trained = file.metadata.get(f"{architecture}.context_length")
    except (ModelFormatError, QuintetModelNotFoundError, OSError):
        trained = _config_context(path)
    return None if isinstance(trained, int) and trained <= ctx_size else ctx_size


def _config_context(path: Path) -> object:
    from quintet.formats import strict_json

    folder = path if path.is_dir() else path.parent
    if not (folder / "config.json").is_file():
        return None
    config = strict_json.load_object(folder / "config.json", max_bytes=2**24)
    return config.get("max_position_embeddings")


def _quant_of(file_name: str) -> str:
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", file_name[: -len(".gguf")])
    labels = _QUANT.findall(stem)
    return labels[-1].upper() if labels else stem


def _mib(num_bytes: int) -> int:
    return -(-num_bytes // 2**20)
