"""From a model's file to an engine that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from quintet.backends import (
    block_bytes,
    default_cache_directory,
    executor_memory,
    load_executor,
    resolve_kv_dtype,
)
from quintet.config import EngineConfig
from quintet.engine.embedding_spec import embedding_spec
from quintet.engine.engine import Engine
from quintet.engine.sizing import available_memory_bytes, check_limit, plan_cache, plan_encoder
from quintet.engine.speculation.draft_model import ModelDrafter
from quintet.errors import CapacityError, RequestError
from quintet.formats.gguf import GGUFFile
from quintet.formats.model_file import open_model_file
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import Model, load_model
from quintet.sampling.breakers import DryBreakers
from quintet.sampling.grammar import GrammarCompiler
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
        use_mmap: map the model's files.  Otherwise they are read, one tensor at a time: for file
            systems where faults are slow, or files that others may cut off meanwhile.
        use_mlock: keep the packed weights in physical memory, never swapped out.
        max_memory: bytes that weights, KV cache and buffers may take together; the interpreter and
            the tokenizer come on top.  The cache is sized to fit; what cannot fit is refused
            before it is allocated.
        packed_cache: keep the packed weights in a file, as large as they are, that the next start
            maps instead of packing them again.  True for a folder under $XDG_CACHE_HOME, or a
            folder's path.

    Raises:
        RequestError: a value that is none of these.
    """

    backend: Backend = "auto"
    dtype: Dtype = "auto"
    kv_dtype: CacheDtype = "auto"
    num_threads: int | None = None
    use_mmap: bool = True
    use_mlock: bool = False
    max_memory: int | None = None
    packed_cache: bool | str = False

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
        if self.max_memory is not None and self.max_memory < 1:
            raise RequestError(
                f"expected at least 1 byte, found {self.max_memory}", parameter="max_memory"
            )
        if self.packed_cache == "":
            raise RequestError("expected a folder, found no name", parameter="packed_cache")

    @property
    def packed_cache_directory(self) -> Path | None:
        """Where packed weights are kept, if they are."""
        if isinstance(self.packed_cache, str):
            return Path(self.packed_cache)
        return default_cache_directory() if self.packed_cache else None


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
        config: a draft model in it is given by its path, too.

    Raises:
        ModelNotFoundError, ModelFormatError, UnsupportedModelError: the model cannot be read.
        RequestError: an option that this model cannot take.
        CapacityError: weights or KV cache do not fit in memory.
    """
    with ExitStack() as stack:
        source = open_model_file(path, use_mmap=options.use_mmap)
        stack.enter_context(source)
        reading = _TokenizerReading(source, stack.enter_context(ThreadPoolExecutor(max_workers=1)))
        model = load_model(source, context_length=config.max_model_len)
        kv_dtype = resolve_kv_dtype(options.dtype, options.kv_dtype)
        sources, models = [source], [model]
        if config.draft_speculation is not None:
            draft_path = Path(config.draft_speculation.model)
            sources.append(open_model_file(draft_path, use_mmap=options.use_mmap))
            stack.enter_context(sources[1])
            _check_draft_vocabulary(reading.result(), _tokenizer(sources[1]), draft_path)
            models.append(load_model(sources[1], context_length=config.max_model_len))
        # A draft model keeps the same tokens, in blocks of its own.
        bytes_per_block = sum(block_bytes(model, kv_dtype) for model in models)
        max_num_step_tokens = config.max_num_batched_tokens
        if all(model.program.is_causal for model in models):
            weight_bytes = sum(info.num_bytes for s in sources for info in s.tensors.values())
            buffer_bytes = 0
            if options.max_memory is not None:
                weight_bytes, buffer_bytes = _memory_of(
                    models, options, max_num_step_tokens, config.max_logits_rows
                )
            plan = plan_cache(
                config,
                context_length=model.config.context_length,
                block_bytes=bytes_per_block,
                weight_bytes=weight_bytes,
                available_bytes=available_memory_bytes(),
                max_memory=options.max_memory,
                buffer_bytes=buffer_bytes,
            )
        elif len(models) == 1:
            plan = plan_encoder(config, model.config.context_length)
            max_num_step_tokens = max(max_num_step_tokens, plan.max_model_len)
            if options.max_memory is not None:
                weight_bytes, buffer_bytes = _memory_of(
                    models, options, max_num_step_tokens, config.max_logits_rows
                )
                check_limit(
                    options.max_memory,
                    weight_bytes=weight_bytes,
                    buffer_bytes=buffer_bytes,
                    cache_bytes=plan.num_blocks * bytes_per_block,
                )
        else:
            raise RequestError(
                "expected two models that generate text, found an encoder", parameter="draft_model"
            )
        try:
            executors = [
                load_executor(
                    model,
                    backend=options.backend,
                    weight_dtype=options.dtype,
                    kv_dtype=options.kv_dtype,
                    num_threads=options.num_threads,
                    use_mlock=options.use_mlock,
                    packed_cache=options.packed_cache_directory,
                    on_compiled=reading.start,
                    num_blocks=plan.num_blocks,
                    max_num_batched_tokens=max_num_step_tokens,
                    max_logits_rows=config.max_logits_rows,
                )
                for model in models
            ]
        except MemoryError as error:
            raise CapacityError(f"{path.name} does not fit: {error}", resource="memory") from error
        tokenizer = reading.result()
        eos_ids = frozenset(tokenizer.eog_ids) | _configured_eos_ids(source)

    def new_detokenizer(
        prompt_token_ids: Sequence[int], visible_ids: frozenset[int]
    ) -> Detokenizer:
        return Detokenizer(tokenizer, prompt_ids=prompt_token_ids, visible_ids=visible_ids)

    drafter = None
    if config.draft_speculation is not None:
        drafter = ModelDrafter(
            executors[1],
            vocab_size=tokenizer.vocab_size,
            max_draft_tokens=config.draft_speculation.max_draft_tokens,
            max_num_mixed_prefill_tokens=config.max_num_mixed_prefill_tokens,
        )
    breakers = DryBreakers(
        tokenizer.vocab_size,
        tokenizer.token_bytes,
        lambda text: tokenizer.encode(text, add_special=False),
    )
    engine = Engine(
        executors[0],
        new_detokenizer,
        eos_ids=eos_ids,
        max_model_len=plan.max_model_len,
        vocab_size=tokenizer.vocab_size,
        resolve_breakers=breakers.resolve,
        config=config,
        drafter=drafter,
        block_bytes=bytes_per_block,
        grammars=GrammarCompiler(tokenizer, eos_ids),
        embedding=embedding_spec(model, source),
        can_generate=model.head == "logits",
    )
    return LoadedModel(engine, tokenizer)


def load_tokenizer(path: Path) -> Tokenizer:
    """
    The tokenizer of a model that runs elsewhere.

    Raises: as for `load`, as far as they concern the tokenizer.
    """
    with open_model_file(path) as source:
        return _tokenizer(source)


class _TokenizerReading:
    """The tokenizer of a model, read beside the packing of its weights.

    A large vocabulary takes a third of a second, most of it in calls that keep the interpreter to
    themselves.  Packing does without the interpreter, but not what goes before it: so it must be
    packing's turn first.
    """

    def __init__(self, source: GGUFFile | SafetensorsDir, pool: ThreadPoolExecutor) -> None:
        self._source = source
        self._pool = pool
        self._reading: Future[Tokenizer] | None = None

    def start(self) -> None:
        """Begin, if nobody has yet."""
        self._begun()

    def result(self) -> Tokenizer:
        """Wait for it.  Raises what reading raised."""
        return self._begun().result()

    def _begun(self) -> Future[Tokenizer]:
        if self._reading is None:
            self._reading = self._pool.submit(_tokenizer, self._source)
        return self._reading


def _memory_of(
    models: Sequence[Model],
    options: ModelOptions,
    max_num_batched_tokens: int,
    max_logits_rows: int,
) -> tuple[int, int]:
    """Bytes of weights and of buffers that the models' executors will take."""
    needs = [
        executor_memory(
            model,
            backend=options.backend,
            weight_dtype=options.dtype,
            max_num_batched_tokens=max_num_batched_tokens,
            max_logits_rows=max_logits_rows,
        )
        for model in models
    ]
    return sum(weights for weights, _ in needs), sum(buffers for _, buffers in needs)


def _tokenizer(source: GGUFFile | SafetensorsDir) -> Tokenizer:
    if isinstance(source, GGUFFile):
        return Tokenizer.from_gguf(source.metadata)
    return Tokenizer.from_file(source.directory)


def _check_draft_vocabulary(tokenizer: Tokenizer, draft: Tokenizer, path: Path) -> None:
    """Guesses are token ids: they must mean the same to both models.

    Raises:
        RequestError: names the first token that differs.
    """
    for token_id in range(min(tokenizer.vocab_size, draft.vocab_size)):
        mine, its = tokenizer.token_text(token_id), draft.token_text(token_id)
        if mine != its:
            raise RequestError(
                f"expected the vocabulary of the model it guesses for, found token {token_id} to "
                f"be {its!r} in {path.name} instead of {mine!r}",
                parameter="draft_model",
            )


def _configured_eos_ids(source: GGUFFile | SafetensorsDir) -> frozenset[int]:
    """What generation_config.json adds to the tokenizer's own: an id or a list of them."""
    if isinstance(source, GGUFFile):
        return frozenset()
    value: Any = source.generation_config.get("eos_token_id")
    values = value if isinstance(value, list) else [value]
    return frozenset(item for item in values if isinstance(item, int))
