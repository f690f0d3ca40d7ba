"""Finds the architecture a model file asks for and builds its program.

An architecture is a public module of this package with a constant
`ARCHITECTURE`; putting the file there registers it.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import quintet.models as package
from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.formats.gguf import GGUFFile
from quintet.formats.safetensors import SafetensorsDir
from quintet.formats.weights import WeightSource
from quintet.graph import Graph, Program, Tensor
from quintet.models import _pooling, _rope
from quintet.models._config import Config
from quintet.models._encoder import SCORES, EncoderConfig
from quintet.models._pooling import Pooling
from quintet.models._weights import RenamedWeights

# Tensors that files carry and that no program reads: computed from the configuration instead.
IGNORED_SUFFIXES = (
    _rope.ROPE_FACTORS,
    _rope.LONG_FACTORS,
    _rope.SHORT_FACTORS,
    "rotary_emb.inv_freq",
)

AnyConfig: TypeAlias = Config | EncoderConfig


def _as_they_are(weights: WeightSource) -> WeightSource:
    return weights


def _no_others(weights: WeightSource, _: AnyConfig) -> WeightSource:
    return weights


@dataclass(frozen=True)
class Architecture:
    """One model family.

    Args:
        name: GGUF's `general.architecture`.
        hf_names: entries of config.json's `architectures` that mean it.
        from_gguf, from_hf: stored configuration to `Config`.
        to_gguf: the keys of a GGUF file, without the architecture's name: what `from_gguf` makes
            the same configuration of.
        build: writes the program; see `quintet.graph`.
        weight_names: GGUF tensor name to Hugging Face name, `{i}` for the layer and `{e}` for the
            expert.
        gguf_weights: makes the tensors that `build` reads of those of a GGUF file.
        as_gguf_weights: the other way round, where GGUF files are written otherwise than `build`
            reads.
        hf_weights: makes the tensors of a GGUF file of those of a directory, already renamed,
            where they differ by more than names.
        hf_nested: how names begin in the directory of a model that this one is a part of, and what
            stands for it in `weight_names`.
        hf_prefix: of the names of the model proper where it has a head, and which files of the
            model without one leave out.
        ignored: how names begin, of either kind, that stand for what we have no use for: heads
            of training.  Other tensors that the program does not read are refused.
    """

    name: str
    hf_names: tuple[str, ...]
    from_gguf: Callable[[Mapping[str, Any], WeightSource, str | None], AnyConfig]
    from_hf: Callable[[Mapping[str, Any], WeightSource, str | None], AnyConfig]
    to_gguf: Callable[[Any, WeightSource], dict[str, Any]]
    build: Callable[[Graph, Any], Tensor]
    weight_names: Mapping[str, str]
    gguf_weights: Callable[[WeightSource], WeightSource] = _as_they_are
    as_gguf_weights: Callable[[WeightSource, Any], WeightSource] = _no_others
    hf_weights: Callable[[WeightSource], WeightSource] = _as_they_are
    hf_nested: Mapping[str, str] = field(default_factory=dict)
    hf_prefix: str = ""
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """A model ready for a backend: what to compute, and where its weights are.

    Args:
        pooling: how its file wants the rows of a text made one vector; None where it does not say.
    """

    config: AnyConfig
    program: Program
    weights: WeightSource
    pooling: Pooling | None = None

    @property
    def head(self) -> Literal["logits", "labels", "none"]:
        """What the program's output is: logits of tokens, scores of labels, or hidden rows."""
        if self.program.output == self.program.hidden:
            return "none"
        return "labels" if SCORES in self.program.weights else "logits"


@functools.cache
def architectures() -> dict[str, Architecture]:
    """Every architecture of this package, by GGUF name."""
    found = {}
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            loaded = importlib.import_module(f"{package.__name__}.{module.name}")
            found[loaded.ARCHITECTURE.name] = loaded.ARCHITECTURE
    return found


