"""A directory's model as the GGUF file that says the same: keys and tensors.

What would be written is read back with the loader's own code and must give the configuration that
the directory gave, so that what GGUF has no key for is refused instead of written wrong.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from quintet.errors import UnsupportedModelError
from quintet.formats.safetensors import SafetensorsDir
from quintet.formats.weights import TensorInfo, WeightSource
from quintet.models import _pooling
from quintet.models._config import Config
from quintet.models._derived import Derived, DerivedWeights, floats
from quintet.models._registry import AnyConfig, Model, load_model, model_of_gguf, of_directory

_TOLERANCE = 1e-5  # keys are float32, and frequencies are powers of them
# Not compared: GGUF may have rotary pairs in another order, for which the rows are moved.
_MOVED = "rope_interleaved"


@dataclass(frozen=True)
class GGUFModel:
    """
    What a GGUF file of a model holds, but for its vocabulary.

    Args:
        keys: architecture and hyperparameters, floats rounded as the file will have them.
        weights: the file's tensors, each still in the precision of the directory.
        model: what it was made of.
    """

    keys: Mapping[str, Any]
    weights: WeightSource
    model: Model


def as_gguf(source: SafetensorsDir) -> GGUFModel:
    """
    A Hugging Face directory as GGUF.

    Raises:
        UnsupportedModelError: an architecture that is not ours, or a value that GGUF cannot say.
        ModelFormatError: see `load_model`.
    """
    architecture = of_directory(source)
    model = load_model(source)
    config, weights = model.config, model.weights
    own = {
        **architecture.to_gguf(config, weights),
        **_pooling_key(model),
    }
    keys: dict[str, Any] = {"general.architecture": architecture.name}
    for key, value in own.items():
        rounded = float(np.float32(value)) if isinstance(value, float) else value
        keys[f"{architecture.name}.{key}"] = rounded
    written = architecture.as_gguf_weights(_read_only(weights, model), config)
    written = _with_factors(written, config)
    path = str(source.directory)
    again = model_of_gguf(keys, written, path)
    _check_same(config, again.config)
    if isinstance(config, Config) and isinstance(again.config, Config):
        if again.config.rope_interleaved and not config.rope_interleaved:
            written = _interleaved(written, config)
        elif config.rope_interleaved and not again.config.rope_interleaved:
            raise UnsupportedModelError("to write as GGUF", "neighbouring rotary pairs")
    return GGUFModel(keys, written, model)


def _pooling_key(model: Model) -> dict[str, Any]:
    pooling = "rank" if model.head == "labels" else model.pooling
    return {} if pooling is None else {"pooling_type": _pooling.gguf_type(pooling)}


def _check_same(expected: AnyConfig, found: AnyConfig) -> None:
    for field in dataclasses.fields(expected):
        if not field.compare or field.name == _MOVED:
            continue
        wanted, given = (_value(config, field.name) for config in (expected, found))
        if not _is_same(wanted, given):
            raise UnsupportedModelError(
                "to write as GGUF",
                f"{field.name} {wanted!s:.60}: a reader would take it for {given!s:.60}",
            )


def _value(config: AnyConfig, name: str) -> Any:
    value = getattr(config, name)
    if name == "attention_scale" and value is None:
        return config.head_dim**-0.5
    return value


def _is_same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_is_same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=_TOLERANCE)
    return bool(a == b)


def _read_only(source: WeightSource, model: Model) -> WeightSource:
    """Without what the program does not read: heads of training, computed tables."""
    unread = [name for name in source.tensors if name not in model.program.weights]
    return DerivedWeights(source, [], without=unread)


def _with_factors(source: WeightSource, config: AnyConfig) -> WeightSource:
    """With the tensors of factors by which rotary frequencies are divided."""
    if not isinstance(config, Config) or config.stored_rope is None:
        return source
    arrays = {
        name: np.array(factors, np.float32) for name, factors in config.stored_rope.factors.items()
    }
    return DerivedWeights(
        source, [floats(name, array.shape, (), array.copy) for name, array in arrays.items()]
    )


def _interleaved(source: WeightSource, config: Config) -> WeightSource:
    """Rows of q and k with those of each head in GGUF's order: i and i + half are neighbours."""
    derived = []
    for name, info in source.tensors.items():
        module, _, _ = name.rpartition(".")
        if not module.endswith((".attn_q", ".attn_k")):
            continue
        heads = config.num_heads if module.endswith("q") else config.num_kv_heads
        derived.append(_moved(source, dataclasses.replace(info, name=name), heads))
    return DerivedWeights(source, derived)


def _moved(source: WeightSource, info: TensorInfo, num_heads: int) -> Derived:
    def moved(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        rows = values.reshape(num_heads, 2, info.shape[0] // num_heads // 2, -1)
        return np.ascontiguousarray(rows.swapaxes(1, 2))

    def dequantized() -> npt.NDArray[np.float32]:
        return moved(source.dequantized(info.name)).reshape(info.shape)

    def raw() -> npt.NDArray[np.uint8]:
        return moved(source.raw(info.name)).reshape(-1)

    return Derived(info, (info.name,), raw, dequantized)
