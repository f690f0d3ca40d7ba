"""Where a model of a name can be downloaded from."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from quintet.errors import ModelNotFoundError
from quintet.hub.manifest import DEFAULT_TAG, canonical_name

HUB = "hf.co"

_QWEN3 = "Qwen/Qwen3-{}-GGUF"
_QWEN25 = "bartowski/Qwen2.5-{}-Instruct-GGUF"
_CODER = "bartowski/Qwen2.5-Coder-{}-Instruct-GGUF"
_LLAMA32 = "bartowski/Llama-3.2-{}-Instruct-GGUF"
_SMOLLM2 = "bartowski/SmolLM2-{}-Instruct-GGUF"

# Short names and the repositories they stand for.  A tag without a size is Ollama's choice.
_ALIASES = {
    **{f"qwen3:{size.lower()}": _QWEN3.format(size) for size in ("0.6B", "1.7B", "4B", "8B")},
    **{f"qwen3:{size.lower()}": _QWEN3.format(size) for size in ("14B", "32B")},
    "qwen3:latest": _QWEN3.format("8B"),
    **{f"qwen2.5:{size.lower()}": _QWEN25.format(size) for size in ("0.5B", "1.5B", "3B", "7B")},
    **{f"qwen2.5:{size.lower()}": _QWEN25.format(size) for size in ("14B", "32B")},
    "qwen2.5:latest": _QWEN25.format("7B"),
    **{f"qwen2.5-coder:{size.lower()}": _CODER.format(size) for size in ("1.5B", "7B", "14B")},
    "qwen2.5-coder:latest": _CODER.format("7B"),
    "llama3.2:1b": _LLAMA32.format("1B"),
    "llama3.2:3b": _LLAMA32.format("3B"),
    "llama3.2:latest": _LLAMA32.format("3B"),
    "llama3.1:8b": "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF",
    "llama3.1:latest": "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF",
    "smollm2:135m": _SMOLLM2.format("135M"),
    "smollm2:360m": _SMOLLM2.format("360M"),
    "smollm2:1.7b": _SMOLLM2.format("1.7B"),
    "smollm2:latest": _SMOLLM2.format("1.7B"),
    "tinyllama:1.1b": "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF",
    "tinyllama:latest": "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF",
}


@dataclass(frozen=True)
class HubSource:
    """
    A model in a repository of the Hugging Face Hub.

    Args:
        repo: `user/repo`.
        quant: which of its files, e.g. Q4_K_M; None: the usual one.
    """

    repo: str
    quant: str | None = None

    def __str__(self) -> str:
        return f"{HUB}/{self.repo}" + (f":{self.quant}" if self.quant else "")


def aliases() -> dict[str, HubSource]:
    """The short names there are, and what they stand for."""
    return {name: HubSource(repo) for name, repo in _ALIASES.items()}


def hub_source(name: str) -> HubSource:
    """
    Where to download a model from.

    Args:
        name: `hf.co/user/repo[:QUANT]`, `huggingface.co/...` with or without `https://`, or a
            short name such as `qwen3:0.6b`.

    Raises:
        RequestError: it is no name.
        ModelNotFoundError: a name that stands for no repository.
    """
    name = download_name(name)
    model, _, tag = name.partition(":")
    quant = None if tag == DEFAULT_TAG else tag
    parts = model.split("/")
    if parts[0] == HUB and len(parts) == 3:
        return HubSource(f"{parts[1]}/{parts[2]}", quant)
    repo = _ALIASES.get(name.lower())
    if repo is not None:
        return HubSource(repo)
    if len(parts) == 2 and parts[0] != HUB:
        raise ModelNotFoundError(f"no model {name!r} to download; did you mean {HUB}/{name}?")
    near = difflib.get_close_matches(name.lower(), _ALIASES, n=3, cutoff=0.5)
    raise ModelNotFoundError(
        f"no model {name!r} to download; expected {HUB}/user/repo[:QUANT] or one of "
        f"{', '.join(near or sorted(_ALIASES))}"
    )


def download_name(text: str) -> str:
    """
    The canonical name of what is to be downloaded; an address from a browser will do.

    Raises:
        RequestError: it is no name.
    """
    for scheme in ("https://", "http://"):
        if text.startswith(scheme):
            text = text.removeprefix(scheme).removesuffix("/").removesuffix("/tree/main")
    return canonical_name(text)
