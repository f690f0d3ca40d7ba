"""Lowers a program to a native plan: buffers, fused row phases, grouped matrix products.

Row-wise ops that follow each other become one phase, run row by row while the
row is in the L1 cache; matrix products of the same input that do not read each
other become one phase too.  Between phases the plan's threads meet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from quintet import graph
from quintet._native import Layout, Plan
from quintet.backends._observing import Observed
from quintet.backends._packing import PackedWeights
from quintet.graph import Program

_UNLIMITED = 2**31 - 1  # kUnlimited of csrc/kernels/kernels.h
_FLOAT_FORM = frozenset({Layout.F32, Layout.F16})


def lower(
    program: Program,
    plan: Plan,
    weights: PackedWeights,
    observed: Callable[[str], bool] | None = None,
) -> list[Observed]:
    """Write `program` into `plan`; afterwards the plan can run.

    Args:
        weights: packs and names the program's weights in the plan.
        observed: whether what a weight below the head is given shall be observable.

    Returns:
        The plan's observations, by number.

    Raises:
        NotImplementedError: a shape of program that the plan's phases cannot express.
    """
    lowering = _Lowering(program, plan, weights, observed)
    lowering.lower()
    return lowering.observations


@dataclass
class _Value:
    """Where a node's rows are."""

    buffer: int
    forms: int | None = None  # the same rows as the matrices that read it want them


