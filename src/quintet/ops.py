"""The ops a model consists of, and the program they make.

A backend executes a `Program`; a model builds one with `quintet.graph`.  All tensors are
[num_tokens, width] float32, rows in the order of the step's tokens; a head's values are contiguous
within a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Gate: TypeAlias = Literal["silu", "gelu", "gelu_tanh"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """The result of the op at `node` in the program: [num_tokens, width]."""

    node: int
    width: int


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotary position embedding: pair i of a head turns by position * inv_freq[i] radians.

    Args:
        inv_freq: [rotary_dim / 2]; longer heads keep their tail unrotated.
        interleaved: pairs are (2i, 2i + 1) instead of (i, i + rotary_dim / 2).
        attention_factor: multiplies cos and sin.

    Source: Su et al. 2021, arXiv:2104.09864.
    """

    inv_freq: tuple[float, ...]
    interleaved: bool = False
    attention_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Embed:
    """Rows of `weight` [rows, width] by token id, by position or by token type."""

    weight: str
    by: Literal["token", "position", "type"] = "token"


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """(x - mean) / sqrt(variance + eps) * weight (+ bias) over the row.

    Source: Ba et al. 2016, arXiv:1607.06450.
    """

    x: Tensor
    weight: str
    bias: str | None
    eps: float


@dataclass(frozen=True, slots=True)
class Columns:
    """x[:, begin : begin + width]."""

    x: Tensor
    begin: int
    width: int


@dataclass(frozen=True, slots=True)
class RMSNorm:
    """x / sqrt(mean(x^2) + eps) * weight over each run of `group` columns.

    `group` is the row for a layer norm and head_dim for a norm per head.
    Source: Zhang and Sennrich 2019, arXiv:1910.07467.
    """

    x: Tensor
    weight: str
    group: int
    eps: float


@dataclass(frozen=True, slots=True)
class Linear:
    """x @ weight.T + bias, weight [out_width, in_width]."""

    x: Tensor
    weight: str
    bias: str | None


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotates every head of x by its token's position."""

    x: Tensor
    head_dim: int
    rotary: Rotary


@dataclass(frozen=True, slots=True)
class Attention:
    """Writes k and v to the layer's KV cache, then attends over it.

    Head h of q reads KV head h // (num_heads / num_kv_heads) (GQA).  A token at position i sees
    i - left .. i + right; None is without bound, and (None, 0) is causal.  Scores become
    softcap * tanh(score / softcap) unless it is 0.  `sinks` names a vector [num_heads]: a score
    that stands beside those of the tokens in the softmax and has no value.

    Source: Gemma 2, arXiv:2408.00118, section 2 (softcap); gpt-oss, arXiv:2508.10925, section 2.3
    (sinks).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    layer: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    left: int | None = None
    right: int | None = 0
    softcap: float = 0.0
    sinks: str | None = None


@dataclass(frozen=True, slots=True)
class GatedAct:
    """act(gate) * up; gelu_tanh is gelu by its tanh approximation.

    Source: Shazeer 2020, arXiv:2002.05202.
    """

    gate: Tensor
    up: Tensor
    kind: Gate


@dataclass(frozen=True, slots=True)
class Experts:
    """The matrices of a mixture of experts: gate and up [num_experts, inner, width], down
    [num_experts, width, inner], and biases [num_experts, inner or width] where there are any.

    Args:
        limit: 0 for silu(gate) * up; else gate and up are clamped to it, and combined as in
            `swiglu_clamped` of csrc/kernels/kernels.h.
    """

    gate: str
    up: str
    down: str
    gate_bias: str | None = None
    up_bias: str | None = None
    down_bias: str | None = None
    limit: float = 0.0


@dataclass(frozen=True, slots=True)
class Routing:
    """How a token's experts follow from its scores, one for each.

    The num_used highest scores (the lower index among equals) choose; their weights are
    softmax(scores) over all experts, or sigmoid(score) each.

    Args:
        scoring: of the weights.
        normalize: weights of the chosen are divided by their sum.
        factor: multiplies the weights.
        bias: a vector [num_experts] added to the activated scores for the choice only.
        num_groups, num_groups_used: experts are neighbours in groups, of which the best are chosen
            from; a group's score is the sum of its `group_top` best.

    Source: Shazeer et al. 2017, arXiv:1701.06538; DeepSeek-V3, arXiv:2412.19437, section 2.1.2
    (sigmoid, bias).
    """

    num_used: int
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    normalize: bool = True
    factor: float = 1.0
    bias: str | None = None
    num_groups: int = 1
    num_groups_used: int = 1
    group_top: int = 1


@dataclass(frozen=True, slots=True)
class Moe:
    """The weighted sum of the chosen experts of each row of x, in descending order of score."""

    x: Tensor
    scores: Tensor
    experts: Experts
    routing: Routing


@dataclass(frozen=True, slots=True)
class Arrange:
    """Runs of columns side by side: (which of `sources`, first column, columns); -1 for zeros."""

    sources: tuple[Tensor, ...]
    runs: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Scale:
    """x * factor."""

    x: Tensor
    factor: float


@dataclass(frozen=True, slots=True)
class ScaleByPosition:
    """x * (1 + growth * log(1 + floor(position / period)))."""

    x: Tensor
    growth: float
    period: int


@dataclass(frozen=True, slots=True)
class Softcap:
    """cap * tanh(x / cap).  Source: Gemma 2, arXiv:2408.00118, section 2."""

    x: Tensor
    cap: float


@dataclass(frozen=True, slots=True)
class Act:
    """act(x); gelu is x * Phi(x).  Source: Hendrycks and Gimpel 2016, arXiv:1606.08415."""

    x: Tensor
    kind: Literal["gelu", "tanh"]


@dataclass(frozen=True, slots=True)
class Add:
    """a + b."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True)
class SelectRows:
    """The rows of x that the step wants logits for."""

    x: Tensor


Op: TypeAlias = (
    Embed
    | LayerNorm
    | RMSNorm
    | Linear
    | Columns
    | Rope
    | Attention
    | GatedAct
    | Act
    | Arrange
    | Moe
    | Scale
    | ScaleByPosition
    | Softcap
    | Add
    | SelectRows
)


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What one token occupies in the KV cache: num_layers * 2 * num_kv_heads * head_dim values."""

    num_layers: int
    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class Program:
    """A model as a list of ops in execution order.

    Args:
        output: what the model's head makes of the selected rows, [num_logits_rows, vocab_size]
            where that is logits.
        hidden: the rows that the head reads, [num_logits_rows, hidden_size]; the output itself
            where there is no head.
        is_causal: no token sees a later one.  Otherwise a step must bring sequences whole, and
            all layers share one layer of cache, which holds nothing between steps.
    """

    ops: tuple[Op, ...]
    output: Tensor
    hidden: Tensor
    cache: CacheShape
    weights: frozenset[str]
    is_causal: bool
