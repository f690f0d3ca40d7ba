"""What /api/tags, /api/show and /api/ps tell of models, read from their files' headers."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quintet.errors import QuintetError
from quintet.hub.manifest import DEFAULT_TAG, Manifest
from quintet.hub.modelfile import render_modelfile
from quintet.server.dialects.ollama.prompts import template_thinks
from quintet.server.dialects.ollama.replies import timestamp
from quintet.server.served_model import ServedModel
from quintet.tools.inspect import Inspection, inspect_model

_MAX_ARRAY = 5  # longer ones are told only when asked for
_NEVER_S = 100 * 365 * 24 * 3600.0  # of "for ever", which JSON has no date for
_FIM_TOKENS = ("<|fim_prefix|>", "<fim_prefix>", "<fim-prefix>", "<PRE>", "▁<PRE>")
_ENCODERS = frozenset({"bert", "nomic-bert", "modern-bert", "jina-bert-v2"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What a model's file says of it.

    Args:
        format: "gguf" or "safetensors".
        family: the architecture.
        num_parameters: weights of all tensors together.
        quantization: of most weights, by llama.cpp's names.
        context_length: tokens, or None where the file does not say.
        embedding_length: width, or None.
        template: the chat template, or nothing.
        fills_gaps: the vocabulary has marks for that.
        model_info: GGUF's keys and values.
        tensors: name, type and shape of each.
    """

    format: str
    family: str
    num_parameters: int
    quantization: str
    context_length: int | None
    embedding_length: int | None
    template: str
    fills_gaps: bool
    model_info: Mapping[str, Any]
    tensors: tuple[Mapping[str, Any], ...]

    @property
    def capabilities(self) -> list[str]:
        """Ollama's words for what the model can do; clients choose models by them."""
        if self.family in _ENCODERS:
            return ["embedding"]
        found = ["completion"]
        if "tools" in self.template:
            found.append("tools")
        if self.fills_gaps:
            found.append("insert")
        if template_thinks(self.template):
            found.append("thinking")
        return found


def facts(manifest: Manifest) -> Facts:
    """What the model's file says, read once as long as it does not change.

    Raises:
        QuintetError: it cannot be read.
    """
    try:
        changed_ns = manifest.path.stat().st_mtime_ns
    except OSError:
        changed_ns = 0
    return _read_facts(manifest.path, changed_ns, manifest.template)


def entry(manifest: Manifest) -> dict[str, Any]:
    """A model in /api/tags; one whose file cannot be read still has its name."""
    name = tagged(manifest.name)
    described: dict[str, Any] = {
        "name": name,
        "model": name,
        "modified_at": timestamp(manifest.modified_at),
        "size": manifest.size_bytes,
        "digest": manifest.digest,
        "details": _details(None),
        "capabilities": [],
    }
    try:
        found = facts(manifest)
    except (QuintetError, OSError):
        return described
    return {**described, "details": _details(found), "capabilities": found.capabilities}


def running_entry(model: ServedModel) -> dict[str, Any]:
    """A model in /api/ps."""
    left_s = min(model.expires_at_s - time.monotonic(), _NEVER_S)
    described = entry(model.manifest)
    for key in ("modified_at", "capabilities"):
        del described[key]
    return {
        **described,
        "size": model.num_bytes,
        "size_vram": 0,
        "expires_at": timestamp(time.time() + max(0.0, left_s)),
        "context_length": model.engine.limits.max_model_len,
    }


def show(manifest: Manifest, *, verbose: bool) -> dict[str, Any]:
    """The body of /api/show.

    Raises:
        QuintetError: the model's file cannot be read.
    """
    found = facts(manifest)
    template = manifest.template or found.template
    return {
        "license": manifest.license or str(found.model_info.get("general.license", "")),
        "modelfile": _modelfile(manifest),
        "parameters": _parameters(manifest),
        "template": template,
        "system": manifest.system or "",
        "details": _details(found),
        "messages": [dict(message) for message in manifest.messages],
        "model_info": {
            key: _shown(value, verbose=verbose) for key, value in found.model_info.items()
        },
        "tensors": list(found.tensors) if verbose else [],
        "capabilities": found.capabilities,
        "modified_at": timestamp(manifest.modified_at),
    }


