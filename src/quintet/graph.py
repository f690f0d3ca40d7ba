"""The op set and the builder a model is written with.

A model file does not compute: it builds a `Program`, a list of ops over named
weights, which every backend executes.  All tensors are [num_tokens, width]
float32, rows in the order of the step's tokens; a head's values are contiguous
within a row.

Widths are checked against the shapes of the model's weights while the program
is built, so a program that exists fits its file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from quintet.errors import ModelFormatError, UnsupportedModelError

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


class Graph:
    """Builds a program.

    Args:
        shapes: every weight of the model, name to NumPy shape ([out, in] for a matrix).
        path: the model's file, for messages.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], path: str | None = None) -> None:
        self._shapes = shapes
        self._path = path
        self._ops: list[Op] = []
        self._weights: set[str] = set()
        self._caches: list[tuple[int, int]] = []
        self._is_causal = True
        self._selected: Tensor | None = None
        self._hidden: Tensor | None = None

    def scope(self, prefix: str) -> Scope:
        """The same builder with `prefix.` before every weight name."""
        return Scope(self, prefix + ".")

    @property
    def root(self) -> Scope:
        """The builder without a prefix."""
        return Scope(self, "")

    def rope(self, x: Tensor, *, head_dim: int, rotary: Rotary) -> Tensor:
        """Rotate the heads of x: [n, num_heads * head_dim] -> same."""
        self._check(
            x.width % head_dim == 0, f"rope: width {x.width} is not whole heads of {head_dim}"
        )
        self._check(
            2 * len(rotary.inv_freq) <= head_dim,
            f"rope: {2 * len(rotary.inv_freq)} rotary dimensions exceed head_dim {head_dim}",
        )
        return self._append(Rope(x, head_dim, rotary), x.width)

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        layer: int,
        num_heads: int,
        num_kv_heads: int,
        scale: float | None = None,
        left: int | None = None,
        right: int | None = 0,
        softcap: float = 0.0,
        sinks: str | None = None,
    ) -> Tensor:
        """Attention over the paged KV cache: q [n, num_heads * head_dim] -> same.

        Args:
            scale: multiplies scores before softmax; 1 / sqrt(head_dim) when None.
            left, right: tokens that one sees before and behind itself, None for all;
                causal unless said.
            softcap, sinks: see `Attention`; sinks by its full name.
        """
        head_dim = q.width // num_heads
        self._check(
            q.width == num_heads * head_dim
            and k.width == v.width == num_kv_heads * head_dim
            and num_heads % num_kv_heads == 0,
            f"attention: widths {q.width}, {k.width}, {v.width} do not make "
            f"{num_heads} query and {num_kv_heads} KV heads of one size",
        )
        self._check(layer == len(self._caches), f"attention: layer {layer} is out of order")
        self._caches.append((num_kv_heads, head_dim))
        scale = head_dim**-0.5 if scale is None else scale
        if right != 0:
            self._is_causal = False
            layer = 0
        if sinks is not None:
            self._vector(sinks, num_heads)
        op = Attention(
            q, k, v, layer, num_heads, num_kv_heads, head_dim, scale, left, right, softcap, sinks
        )
        return self._append(op, q.width)

    def silu_mul(self, gate: Tensor, up: Tensor) -> Tensor:
        """silu(gate) * up: [n, w], [n, w] -> [n, w]."""
        return self._gated(gate, up, "silu")

    def gelu_mul(self, gate: Tensor, up: Tensor) -> Tensor:
        """gelu(gate) * up: [n, w], [n, w] -> [n, w]."""
        return self._gated(gate, up, "gelu")

    def gelu_tanh_mul(self, gate: Tensor, up: Tensor) -> Tensor:
        """gelu(gate) * up with the tanh approximation of gelu: [n, w], [n, w] -> [n, w]."""
        return self._gated(gate, up, "gelu_tanh")

    def _gated(self, gate: Tensor, up: Tensor, kind: Gate) -> Tensor:
        self._check(
            gate.width == up.width, f"{kind}_mul: widths {gate.width} and {up.width} differ"
        )
        return self._append(GatedAct(gate, up, kind), gate.width)

    def arrange(self, sources: Sequence[Tensor], runs: Sequence[tuple[int, int, int]]) -> Tensor:
        """Runs of columns side by side, as `Arrange` has them: -> [n, sum of widths]."""
        self._check(
            all(
                width > 0 and begin >= 0 and (source < 0 or begin + width <= sources[source].width)
                for source, begin, width in runs
            ),
            "arrange: a run outside its rows",
        )
        op = Arrange(tuple(sources), tuple(runs))
        return self._append(op, sum(width for _, _, width in runs))

    def scale(self, x: Tensor, factor: float) -> Tensor:
        """x * factor: [n, w] -> [n, w]; x itself where the factor is 1."""
        return x if factor == 1.0 else self._append(Scale(x, factor), x.width)

    def scale_by_position(self, x: Tensor, *, growth: float, period: int) -> Tensor:
        """x * (1 + growth * log(1 + floor(position / period))): [n, w] -> [n, w]."""
        return self._append(ScaleByPosition(x, growth, period), x.width)

    def softcap(self, x: Tensor, cap: float) -> Tensor:
        """cap * tanh(x / cap): [n, w] -> [n, w]; x itself where the cap is 0."""
        return x if cap == 0.0 else self._append(Softcap(x, cap), x.width)

    def act(self, x: Tensor, kind: Literal["gelu", "tanh"]) -> Tensor:
        """act(x): [n, w] -> [n, w]."""
        return self._append(Act(x, kind), x.width)

    def split(self, x: Tensor, *widths: int) -> tuple[Tensor, ...]:
        """Neighbouring columns of x, which must add up: [n, sum of widths] -> [n, w] each."""
        self._check(
            sum(widths) == x.width and all(w > 0 for w in widths),
            f"split: width {x.width} is not {' + '.join(map(str, widths))}",
        )
        begins = [sum(widths[:i]) for i in range(len(widths))]
        return tuple(
            self._append(Columns(x, begin, width), width)
            for begin, width in zip(begins, widths, strict=True)
        )

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """a + b: [n, w], [n, w] -> [n, w]."""
        self._check(a.width == b.width, f"add: widths {a.width} and {b.width} differ")
        return self._append(Add(a, b), a.width)

    def select_rows(self, x: Tensor) -> Tensor:
        """The rows the step wants logits for: [n, w] -> [num_logits_rows, w]."""
        selected = self._append(SelectRows(x), x.width)
        self._selected = selected
        return selected

    def has(self, name: str) -> bool:
        """Whether the model has this weight, by its full name."""
        return name in self._shapes

    def program(self, output: Tensor) -> Program:
        """The finished program.

        Raises:
            ModelFormatError: the layers do not share one KV shape, or there is none.
        """
        self._check(bool(self._caches), "the model has no attention layer")
        self._check(len(set(self._caches)) == 1, "layers differ in KV heads or head_dim")
        num_kv_heads, head_dim = self._caches[0]
        return Program(
            ops=tuple(self._ops),
            output=output,
            hidden=self._hidden or output,
            cache=CacheShape(len(self._caches) if self._is_causal else 1, num_kv_heads, head_dim),
            weights=frozenset(self._weights),
            is_causal=self._is_causal,
        )

    def _append(self, op: Op, width: int) -> Tensor:
        if isinstance(op, Linear) and self._selected is not None and self._hidden is None:
            self._hidden = op.x  # the head begins
        self._ops.append(op)
        return Tensor(len(self._ops) - 1, width)

    def _weight(self, name: str, num_dims: int) -> tuple[int, ...]:
        shape = self._shapes.get(name)
        if shape is None:
            raise ModelFormatError("the tensor is missing", path=self._path, part=name)
        if len(shape) != num_dims:
            raise ModelFormatError(
                f"expected {num_dims} dimensions, found shape {shape}", path=self._path, part=name
            )
        self._weights.add(name)
        return shape

    def _vector(self, name: str, size: int) -> None:
        (found,) = self._weight(name, 1)
        self._check(found == size, f"{name}: expected {size} values, found {found}")

    def _check(self, holds: bool, message: str) -> None:
        if not holds:
            raise ModelFormatError(message, path=self._path)