class _Lowering:
    def __init__(
        self,
        program: Program,
        plan: Plan,
        weights: PackedWeights,
        observed: Callable[[str], bool] | None,
    ) -> None:
        self.program = program
        self.observed = observed
        self.observations: list[Observed] = []
        self.plan = plan
        self.weights = weights
        self.values: dict[int, _Value] = {}
        self.last_use = _last_uses(program)
        self.readers = _linear_readers(program)
        self.free_buffers: dict[tuple[int, bool], list[int]] = {}
        self.free_forms: dict[tuple[int, bool, bool, bool, bool], list[int]] = {}
        self.forms_keys: dict[int, tuple[int, bool, bool, bool, bool]] = {}
        self.rotations: dict[tuple[int, graph.Rotary], int] = {}
        self.linear_tasks: list[tuple[int, int, int, int]] = []
        self.linear_outputs: list[int] = []
        self.in_rows = False
        self.selected = False  # past select_rows, rows are those of the logits

    def lower(self) -> None:
        for node, op in enumerate(self.program.ops):
            if isinstance(op, graph.Linear):
                self._linear(node, op)
            else:
                self._flush_linear()
                self._row_or_attention(node, op)
            if node == self.program.hidden.node:
                self.plan.mark_hidden(self.values[node].buffer)
                self.in_rows = False
            self._release(node, op)
        self._flush_linear()
        self.plan.finish(self.values[self.program.output.node].buffer)

    # -- ops ---------------------------------------------------------------------------------

    def _linear(self, node: int, op: graph.Linear) -> None:
        if op.x.node in self.linear_outputs:
            self._flush_linear()
        forms = self._forms_of(op.x)
        self._observe(node, op.x, self.readers[op.x.node], op.weight)
        output = self._new_buffer(self.weights.shape(op.weight)[0])
        bias = -1 if op.bias is None else self.weights.vector(op.bias)
        self.linear_tasks.append((self.weights.matrix(op.weight), forms, output, bias))
        self.linear_outputs.append(node)
        self.values[node] = _Value(output)
        self.in_rows = False

    def _row_or_attention(self, node: int, op: graph.Op) -> None:
        plan = self.plan
        match op:
            case graph.Embed(weight, by):
                dst = self._new_buffer(self.weights.shape(weight)[1])
                self._rows()
                embed = {
                    "token": plan.row_embed,
                    "position": plan.row_embed_position,
                    "type": plan.row_embed_type,
                }[by]
                embed(self.weights.matrix(weight), dst)
            case graph.LayerNorm(x, weight, bias, eps):
                src = self.values[x.node].buffer
                dst = src if self._dies(x, node) else self._new_buffer(x.width)
                self._observe(node, x, [weight], weight)
                self._rows()
                bias_vector = -1 if bias is None else self.weights.vector(bias)
                plan.row_layer_norm(src, self.weights.vector(weight), bias_vector, eps, dst)
            case graph.Columns(x, begin, width):
                dst = self._new_buffer(width)
                self._rows()
                plan.row_columns(self.values[x.node].buffer, begin, dst)
            case graph.Act(x, kind):
                src = self.values[x.node].buffer
                dst = src if self._dies(x, node) else self._new_buffer(x.width)
                self._rows()
                if kind == "gelu":
                    plan.row_gelu(src, -1, dst)
                else:
                    plan.row_tanh(src, dst)
            case graph.RMSNorm(x, weight, _, eps):
                src = self.values[x.node].buffer
                # In place where nobody reads x again.
                dst = src if self._dies(x, node) else self._new_buffer(x.width)
                self._observe(node, x, [weight], weight)
                self._rows()
                plan.row_rms_norm(src, self.weights.vector(weight), eps, dst)
            case graph.Rope(x, head_dim, rotary):
                dst = self._writable(x, node)
                plan.row_rope(dst, self._rotation(head_dim, rotary))
            case graph.GatedAct(gate, up, kind):
                src = self.values[gate.node].buffer
                dst = src if self._dies(gate, node) else self._new_buffer(gate.width)
                self._rows()
                gated = {
                    "silu": plan.row_silu_mul,
                    "gelu": plan.row_gelu,
                    "gelu_tanh": plan.row_gelu_tanh,
                }[kind]
                gated(src, self.values[up.node].buffer, dst)
            case graph.Add(a, b):
                dst = self._writable(a, node)
                plan.row_add(self.values[b.node].buffer, dst)
            case graph.Arrange(sources, runs):
                dst = self._new_buffer(sum(width for _, _, width in runs))
                self._rows()
                plan.row_arrange([self.values[s.node].buffer for s in sources], runs, dst)
            case graph.Scale(x, factor):
                src = self.values[x.node].buffer
                dst = src if self._dies(x, node) else self._new_buffer(x.width)
                self._rows()
                plan.row_scale(src, factor, dst)
            case graph.ScaleByPosition(x, growth, period):
                src = self.values[x.node].buffer
                dst = src if self._dies(x, node) else self._new_buffer(x.width)
                self._rows()
                plan.row_scale_by_position(src, growth, period, dst)
            case graph.Softcap(x, cap):
                src = self.values[x.node].buffer
                dst = src if self._dies(x, node) else self._new_buffer(x.width)
                self._rows()
                plan.row_softcap(src, cap, dst)
            case graph.Moe(x, scores, experts, routing):
                src = self.values[x.node].buffer
                dst = src if self._dies(x, node) else self._new_buffer(x.width)
                mixture = self._experts(scores.width, experts, routing)
                self._rows()
                plan.row_route(self.values[scores.node].buffer, mixture)
                wanted = self._wanted(node, [experts.gate, experts.up, experts.down])
                if plan.run_experts(src, mixture, is_observed=bool(wanted)) >= 0:
                    self.observations.append(Observed(wanted, experts))
                self.in_rows = False
                self._rows()
                plan.row_combine(mixture, dst)
            case graph.SelectRows(x):
                self.selected = True
                dst = self._new_buffer(x.width)
                plan.begin_rows(logits_rows=True)
                self.in_rows = True
                plan.row_select(self.values[x.node].buffer, dst)
            case graph.Attention(q, k, v, layer, _, _, _, scale, left, right, softcap, sinks):
                self._rows()
                plan.row_write_kv(self.values[k.node].buffer, self.values[v.node].buffer, layer)
                dst = self._new_buffer(q.width)
                plan.attention(
                    self.values[q.node].buffer,
                    dst,
                    layer,
                    scale,
                    left=_UNLIMITED if left is None else left,
                    right=_UNLIMITED if right is None else right,
                    softcap=softcap,
                    sinks=-1 if sinks is None else self.weights.vector(sinks),
                )
                self.in_rows = False
            case _:
                raise NotImplementedError(f"the cpu backend cannot lower {op!r}")
        self.values[node] = _Value(dst)
        if node in self.readers:
            self._make_forms(node)

    # -- phases ------------------------------------------------------------------------------

    def _rows(self) -> None:
        """Be in a phase of row ops."""
        if not self.in_rows:
            self.plan.begin_rows(logits_rows=self.selected)
            self.in_rows = True

    def _flush_linear(self) -> None:
        if self.linear_tasks:
            self.plan.linear(self.linear_tasks, logits_rows=self.selected)
            self.linear_tasks, self.linear_outputs = [], []

    # -- values ------------------------------------------------------------------------------

    def _writable(self, x: graph.Tensor, node: int) -> int:
        """A buffer holding x that this op may change: x's own where x dies here."""
        self._rows()
        src = self.values[x.node].buffer
        if self._dies(x, node):
            return src
        dst = self._new_buffer(x.width)
        self.plan.row_copy(src, dst)
        return dst

    def _dies(self, x: graph.Tensor, node: int) -> bool:
        return self.last_use[x.node] == node

    def _new_buffer(self, width: int) -> int:
        free = self.free_buffers.get((width, self.selected))
        if free:
            return free.pop()
        return self.plan.add_buffer(width, logits_rows=self.selected)

    def _make_forms(self, node: int) -> None:
        """Write node's rows in every form its readers' layouts want."""
        layouts = {self.weights.layout(weight) for weight in self.readers[node]}
        width = self.weights.shape(self.readers[node][0])[1]
        key = (
            width,
            bool(layouts & _FLOAT_FORM),
            Layout.BF16 in layouts,
            bool(layouts - _FLOAT_FORM - {Layout.BF16}),
            self.selected,
        )
        free = self.free_forms.setdefault(key, [])
        if free:
            forms = free.pop()
        else:
            forms = self.plan.add_forms(
                width, f32=key[1], bf16=key[2], q8=key[3], logits_rows=self.selected
            )
            self.forms_keys[forms] = key
        self._rows()
        self.plan.row_forms(self.values[node].buffer, forms)
        self.values[node].forms = forms

    def _forms_of(self, x: graph.Tensor) -> int:
        value = self.values[x.node]
        if value.forms is None:
            # Rows straight from a matrix product: make the forms in a phase of their own.
            self._flush_linear()
            self._make_forms(x.node)
        if value.forms is None:
            raise NotImplementedError("a matrix product reads rows that have no forms")
        return value.forms

    def _wanted(self, node: int, weights: list[str]) -> tuple[str, ...]:
        if self.observed is None or node > self.program.hidden.node:
            return ()
        return tuple(name for name in weights if self.observed(name))

    def _observe(self, node: int, x: graph.Tensor, weights: list[str], first: str) -> None:
        """Show what `weights` are given, once: where the first of them reads it."""
        wanted = self._wanted(node, weights)
        if not wanted or first != weights[0]:
            return
        self.plan.observe(self.values[x.node].buffer, logits_rows=self.selected)
        self.observations.append(Observed(wanted))
        self.in_rows = False

    def _release(self, node: int, op: graph.Op) -> None:
        """Give back the buffers of values nobody reads after this op."""
        held = {v.buffer for n, v in self.values.items() if self.last_use.get(n, -1) > node}
        held.add(self.values[node].buffer)
        for x in _inputs(op):
            if self.last_use[x.node] != node or x.node not in self.values:
                continue
            value = self.values.pop(x.node)
            if value.buffer not in held:
                # A buffer written for tokens before the selection stays of that kind.
                selected = self.selected and not isinstance(op, graph.SelectRows)
                self.free_buffers.setdefault((x.width, selected), []).append(value.buffer)
            if value.forms is not None:
                self.free_forms[self.forms_keys[value.forms]].append(value.forms)

    def _experts(self, count: int, experts: graph.Experts, routing: graph.Routing) -> int:
        def vector(name: str | None) -> int:
            return -1 if name is None else self.weights.vector(name)

        return self.plan.add_experts(
            num_experts=count,
            num_used=routing.num_used,
            gate=self.weights.matrix(experts.gate),
            up=self.weights.matrix(experts.up),
            down=self.weights.matrix(experts.down),
            gate_bias=vector(experts.gate_bias),
            up_bias=vector(experts.up_bias),
            down_bias=vector(experts.down_bias),
            selection_bias=vector(routing.bias),
            num_groups=routing.num_groups,
            num_groups_used=routing.num_groups_used,
            group_top=routing.group_top,
            sigmoid=routing.scoring == "sigmoid",
            normalize=routing.normalize,
            factor=routing.factor,
            limit=experts.limit,
        )

    def _rotation(self, head_dim: int, rotary: graph.Rotary) -> int:
        key = (head_dim, rotary)
        if key not in self.rotations:
            self.rotations[key] = self.plan.add_rotation(
                np.array(rotary.inv_freq, np.float64),
                head_dim=head_dim,
                interleaved=rotary.interleaved,
                factor=rotary.attention_factor,
            )
        return self.rotations[key]


