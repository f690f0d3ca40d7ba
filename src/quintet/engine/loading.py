"""From a model's file to an engine that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from quintet.backends import block_bytes, load_executor, resolve_kv_dtype
from quintet.config import EngineConfig
from quintet.engine.engine import Engine
from quintet.engine.sizing import available_memory_bytes, plan_cache
from quintet.errors import CapacityError, RequestError
from quintet.formats.gguf import GGUFFile
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import load_model
from quintet.tokenizer import Detokenizer, Tokenizer

Backend: TypeAlias = Literal["auto", "cpu", "reference"]
Dtype: TypeAlias = Literal["auto", "float32", "bfloat16", "int8"]
CacheDtype: TypeAlias = Literal["auto", "float32", "bfloat16", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """
    How a model is loaded.

    Args:
        backend: what computes: "cpu", or "reference" (NumPy: slow, exact, for tests).
            "auto" is "cpu".
        dtype: of the weights; "auto" keeps what the file has.
        kv_dtype: of the KV cache; "auto" is bfloat16, or float32 where `dtype` is; "int8" takes
            half of bfloat16's memory, and rounds attention by up to 1 %.
        num_threads: None for one per physical core this process may use.

    Raises:
        RequestError: a value that is none of these.
    """

    backend: Backend = "auto"
    dtype: Dtype = "auto"
    kv_dtype: CacheDtype = "auto"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        for parameter, choices in (
            ("backend", get_args(Backend)),
            ("dtype", get_args(Dtype)),
            ("kv_dtype", get_args(CacheDtype)),
        ):
            value = getattr(self, parameter)
            if value not in choices:
                raise RequestError(
                    f"expected one of {', '.join(choices)}, found {value!r}", parameter=parameter
                )
        if self.num_threads is not None and self.num_threads < 1:
            raise RequestError(
                f"expected at least 1, found {self.num_threads}", parameter="num_threads"
            )


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An engine, and the tokenizer its clients write and read with."""

    engine: Engine
    tokenizer: Tokenizer


def load(path: Path, options: ModelOptions, config: EngineConfig) -> LoadedModel:
    """
    Load a model and make its engine.

    Args:
        path: a GGUF file, a safetensors file, or a Hugging Face directory.

    Raises:
        ModelNotFoundError, ModelFormatError, UnsupportedModelError: the model cannot be read.
        RequestError: an option that this model cannot take.
        CapacityError: weights or KV cache do not fit in memory.
    """
    with _open(path) as source:
        tokenizer = _tokenizer(source)
        model = load_model(source)
        kv_dtype = resolve_kv_dtype(options.dtype, options.kv_dtype)
        plan = plan_cache(
            config,
            context_length=model.config.context_length,
            block_bytes=block_bytes(model, kv_dtype),
            weight_bytes=sum(info.num_bytes for info in source.tensors.values()),
            available_bytes=available_memory_bytes(),
        )
        try:
            executor = load_executor(
                model,
                backend=options.backend,
                weight_dtype=options.dtype,
                kv_dtype=options.kv_dtype,
                num_threads=options.num_threads,
                num_blocks=plan.num_blocks,
                max_num_batched_tokens=config.max_num_batched_tokens,
                max_num_seqs=config.max_num_seqs,
            )
        except MemoryError as error:
            raise CapacityError(f"{path.name} does not fit: {error}", resource="memory") from error
        eos_ids = frozenset(tokenizer.eog_ids) | _configured_eos_ids(source)

    def new_detokenizer(prompt_token_ids: Sequence[int]) -> Detokenizer:
        return Detokenizer(tokenizer, prompt_ids=prompt_token_ids)

    engine = Engine(
        executor,
        new_detokenizer,
        eos_ids=eos_ids,
        max_model_len=plan.max_model_len,
        vocab_size=tokenizer.vocab_size,
        config=config,
    )
    return LoadedModel(engine, tokenizer)


def _open(path: Path) -> GGUFFile | SafetensorsDir:
    is_safetensors = path.is_dir() or path.suffix == ".safetensors"
    return SafetensorsDir.open(path) if is_safetensors else GGUFFile.open(path)


def _tokenizer(source: GGUFFile | SafetensorsDir) -> Tokenizer:
    if isinstance(source, GGUFFile):
        return Tokenizer.from_gguf(source.metadata)
    return Tokenizer.from_file(source.directory)


def _configured_eos_ids(source: GGUFFile | SafetensorsDir) -> frozenset[int]:
    """What generation_config.json adds to the tokenizer's own: an id or a list of them."""
    if isinstance(source, GGUFFile):
        return frozenset()
    value: Any = source.generation_config.get("eos_token_id")
    values = value if isinstance(value, list) else [value]
    return frozenset(item for item in values if isinstance(item, int))
