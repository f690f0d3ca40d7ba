"""
A compact Qwen3 decoder for training on the CPU.

Parameter names are those of `transformers.Qwen3ForCausalLM`, so a checkpoint loads there without
renaming; evaluate.py answers through that class.  Differs from Llama in one place: queries and keys
are RMS-normalised per head before RoPE.

Source: Qwen3 technical report, arXiv:2505.09388, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class DemoConfig:
    """Shape of the demo model; every row length is a multiple of 256 so that K-quants apply."""

    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 768
    num_layers: int = 5
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 64
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    context_length: int = 2048


class DemoModel(nn.Module):
    """Tied embeddings: the output projection is the embedding matrix."""

    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """
        Logits of every position.

        Args:
            tokens: [batch, length] int64.
            mask: [batch, 1, length, length], from attention_mask, in the compute dtype.

        Returns:
            [batch, length, vocab_size] in the compute dtype.
        """
        hidden = self.model(tokens, mask)
        return nn.functional.linear(hidden, self.model.embed_tokens.weight)


class Decoder(nn.Module):
    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        cos, sin = rope_table(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        hidden = self.embed_tokens(tokens)
        cos = self.cos[: tokens.shape[1]].to(hidden.dtype)
        sin = self.sin[: tokens.shape[1]].to(hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, cos, sin, mask)
        return self.norm(hidden)


class Block(nn.Module):
    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), cos, sin, mask)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Attention(nn.Module):
    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.config = config
        query_size = config.num_heads * config.head_dim
        kv_size = config.num_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_size, bias=False)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        batch, length, _ = hidden.shape
        heads = (batch, length, -1, self.config.head_dim)
        query = apply_rope(self.q_norm(self.q_proj(hidden).view(heads)).transpose(1, 2), cos, sin)
        key = apply_rope(self.k_norm(self.k_proj(hidden).view(heads)).transpose(1, 2), cos, sin)
        value = self.v_proj(hidden).view(heads).transpose(1, 2)
        group_size = self.config.num_heads // self.config.num_kv_heads
        key = key.repeat_interleave(group_size, dim=1)
        value = value.repeat_interleave(group_size, dim=1)
        # Spelled out: at these lengths the compiler fuses it better than the library's own kernel.
        scores = query @ key.transpose(-1, -2) * self.config.head_dim**-0.5 + mask
        mixed = scores.softmax(dim=-1) @ value
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


class MLP(nn.Module):
    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(nn.functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        wide = hidden.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale * self.weight.float()).to(hidden.dtype)


def rope_table(config: DemoConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines, [context_length, head_dim] each, the second half repeating the first."""
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    frequency = config.rope_theta**-exponent
    angle = torch.outer(torch.arange(config.context_length, dtype=torch.float64), frequency)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos().float(), angle.sin().float()


def attention_mask(samples: Tensor) -> Tensor:
    """
    0 where a query may see a key, else -inf: earlier tokens of the same packed sample.

    Positions run on through a row of several samples; RoPE is relative, so that changes nothing.

    Args:
        samples: [batch, length] int64, the number of the sample that a token belongs to.

    Returns:
        [batch, 1, length, length] float32.
    """
    length = samples.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=samples.device).tril()
    visible = (samples[:, :, None] == samples[:, None, :]) & causal
    return torch.zeros(visible.shape).masked_fill(~visible, float("-inf")).unsqueeze(1)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (i, i + head_dim / 2) of x [batch, heads, length, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
