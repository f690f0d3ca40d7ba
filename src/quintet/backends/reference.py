"""The reference backend: NumPy, one op at a time, written to be read.

It is the oracle of the other backends' tests: slow and obviously right.  It
computes in float32 or float64 on exactly dequantised weights and stores k and
v in the same precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from quintet import ops
from quintet.backends.base import BLOCK_SIZE, Float32Array, Observer, StepInput
from quintet.models import Model

Array: TypeAlias = npt.NDArray[Any]  # the executor's dtype: float32 or float64


class ReferenceExecutor:
    """Runs a program with NumPy.  See `quintet.backends.base.Executor`.

    Args:
        model: what to run; its weights are dequantised here, once.
        num_blocks: KV blocks of BLOCK_SIZE tokens.
        dtype: np.float32 or np.float64, of every computation.
    """

    def __init__(
        self,
        model: Model,
        *,
        num_blocks: int,
        max_num_batched_tokens: int = 512,
        dtype: type[np.float32] | type[np.float64] = np.float32,
    ) -> None:
        self.num_blocks = num_blocks
        self.vocab_size = model.program.output.width
        self.hidden_size = model.program.hidden.width
        self.max_num_batched_tokens = max_num_batched_tokens
        self.max_logits_rows = max_num_batched_tokens  # it has no buffers to fill
        self.threads = None
        self._program = model.program
        self._dtype = dtype
        self._weights = {
            name: model.weights.dequantized(name).astype(dtype) for name in model.program.weights
        }
        cache = model.program.cache
        shape = (cache.num_layers, num_blocks * BLOCK_SIZE, cache.num_kv_heads, cache.head_dim)
        self._k = np.zeros(shape, dtype)
        self._v = np.zeros(shape, dtype)

    def run(self, step: StepInput) -> Float32Array:
        """Execute one step: see `quintet.backends.base.Executor.run`."""
        return self._run(step, self._program.output)

    def run_hidden(self, step: StepInput) -> Float32Array:
        """Execute one step: see `quintet.backends.base.Executor.run_hidden`."""
        return self._run(step, self._program.hidden)

    def run_observed(self, step: StepInput, observer: Observer) -> None:
        """Execute one step: see `quintet.backends.base.ObservedExecutor.run_observed`."""
        values: list[Array] = []
        for op in self._program.ops[: self._program.hidden.node + 1]:
            if isinstance(op, ops.Linear | ops.RMSNorm | ops.LayerNorm):
                observer((op.weight,), 0, values[op.x.node].astype(np.float32))
            elif isinstance(op, ops.Moe):
                self._observe_experts(op, values, observer)
            values.append(self._execute(op, values, step))

    def _observe_experts(self, op: ops.Moe, values: list[Array], observer: Observer) -> None:
        w, experts, routing = self._weights, op.experts, op.routing
        x = values[op.x.node]
        bias = None if routing.bias is None else w[routing.bias]
        chosen, _ = route(values[op.scores.node], routing, bias)
        for expert in np.unique(chosen).tolist():
            rows = x[np.nonzero(chosen == expert)[0]]
            observer((experts.gate, experts.up), expert, rows.astype(np.float32))
            inner = expert_inner(rows, experts, expert, w)
            observer((experts.down,), expert, inner.astype(np.float32))

    def _run(self, step: StepInput, wanted: ops.Tensor) -> Float32Array:
        values: list[Array] = []
        for op in self._program.ops[: wanted.node + 1]:
            values.append(self._execute(op, values, step))
        return values[wanted.node].astype(np.float32)

    def close(self) -> None:
        """Free weights and cache."""
        self._weights.clear()
        self._k = self._v = np.zeros((0, 0, 0, 0), self._dtype)

    def _execute(self, op: ops.Op, values: list[Array], step: StepInput) -> Array:
        w = self._weights
        match op:
            case ops.Embed(weight, "token"):
                return w[weight][step.token_ids]
            case ops.Embed(weight, "position"):
                return w[weight][step.positions]
            case ops.Embed(weight, "type"):
                types = step.token_types
                return w[weight][np.zeros_like(step.token_ids) if types is None else types]
            case ops.LayerNorm(x, weight, bias, eps):
                y = layer_norm(values[x.node], eps) * w[weight]
                return y if bias is None else y + w[bias]
            case ops.Columns(x, begin, width):
                return values[x.node][:, begin : begin + width]
            case ops.RMSNorm(x, weight, group, eps):
                return rms_norm(values[x.node], w[weight], group, eps)
            case ops.Linear(x, weight, bias):
                y = values[x.node] @ w[weight].T
                return y if bias is None else y + w[bias]
            case ops.Rope(x, head_dim, rotary):
                return rope(values[x.node], step.positions, head_dim, rotary)
            case ops.Attention():
                return self._attention(op, values, step)
            case ops.GatedAct(gate, up, "silu"):
                return silu(values[gate.node]) * values[up.node]
            case ops.GatedAct(gate, up, "gelu"):
                return gelu(values[gate.node]) * values[up.node]
            case ops.GatedAct(gate, up, "gelu_tanh"):
                return gelu_tanh(values[gate.node]) * values[up.node]
            case ops.Arrange(sources, runs):
                rows = [values[source.node] for source in sources]
                zeros = np.zeros((len(rows[0]), max(w for _, _, w in runs)), self._dtype)
                return np.concatenate(
                    [
                        zeros[:, :w] if i < 0 else rows[i][:, begin : begin + w]
                        for i, begin, w in runs
                    ],
                    axis=1,
                )
            case ops.Scale(x, factor):
                return values[x.node] * self._dtype(factor)
            case ops.ScaleByPosition(x, growth, period):
                factors = 1 + growth * np.log1p(step.positions // period)
                return values[x.node] * factors[:, None].astype(self._dtype)
            case ops.Softcap(x, cap):
                return softcap(values[x.node], cap)
            case ops.Moe(x, scores, experts, routing):
                return moe(values[x.node], values[scores.node], experts, routing, w)
            case ops.Act(x, "gelu"):
                return gelu(values[x.node])
            case ops.Act(x, "tanh"):
                return np.tanh(values[x.node])
            case ops.Add(a, b):
                return values[a.node] + values[b.node]
            case ops.SelectRows(x):
                return values[x.node][step.logits_rows]
        raise NotImplementedError(f"op {op!r}")

    def _attention(self, op: ops.Attention, values: list[Array], step: StepInput) -> Array:
        heads = (-1, op.num_kv_heads, op.head_dim)
        k_cache, v_cache = self._k[op.layer], self._v[op.layer]
        k_cache[step.slot_mapping] = values[op.k.node].reshape(heads)
        v_cache[step.slot_mapping] = values[op.v.node].reshape(heads)
        group = op.num_heads // op.num_kv_heads
        q = values[op.q.node].reshape(-1, op.num_kv_heads, group, op.head_dim)
        out = np.empty_like(q)
        for i, seq_len in enumerate(step.seq_lens.tolist()):
            begin, end = int(step.cu_seqlens[i]), int(step.cu_seqlens[i + 1])
            blocks = step.block_tables[i, : -(-seq_len // BLOCK_SIZE)]
            slots = (blocks[:, None] * BLOCK_SIZE + np.arange(BLOCK_SIZE)).ravel()[:seq_len]
            scores = np.einsum("qhgd,shd->qhgs", q[begin:end], k_cache[slots]) * op.scale
            scores = softcap(scores, op.softcap) if op.softcap else scores
            distance = np.arange(seq_len) - step.positions[begin:end, None]
            left = seq_len if op.left is None else op.left
            right = seq_len if op.right is None else op.right
            unseen = (distance < -left) | (distance > right)
            scores[np.broadcast_to(unseen[:, None, None, :], scores.shape)] = -np.inf
            if op.sinks is not None:
                sinks = self._weights[op.sinks].reshape(1, op.num_kv_heads, group, 1)
                sinks = np.broadcast_to(sinks, (*scores.shape[:-1], 1))
                weights = softmax(np.concatenate((scores, sinks), axis=-1))[..., :-1]
            else:
                weights = softmax(scores)
            out[begin:end] = np.einsum("qhgs,shd->qhgd", weights, v_cache[slots])
        return out.reshape(len(q), -1)


def rms_norm(x: Array, weight: Array, group: int, eps: float) -> Array:
    """x [n, width], normalised over each run of `group` columns."""
    runs = x.reshape(len(x), x.shape[1] // group, group)  # there may be no rows
    scale = 1 / np.sqrt(np.mean(runs * runs, axis=-1, keepdims=True) + x.dtype.type(eps))
    return (runs * scale * weight).reshape(x.shape)


def layer_norm(x: Array, eps: float) -> Array:
    """x [n, width], each row to mean 0 and variance 1."""
    centred = x - np.mean(x, axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    return centred / np.sqrt(variance + x.dtype.type(eps))


def gelu(x: Array) -> Array:
    """x * Phi(x), by the error function of the standard library."""
    error = np.asarray(_erf(x.astype(np.float64) / math.sqrt(2)), np.float64)
    return (x * (0.5 * (1 + error))).astype(x.dtype)


def gelu_tanh(x: Array) -> Array:
    """gelu with Phi(x) as (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    inner = x.dtype.type(math.sqrt(2 / math.pi)) * (x + x.dtype.type(0.044715) * x * x * x)
    return np.asarray(x * x.dtype.type(0.5) * (1 + np.tanh(inner)))


_erf = np.frompyfunc(math.erf, 1, 1)


def rope(x: Array, positions: npt.NDArray[np.int32], head_dim: int, rotary: ops.Rotary) -> Array:
    """x [n, num_heads * head_dim], each head rotated by its token's position."""
    half = len(rotary.inv_freq)
    angles = positions[:, None].astype(np.float64) * np.array(rotary.inv_freq)
    cos = (np.cos(angles) * rotary.attention_factor).astype(x.dtype)[:, None, :]
    sin = (np.sin(angles) * rotary.attention_factor).astype(x.dtype)[:, None, :]
    heads = x.reshape(len(x), -1, head_dim)
    first = slice(0, 2 * half, 2) if rotary.interleaved else slice(0, half)
    second = slice(1, 2 * half, 2) if rotary.interleaved else slice(half, 2 * half)
    out = heads.copy()
    out[..., first] = heads[..., first] * cos - heads[..., second] * sin
    out[..., second] = heads[..., second] * cos + heads[..., first] * sin
    return out.reshape(x.shape)


def silu(x: Array) -> Array:
    """x * sigmoid(x), without overflow for large negative x."""
    return x / (1 + np.exp(-np.clip(x, -80, None)))


def softcap(x: Array, cap: float) -> Array:
    """cap * tanh(x / cap)."""
    return np.asarray(np.tanh(x / x.dtype.type(cap)) * x.dtype.type(cap))


def route(scores: Array, routing: ops.Routing, bias: Array | None) -> tuple[Array, Array]:
    """[n, num_experts] scores -> the chosen experts and their weights, [n, num_used] each."""
    weights = expert_weights(scores, routing)
    ranked = weights if bias is None else weights + bias
    if routing.num_groups > 1:
        groups = ranked.reshape(len(ranked), routing.num_groups, -1)
        best = np.sort(groups, axis=-1)[..., -routing.group_top :].sum(axis=-1)
        order = np.argsort(-best, axis=-1, kind="stable")
        unused = order[:, routing.num_groups_used :, None]
        groups = groups.copy()
        np.put_along_axis(
            groups, np.broadcast_to(unused, (*unused.shape[:2], groups.shape[2])), -np.inf, axis=1
        )
        ranked = groups.reshape(ranked.shape)
    chosen = np.argsort(-ranked, axis=-1, kind="stable")[:, : routing.num_used]
    taken = np.take_along_axis(weights, chosen, axis=-1)
    if routing.normalize:
        taken = taken / taken.sum(axis=-1, keepdims=True)
    return chosen, taken * taken.dtype.type(routing.factor)


def expert_weights(scores: Array, routing: ops.Routing) -> Array:
    """[n, num_experts] scores -> weights, before any of them are chosen."""
    if routing.scoring == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-np.clip(scores, -80, None))))
    return softmax(scores)


