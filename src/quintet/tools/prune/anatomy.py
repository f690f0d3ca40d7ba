"""What a model is made of, as far as it can be cut: its sizes, and whose rows and columns each of
its tensors has.

A part is what goes as a whole: a KV head with its query heads, a feed-forward column, an expert, a
column of an expert, a column of the experts that all tokens pass through.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.formats.weights import TensorInfo
from quintet.models import AnyConfig, EncoderConfig

Part: TypeAlias = Literal["heads", "columns", "experts", "expert_columns", "shared_columns"]

BLOCK_NAME = re.compile(r"blk\.(\d+)\.(.+)")
# Of a block, what no cut touches but that of whole blocks.
_KEPT = (
    "attn_norm",
    "attn_output_norm",
    "ffn_norm",
    "layer_output_norm",
    "post_attention_norm",
    "post_ffw_norm",
    "attn_q_a",
    "attn_q_a_norm",
    "attn_kv_a_mqa",
    "attn_kv_a_norm",
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """
    What can be cut of a model.

    Args:
        num_layers: blocks.
        feed_forward: columns of a feed-forward that all tokens pass through; 0 without.
        num_heads, num_kv_heads: of each block; the query heads of one KV head are a group.
        head_dim: values per head.
        num_experts: of each block that has some; 0 without.
        expert_feed_forward: columns of an expert.
        shared_feed_forward: columns of the experts beside those that all tokens pass through.
    """

    num_layers: int
    feed_forward: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_experts: int = 0
    expert_feed_forward: int = 0
    shared_feed_forward: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbours along an axis: `count` parts of `unit` places each."""

    part: Part
    count: int
    unit: int = 1


Spans: TypeAlias = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Axes:
    """
    A tensor as a stack of matrices, and whose its places are; () where nothing of an axis can go.

    Args:
        shape: (matrices, rows, columns).  A vector is a matrix of one row.
    """

    shape: tuple[int, int, int]
    matrices: Spans = ()
    rows: Spans = ()
    columns: Spans = ()