def _inputs(op: graph.Op) -> tuple[graph.Tensor, ...]:
    match op:
        case graph.Embed():
            return ()
        case graph.Attention(q, k, v):
            return (q, k, v)
        case graph.GatedAct(gate, up):
            return (gate, up)
        case graph.Add(a, b):
            return (a, b)
        case graph.RMSNorm(x) | graph.Linear(x) | graph.Rope(x) | graph.SelectRows(x):
            return (x,)
        case graph.Arrange(sources):
            return sources
        case graph.Moe(x, scores):
            return (x, scores)
        case graph.LayerNorm(x) | graph.Columns(x) | graph.Act(x):
            return (x,)
        case graph.Scale(x) | graph.ScaleByPosition(x) | graph.Softcap(x):
            return (x,)


def _last_uses(program: Program) -> dict[int, int]:
    """The last op that reads each node; the output is read after all of them."""
    last = {x.node: node for node, op in enumerate(program.ops) for x in _inputs(op)}
    last[program.output.node] = len(program.ops)
    return last


def _linear_readers(program: Program) -> dict[int, list[str]]:
    """The weights of the matrix products that read each node."""
    readers: dict[int, list[str]] = {}
    for op in program.ops:
        if isinstance(op, graph.Linear):
            readers.setdefault(op.x.node, []).append(op.weight)
    return readers