def moe(
    x: Array,
    scores: Array,
    experts: ops.Experts,
    routing: ops.Routing,
    weights: Mapping[str, Array],
) -> Array:
    """x [n, width] through its experts, expert by expert."""
    chosen, taken = route(scores, routing, None if routing.bias is None else weights[routing.bias])
    out = np.zeros_like(x)
    for expert in np.unique(chosen):
        rows, ranks = np.nonzero(chosen == expert)
        inner = expert_inner(x[rows], experts, expert, weights)
        y = _product(inner, weights, experts.down, experts.down_bias, expert)
        out[rows] += y * taken[rows, ranks][:, None]
    return out


def expert_inner(
    x: Array, experts: ops.Experts, expert: int, weights: Mapping[str, Array]
) -> Array:
    """x [n, width] -> [n, inner], what an expert's down matrix is given."""
    gate = _product(x, weights, experts.gate, experts.gate_bias, expert)
    up = _product(x, weights, experts.up, experts.up_bias, expert)
    return swiglu_clamped(gate, up, experts.limit) if experts.limit else silu(gate) * up


def _product(
    x: Array, weights: Mapping[str, Array], weight: str, bias: str | None, expert: int
) -> Array:
    y = x @ weights[weight][expert].T
    return np.asarray(y if bias is None else y + weights[bias][expert])


def swiglu_clamped(gate: Array, up: Array, limit: float) -> Array:
    """Source: the gpt-oss model card, arXiv:2508.10925, section 2.2."""
    gate = np.minimum(gate, gate.dtype.type(limit))
    up = np.clip(up, -limit, limit).astype(gate.dtype)
    return gate / (1 + np.exp(np.clip(gate * gate.dtype.type(-1.702), None, 80))) * (up + 1)


def softmax(x: Array) -> Array:
    """Over the last axis."""
    shifted = np.exp(x - x.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
