"""Parts of a decoder's block that many architectures have."""

from __future__ import annotations

from quintet.graph import Graph, Scope
from quintet.models._config import Config
from quintet.ops import Rotary, Routing, Tensor


def linear(w: Scope, x: Tensor, name: str) -> Tensor:
    """A matrix product, with a bias where the model has one: [n, in] -> [n, out]."""
    return w.linear(x, name, bias=w.graph.has(f"{w.prefix}{name}.bias"))


def attend(
    w: Scope, q: Tensor, k: Tensor, v: Tensor, layer: int, c: Config, *, sinks: bool = False
) -> Tensor:
    """Rotation, attention and its output projection: q, k, v -> [n, hidden_size]."""
    window = c.windows[layer] if c.windows else None
    if not c.rope_layers or c.rope_layers[layer]:
        local = c.local_inv_freq and window is not None
        rotary = Rotary(
            c.local_inv_freq if local else c.rope_inv_freq,
            c.rope_interleaved,
            1.0 if local else c.rope_attention_factor,
        )
        q = w.graph.rope(q, head_dim=c.head_dim, rotary=rotary)
        k = w.graph.rope(k, head_dim=c.head_dim, rotary=rotary)
    y = w.graph.attention(
        q,
        k,
        v,
        layer=layer,
        num_heads=c.num_heads,
        num_kv_heads=c.num_kv_heads,
        scale=c.attention_scale,
        left=window,
        softcap=c.attention_softcap,
        sinks=f"{w.prefix}attn_sinks.weight" if sinks else None,
    )
    return linear(w, y, "attn_output")


def qkv(w: Scope, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x: [n, hidden_size] -> the rows of queries, keys and values."""
    return linear(w, x, "attn_q"), linear(w, x, "attn_k"), linear(w, x, "attn_v")


def swiglu(w: Scope, x: Tensor) -> Tensor:
    """silu(gate) * up, projected: [n, hidden_size] -> [n, hidden_size]."""
    return w.linear(w.graph.silu_mul(w.linear(x, "ffn_gate"), w.linear(x, "ffn_up")), "ffn_down")


def fused_swiglu(w: Scope, x: Tensor) -> Tensor:
    """The same where gate and up are the halves of one matrix."""
    both = w.linear(x, "ffn_up")
    gate, up = w.graph.split(both, both.width // 2, both.width - both.width // 2)
    return w.linear(w.graph.silu_mul(gate, up), "ffn_down")


def moe(w: Scope, x: Tensor, c: Config, *, biases: bool = False, limit: float = 0.0) -> Tensor:
    """The weighted sum of the experts that the router chooses: [n, hidden_size] -> the same."""
    bias = f"{w.prefix}exp_probs_b.bias"
    routing = Routing(
        c.num_experts_used,
        scoring=c.expert_scoring,
        normalize=c.expert_weights_normalized,
        factor=c.expert_weights_factor,
        bias=bias if w.graph.has(bias) else None,
        num_groups=c.num_expert_groups,
        num_groups_used=c.num_expert_groups_used,
        group_top=2 if c.expert_scoring == "sigmoid" and c.num_expert_groups > 1 else 1,
    )
    return w.moe(x, linear(w, x, "ffn_gate_inp"), routing, biases=biases, limit=limit)


def has_experts(w: Scope) -> bool:
    """Whether a block's feed-forward is a mixture of experts."""
    return w.graph.has(f"{w.prefix}ffn_gate_inp.weight")


def head(g: Graph, x: Tensor, c: Config) -> Tensor:
    """The final norm of the selected rows, and their logits."""
    x = g.root.rms_norm(g.select_rows(x), "output_norm", eps=c.rms_norm_eps)
    x = g.root.linear(x, "token_embd" if c.tie_word_embeddings else "output")
    return g.softcap(g.scale(x, c.logit_scale), c.logit_softcap)