@dataclass(frozen=True, slots=True)
class Scope:
    """The ops that read weights, under one prefix; `name` means `prefix + name + ".weight"`."""

    graph: Graph
    prefix: str

    def embed(self, name: str, *, by: Literal["token", "position", "type"] = "token") -> Tensor:
        """Token ids, or positions or types, to rows of an embedding: -> [n, hidden_size]."""
        weight = f"{self.prefix}{name}.weight"
        _, width = self.graph._weight(weight, 2)
        return self.graph._append(Embed(weight, by), width)

    def layer_norm(self, x: Tensor, name: str, *, eps: float) -> Tensor:
        """Normalise the row, with a bias where the model has one: [n, w] -> [n, w]."""
        weight, bias = f"{self.prefix}{name}.weight", f"{self.prefix}{name}.bias"
        names = [weight, bias] if self.graph.has(bias) else [weight]
        for vector in names:
            self.graph._vector(vector, x.width)
        op = LayerNorm(x, weight, bias if len(names) == 2 else None, eps)
        return self.graph._append(op, x.width)

    def linear(self, x: Tensor, name: str, *, bias: bool = False) -> Tensor:
        """x @ weight.T (+ bias): [n, in] -> [n, out]."""
        weight = f"{self.prefix}{name}.weight"
        out_width, in_width = self.graph._weight(weight, 2)
        self.graph._check(
            in_width == x.width, f"{weight}: expected {x.width} input columns, found {in_width}"
        )
        bias_name = f"{self.prefix}{name}.bias" if bias else None
        if bias_name is not None:
            self.graph._vector(bias_name, out_width)
        return self.graph._append(Linear(x, weight, bias_name), out_width)

    def rms_norm(self, x: Tensor, name: str, *, eps: float) -> Tensor:
        """Normalise each run of len(weight) columns: the row, or each head: [n, w] -> [n, w]."""
        weight = f"{self.prefix}{name}.weight"
        (group,) = self.graph._weight(weight, 1)
        self.graph._check(
            group > 0 and x.width % group == 0,
            f"{weight}: {group} values do not divide a row of {x.width}",
        )
        return self.graph._append(RMSNorm(x, weight, group, eps), x.width)

    def moe(
        self, x: Tensor, scores: Tensor, routing: Routing, *, biases: bool = False, limit: float = 0
    ) -> Tensor:
        """A mixture of experts `ffn_{gate,up,down}_exps`: [n, w] -> [n, w].

        Args:
            scores: [n, num_experts], the router's.
            biases: whether the experts have any.
            limit: see `Experts`.
        """
        g = self.graph
        gate, up, down = (f"{self.prefix}ffn_{part}_exps" for part in ("gate", "up", "down"))
        num_experts, inner, width = g._weight(f"{gate}.weight", 3)
        for name, shape in ((up, (inner, width)), (down, (width, inner))):
            found = g._weight(f"{name}.weight", 3)
            g._check(
                found == (num_experts, *shape),
                f"{name}.weight: expected {(num_experts, *shape)}, found {found}",
            )
        g._check(
            width == x.width and num_experts == scores.width,
            f"{gate}.weight: {num_experts} experts of {width} columns, "
            f"expected {scores.width} of {x.width}",
        )
        g._check(
            1 <= routing.num_used <= num_experts,
            f"moe: {routing.num_used} of {num_experts} experts are used",
        )
        if biases:
            for name, size in ((gate, inner), (up, inner), (down, width)):
                found = g._weight(f"{name}.bias", 2)
                g._check(
                    found == (num_experts, size),
                    f"{name}.bias: expected {(num_experts, size)}, found {found}",
                )
        per_group = num_experts // routing.num_groups
        g._check(
            num_experts % routing.num_groups == 0
            and 1 <= routing.group_top <= per_group
            and 1 <= routing.num_groups_used <= routing.num_groups
            and routing.num_used <= routing.num_groups_used * per_group,
            f"moe: {routing.num_used} experts of {routing.num_groups_used} groups, "
            f"of {num_experts} in {routing.num_groups}",
        )
        panel = 16  # rows that native kernels hold together; an expert must not share one
        if inner % panel or width % panel:
            raise UnsupportedModelError("experts of a width that is no multiple of 16", f"{inner}")
        if routing.bias is not None:
            g._vector(routing.bias, num_experts)
        bias = [f"{name}.bias" if biases else None for name in (gate, up, down)]
        experts = Experts(
            f"{gate}.weight", f"{up}.weight", f"{down}.weight", bias[0], bias[1], bias[2], limit
        )
        return g._append(Moe(x, scores, experts, routing), x.width)