def tagged(name: str) -> str:
    """The name with its tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:{DEFAULT_TAG}"


@functools.lru_cache(maxsize=256)
def _read_facts(path: Path, changed_ns: int, template: str | None) -> Facts:
    inspection = inspect_model(path)
    if inspection.format.startswith("GGUF"):
        return _gguf_facts(inspection, template)
    config = inspection.metadata
    family = str(config.get("model_type", ""))
    context_length = _integer(config.get("max_position_embeddings"))
    embedding_length = _integer(config.get("hidden_size"))
    return Facts(
        "safetensors",
        family,
        inspection.num_parameters,
        _quantization(inspection),
        context_length,
        embedding_length,
        _directory_template(path) if template is None else template,
        fills_gaps=False,
        model_info={
            "general.architecture": family,
            "general.parameter_count": inspection.num_parameters,
            f"{family}.context_length": context_length,
            f"{family}.embedding_length": embedding_length,
        },
        tensors=_tensors(inspection),
    )


def _gguf_facts(inspection: Inspection, template: str | None) -> Facts:
    metadata = inspection.metadata
    family = str(metadata.get("general.architecture", ""))
    own = metadata.get("tokenizer.chat_template", "")
    vocabulary = metadata.get("tokenizer.ggml.tokens", ())
    return Facts(
        "gguf",
        family,
        inspection.num_parameters,
        _quantization(inspection),
        _integer(metadata.get(f"{family}.context_length")),
        _integer(metadata.get(f"{family}.embedding_length")),
        str(own) if template is None else template,
        fills_gaps=any(key.startswith("tokenizer.ggml.fim_") for key in metadata)
        or any(mark in vocabulary for mark in _FIM_TOKENS),
        model_info={**metadata, "general.parameter_count": inspection.num_parameters},
        tensors=_tensors(inspection),
    )


def _tensors(inspection: Inspection) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        {"name": tensor.name, "type": tensor.ggml_type.name, "shape": list(tensor.shape)}
        for tensor in inspection.tensors
    )


def _quantization(inspection: Inspection) -> str:
    if inspection.file_type is not None:
        return inspection.file_type
    totals = inspection.totals()
    return totals[0].type if totals else "unknown"


def _details(found: Facts | None) -> dict[str, Any]:
    family = found.family if found else ""
    details: dict[str, Any] = {
        "parent_model": "",
        "format": found.format if found else "",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": parameter_size(found.num_parameters) if found else "",
        "quantization_level": found.quantization if found else "",
    }
    if found and found.context_length:
        details["context_length"] = found.context_length
    if found and found.embedding_length:
        details["embedding_length"] = found.embedding_length
    return details


def parameter_size(count: int) -> str:
    """A count of weights as people write it, e.g. 8.0B."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}" if unit == "B" else f"{count / size:.2f}{unit}"
    return str(count)


def _parameters(manifest: Manifest) -> str:
    lines = []
    for name, value in manifest.parameters.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        lines += [f"{name:<30} {_quoted(item)}" for item in values]
    return "\n".join(lines)


def _modelfile(manifest: Manifest) -> str:
    """The model as a Modelfile; FROM names it, for no path of this machine is told."""
    return render_modelfile(dataclasses.replace(manifest, path=Path(manifest.name)))


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _shown(value: Any, *, verbose: bool) -> Any:
    """A value of the metadata in JSON's types; long arrays are left empty."""
    if value is None or isinstance(value, (bool, int, str)):
        return value.encode(errors="replace").decode() if isinstance(value, str) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _shown(item, verbose=verbose) for key, item in value.items()}
    if hasattr(value, "__len__") and len(value) > _MAX_ARRAY and not verbose:
        return []
    items = value.tolist() if hasattr(value, "tolist") else list(value)
    return [_shown(item, verbose=verbose) for item in items]


def _directory_template(path: Path) -> str:
    """The chat template of a Hugging Face directory, or nothing."""
    folder = path if path.is_dir() else path.parent
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        try:
            text = (folder / name).read_text()
        except (OSError, UnicodeDecodeError):
            continue
        if name.endswith(".jinja"):
            return text
        try:
            template = json.loads(text).get("chat_template")
        except (ValueError, AttributeError):
            return ""
        return template if isinstance(template, str) else ""
    return ""


def _integer(value: Any) -> int | None:
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None
