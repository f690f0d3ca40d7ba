"""gpt-oss decoder: a mixture of experts with biases and a clamped activation, attention with a sink
for each head, every second layer with a window, YaRN whose ramp has fractional ends.

A directory has gate and up of an expert as one matrix with their rows in turns, either plain and
transposed, [num_experts, in, out], or in MXFP4, [num_experts, out, in] in blocks of 32.

Source: gpt-oss model card, arXiv:2508.10925, section 2; GptOssConfig and its model in transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.quants import dequantize
from quintet.formats.quants_32 import MXFP4
from quintet.formats.weights import TensorInfo, WeightSource
from quintet.graph import Graph, Tensor
from quintet.models import _blocks, _decoder, _to_gguf
from quintet.models._config import MAX_LAYERS, Config, Keys
from quintet.models._derived import Derived, DerivedWeights, floats
from quintet.models._registry import Architecture

_LIMIT = 7.0  # of the activation; GGUF does not say
_ALPHA = 1.702  # of csrc/kernels/kernels.h


def build(g: Graph, c: Config) -> Tensor:
    """Token ids -> logits [num_logits_rows, vocab_size]."""
    x = g.root.embed("token_embd")
    for layer in range(c.num_layers):
        w = g.scope(f"blk.{layer}")
        h = w.rms_norm(x, "attn_norm", eps=c.rms_norm_eps)
        x = g.add(x, _blocks.attend(w, *_blocks.qkv(w, h), layer, c, sinks=True))
        h = w.rms_norm(x, "post_attention_norm", eps=c.rms_norm_eps)
        x = g.add(x, _blocks.moe(w, h, c, biases=True, limit=_LIMIT))
    return _blocks.head(g, x, c)


def from_gguf(metadata: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    keys = Keys(metadata, "gpt-oss.", path)
    num_layers = keys.integer("block_count", maximum=MAX_LAYERS)
    return _decoder.from_gguf(
        metadata,
        source,
        "gpt-oss",
        rope_interleaved=False,
        path=path,
        yarn_truncate=False,
        windows=_decoder.windows_from_gguf(keys, num_layers, period=2),
        num_experts_used=_decoder.experts_used(keys, "expert_used_count"),
    )


def from_hf(config: Mapping[str, Any], source: WeightSource, path: str | None) -> Config:
    keys = Keys(config, path=path)
    for name, ours in (("swiglu_limit", _LIMIT), ("swiglu_alpha", _ALPHA)):
        if keys.number(name, default=ours) != ours:
            raise UnsupportedModelError(name, str(config[name]), (str(ours),))
    num_layers = keys.integer("num_hidden_layers", maximum=MAX_LAYERS)
    default = [layer % 2 == 0 for layer in range(num_layers)]
    return _decoder.from_hf(
        config,
        source,
        "gpt-oss",
        path=path,
        has_windows=True,
        default_theta=150000.0,
        windows=_decoder.windows_from_hf(keys, num_layers, default),
        num_experts_used=_decoder.experts_used(keys, "num_experts_per_tok"),
    )


# -- what a directory's tensors are to GGUF --------------------------------------------------------

_Rows = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]  # picks rows of [num_experts, out, ...]


def _even(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return x[:, ::2]


def _odd(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return x[:, 1::2]


def _all(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return x


def _as_in_gguf(source: WeightSource) -> WeightSource:
    derived = []
    for name in source.tensors:
        block, dot, part = name.partition(".gate_up_exps")
        if dot:
            picks = {f"{block}.ffn_gate_exps": _even, f"{block}.ffn_up_exps": _odd}
        else:
            block, dot, part = name.partition(".down_exps")
            picks = {f"{block}.ffn_down_exps": _all}
        if not dot or part == "_scales":
            continue
        for ours, rows in picks.items():
            if part == "_bias":
                derived.append(_bias(source, name, f"{ours}.bias", rows, len(picks)))
            elif part == "_blocks":
                derived.append(_mxfp4(source, name, f"{ours}.weight", rows, len(picks)))
            else:
                derived.append(_plain(source, name, f"{ours}.weight", rows, len(picks)))
    return DerivedWeights(source, derived)


def _bias(source: WeightSource, name: str, ours: str, rows: _Rows, parts: int) -> Derived:
    num_experts, out = _shape(source, name, 2, parts)
    return floats(ours, (num_experts, out), (name,), lambda: rows(source.dequantized(name)))


def _plain(source: WeightSource, name: str, ours: str, rows: _Rows, parts: int) -> Derived:
    num_experts, width, out = _shape(source, name, 3, parts)
    return floats(
        ours,
        (num_experts, out, width),
        (name,),
        lambda: rows(source.dequantized(name).swapaxes(1, 2)),
    )


def _mxfp4(source: WeightSource, name: str, ours: str, rows: _Rows, parts: int) -> Derived:
    """[num_experts, out, in / 32, 16] bytes of neighbouring pairs and [num_experts, out, in / 32]
    exponents, as GGUF's blocks: an exponent, and bytes of weights 16 apart."""
    scales = name.removesuffix("_blocks") + "_scales"
    num_experts, _, groups, num_bytes = _shape(source, name, 4, 1)
    found = source.tensors.get(scales)
    if num_bytes != 16 or found is None or found.shape != source.tensors[name].shape[:3]:
        raise ModelFormatError("expected blocks of 16 bytes, and a scale for each", part=name)
    shape = (num_experts, source.tensors[name].shape[1] // parts, groups * 32)

    def raw() -> npt.NDArray[np.uint8]:
        pairs = rows(source.raw(name).reshape(source.tensors[name].shape))
        codes = np.stack((pairs & 15, pairs >> 4), axis=-1).reshape(-1, 32)
        blocks = np.empty(len(codes), MXFP4)
        blocks["e"] = rows(source.raw(scales).reshape(found.shape)).ravel()
        blocks["qs"] = codes[:, :16] | (codes[:, 16:] << 4)
        return blocks.view(np.uint8)

    info = TensorInfo(ours, shape, GGMLType.MXFP4, math.prod(shape) // 32 * MXFP4.itemsize)
    return Derived(info, (name, scales), raw, lambda: dequantize(raw(), GGMLType.MXFP4, info.shape))


def _shape(source: WeightSource, name: str, num_dims: int, parts: int) -> tuple[int, ...]:
    shape = source.tensors[name].shape
    if len(shape) != num_dims or shape[-1] % parts:
        raise ModelFormatError(f"expected {num_dims} dimensions, found {shape}", part=name)
    return (*shape[:-1], shape[-1] // parts)


_EXPERTS = "model.layers.{i}.mlp.experts"


def to_gguf(config: Config, source: WeightSource) -> dict[str, Any]:
    return {**_to_gguf.decoder(config, source), **_to_gguf.window(config)}


ARCHITECTURE = Architecture(
    name="gpt-oss",
    hf_names=("GptOssForCausalLM",),
    from_gguf=from_gguf,
    from_hf=from_hf,
    to_gguf=to_gguf,
    build=build,
    weight_names={
        **_decoder.hf_names_without("ffn_norm", "ffn_gate", "ffn_up", "ffn_down"),
        "blk.{i}.post_attention_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
        "blk.{i}.attn_sinks.weight": "model.layers.{i}.self_attn.sinks",
        "blk.{i}.ffn_gate_inp.weight": "model.layers.{i}.mlp.router.weight",
        "blk.{i}.ffn_gate_inp.bias": "model.layers.{i}.mlp.router.bias",
        # Read by _as_in_gguf only.
        **{
            f"blk.{{i}}.{part}_exps{kind}": f"{_EXPERTS}.{part}_proj{kind}"
            for part in ("gate_up", "down")
            for kind in ("", "_bias", "_blocks", "_scales")
        },
    },
    hf_weights=_as_in_gguf,
)