@dataclass(frozen=True, slots=True)
class Anatomy:
    """
    A model's parts.

    Args:
        sizes: how many there are.
        value_dim: values that a head gives to its output matrix.
        num_shared: experts that all tokens pass through.
        is_encoder: its heads fill the hidden size, and it has no keys that say otherwise.
        has_latent: keys and values are made of a latent, with tensors of their own.
        expert_layers: the blocks that have experts.
    """

    sizes: Sizes
    value_dim: int
    num_shared: int
    is_encoder: bool
    has_latent: bool
    expert_layers: frozenset[int]

    def axes(self, name: str, info: TensorInfo) -> Axes:
        """
        Whose rows and columns a tensor of a block has.

        Args:
            name: without its block, e.g. "attn_q.weight".

        Raises:
            UnsupportedModelError: an unknown tensor.
            ModelFormatError: sizes that do not fit the model's.
        """
        kind = name.rpartition(".")[0]
        matrices, rows, columns = self._spans(kind, info)
        if len(info.shape) == 1 or (len(info.shape) == 2 and matrices):
            rows, columns = (), rows  # a bias goes as the rows of its matrix do
        num_columns, *others = reversed(info.shape)
        num_matrices = info.shape[0] if matrices or len(info.shape) == 3 else 1
        num_rows = others[0] if others and not (len(info.shape) == 2 and matrices) else 1
        stack = (num_matrices, num_rows, num_columns)
        axes = Axes(stack, matrices, rows, columns)
        for size, spans in zip(stack, (matrices, rows, columns), strict=True):
            expected = sum(span.count * span.unit for span in spans)
            if spans and size != expected:
                raise ModelFormatError(f"expected {expected} of {stack}, found {size}", part=name)
        return axes

    def _spans(self, kind: str, info: TensorInfo) -> tuple[Spans, Spans, Spans]:
        """Of matrices, rows and columns."""
        s = self.sizes
        group = s.num_heads // s.num_kv_heads
        queries = Span("heads", s.num_kv_heads, group * s.head_dim)
        keys = Span("heads", s.num_kv_heads, s.head_dim)
        width = Span("columns", s.feed_forward)
        experts = Span("experts", s.num_experts)
        expert_width = Span("expert_columns", s.expert_feed_forward)
        shared_width = Span("shared_columns", s.shared_feed_forward)
        if kind in _KEPT:
            return (), (), ()
        match kind:
            case "attn_q" | "attn_q_b":
                return (), (queries,), ()
            case "attn_k" | "attn_v":
                return (), (keys,), ()
            case "attn_qkv":
                return (), (queries, keys, keys), ()
            case "attn_kv_b":
                return (), (Span("heads", s.num_heads, info.shape[0] // s.num_heads),), ()
            case "attn_k_b" | "attn_v_b" if len(info.shape) == 3:
                return (Span("heads", s.num_heads),), (), ()
            case "attn_q_norm" | "attn_k_norm" if info.shape == (s.head_dim,):
                return (), (), ()  # shared by all heads
            case "attn_q_norm":
                return (), (queries,), ()
            case "attn_k_norm":
                return (), (keys,), ()
            case "attn_sinks":
                return (), (Span("heads", s.num_kv_heads, group),), ()
            case "attn_output":
                return (), (), (Span("heads", s.num_kv_heads, group * self.value_dim),)
            case "ffn_gate":
                return (), (width,), ()
            case "ffn_up":
                is_fused = info.shape[0] == 2 * s.feed_forward  # with the gate, which comes first
                return (), (width, width) if is_fused else (width,), ()
            case "ffn_down":
                return (), (), (width,)
            case "ffn_gate_inp" | "exp_probs_b":
                return (), (experts,), ()
            case "ffn_gate_exps" | "ffn_up_exps":
                return (experts,), (expert_width,), ()
            case "ffn_down_exps":
                return (experts,), (), (expert_width,)
            case "ffn_gate_shexp" | "ffn_up_shexp":
                return (), (shared_width,), ()
            case "ffn_down_shexp":
                return (), (), (shared_width,)
        raise UnsupportedModelError("tensor to prune", info.name)


def read_anatomy(config: AnyConfig, tensors: Mapping[str, TensorInfo], path: str) -> Anatomy:
    """
    Count the parts.

    Args:
        config: as it is in GGUF.
        tensors: under GGUF names.

    Raises:
        ModelFormatError: blocks of several sizes, or tensors that do not fit them.
        UnsupportedModelError: a tensor that is not known how to cut.
    """
    found: dict[str, set[int]] = defaultdict(set)
    blocks = {}
    expert_layers = set()
    for name, info in tensors.items():
        if match := BLOCK_NAME.fullmatch(name):
            blocks[name] = (match.group(2), info)
            if match.group(2).startswith("ffn_down") and name.endswith(".weight"):
                found[match.group(2)].add(info.shape[-1])
            elif match.group(2) == "ffn_gate_inp.weight":
                found["experts"].add(info.shape[0])
                expert_layers.add(int(match.group(1)))

    def only(name: str) -> int:
        if len(found[name]) > 1:
            raise ModelFormatError(
                f"expected blocks of one size, found {sorted(found[name])}", path=path, part=name
            )
        return next(iter(found[name]), 0)

    width, shared = only("ffn_down_exps.weight"), only("ffn_down_shexp.weight")
    if shared and (not width or shared % width):
        raise UnsupportedModelError("shared experts to prune", f"of {shared} columns, not {width}")
    is_encoder = isinstance(config, EncoderConfig)
    sizes = Sizes(
        num_layers=config.num_layers,
        feed_forward=only("ffn_down.weight"),
        num_heads=config.num_heads,
        num_kv_heads=config.num_heads if isinstance(config, EncoderConfig) else config.num_kv_heads,
        head_dim=config.head_dim,
        num_experts=only("experts"),
        expert_feed_forward=width,
        shared_feed_forward=shared,
    )
    anatomy = Anatomy(
        sizes,
        value_dim=getattr(config, "value_head_dim", 0) or config.head_dim,
        num_shared=shared // width if width else 0,
        is_encoder=is_encoder,
        has_latent=getattr(config, "kv_lora_rank", 0) > 0,
        expert_layers=frozenset(expert_layers),
    )
    for rest, info in blocks.values():
        anatomy.axes(rest, info)
    return anatomy
