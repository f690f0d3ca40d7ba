"""The builder a model is written with.

A model file does not compute: it builds a `Program` of `quintet.ops` over named weights.  Widths
are checked against the shapes of the model's weights while the program is built, so a program that
exists fits its file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.ops import (
    Act,
    Add,
    Arrange,
    Attention,
    CacheShape,
    Columns,
    Embed,
    Experts,
    Gate,
    GatedAct,
    LayerNorm,
    Linear,
    Moe,
    Op,
    Program,
    RMSNorm,
    Rope,
    Rotary,
    Routing,
    Scale,
    ScaleByPosition,
    SelectRows,
    Softcap,
    Tensor,
)


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