def load_model(source: GGUFFile | SafetensorsDir, *, context_length: int | None = None) -> Model:
    """Read the configuration and build the program; weights stay in the file.

    Args:
        context_length: tokens that no sequence will exceed, for models that have frequencies of
            their own for short ones; None for as many as the model can take.

    Raises:
        UnsupportedModelError: an architecture, or a tensor, that is not ours yet.
        ModelFormatError: keys or shapes that do not fit together.
    """
    if isinstance(source, GGUFFile):
        return model_of_gguf(
            source.metadata, source, str(source.path), context_length=context_length
        )
    path = str(source.directory)
    architecture = of_directory(source)
    weights = architecture.hf_weights(
        RenamedWeights(
            source, architecture.weight_names, architecture.hf_prefix, architecture.hf_nested
        )
    )
    config = architecture.from_hf(source.config, weights, path)
    pooling = _pooling.from_directory(source.directory)
    if isinstance(config, EncoderConfig):
        shorter = _pooling.max_seq_length(source.directory) or config.context_length
        config = dataclasses.replace(config, context_length=min(shorter, config.context_length))
    if source.config.get("tie_word_embeddings") is False and config.tie_word_embeddings:
        raise ModelFormatError("the tensor is missing", path=path, part="lm_head.weight")
    return _model(architecture, config, weights, pooling, path, context_length)


def config_of_gguf(
    metadata: Mapping[str, Any], weights: WeightSource, path: str
) -> tuple[Architecture, AnyConfig, WeightSource]:
    """What `model_of_gguf` builds a program from: configuration, and tensors as the program's.

    Raises:
        UnsupportedModelError, ModelFormatError: an unknown architecture, a bad key or tensor.
    """
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        raise ModelFormatError("the key is missing", path=path, part="general.architecture")
    architecture = architectures().get(name)
    if architecture is None:
        raise UnsupportedModelError("architecture", name, architectures())
    weights = architecture.gguf_weights(weights)
    return architecture, architecture.from_gguf(metadata, weights, path), weights


def model_of_gguf(
    metadata: Mapping[str, Any],
    weights: WeightSource,
    path: str,
    *,
    context_length: int | None = None,
) -> Model:
    """`load_model` for what is in a GGUF file, or will be.

    Args:
        weights: the file's tensors.
        path: of the file, for messages.

    Raises:
        UnsupportedModelError, ModelFormatError: as `load_model`.
    """
    architecture, config, weights = config_of_gguf(metadata, weights, path)
    pooling = _pooling.from_gguf(metadata, config.architecture, path)
    return _model(architecture, config, weights, pooling, path, context_length)


def _model(
    architecture: Architecture,
    config: AnyConfig,
    weights: WeightSource,
    pooling: Pooling | None,
    path: str,
    context_length: int | None,
) -> Model:
    if isinstance(config, Config):
        config = config.for_context(context_length)
    graph = Graph({name: info.shape for name, info in weights.tensors.items()}, path)
    program = graph.program(architecture.build(graph, config))
    _check_all_read(program, weights, architecture.ignored, path)
    return Model(config, program, weights, pooling)


def of_directory(source: SafetensorsDir) -> Architecture:
    """The architecture that a directory's config.json asks for.

    Raises:
        UnsupportedModelError: it is not ours yet.
        ModelFormatError: config.json names none.
    """
    return _from_hf_names(source.config, str(source.directory))


def _from_hf_names(config: Mapping[str, Any], path: str) -> Architecture:
    names = config.get("architectures")
    if not isinstance(names, list) or not names:
        raise ModelFormatError("expected a list of names", path=path, part="architectures")
    known = {hf: a for a in architectures().values() for hf in a.hf_names}
    for name in names:
        if name in known:
            return known[name]
    raise UnsupportedModelError("architecture", str(names[0]), known)


def _check_all_read(
    program: Program, weights: WeightSource, ignored: tuple[str, ...], path: str
) -> None:
    """A tensor the program does not read means a model we would run wrong."""
    for name in weights.tensors:
        if name not in program.weights and not (
            name.endswith(IGNORED_SUFFIXES) or name.startswith(ignored)
        ):
            raise UnsupportedModelError("tensor", f"{name} in {path}")
