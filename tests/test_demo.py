"""The packaged model through the whole engine, against transformers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from backends.steps import prefill
from quintet import LLM, SamplingParams, Tokenizer
from quintet.backends.cpu import CPUExecutor
from quintet.backends.reference import ReferenceExecutor
from quintet.formats.gguf import GGUFFile
from quintet.hub.resolve import resolve
from quintet.models import load_model

NUM_STEPS = 200
STORY = """Once upon a time, a lonely princess named Ruby lived in a busy city. Ruby had one
thing she loved most: an old bell. One day, the bell was gone. Ruby looked behind the door,
in the garden and along the path, but she could not find it. Then a ghost named Greta came
by and asked, "What is wrong?" "I have lost my bell," said Ruby. "Let us look together,"
said Greta. Before sunset they found the bell near the old bridge. The capital of France is
Paris."""
PROMPTS = ["Once upon a time", "What is the capital of France?", "1 2 3 4 5"]
HF_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hf_name(name: str) -> str:
    if name in HF_NAMES:
        return HF_NAMES[name]
    _, layer, stem, kind = name.split(".")
    return f"model.layers.{layer}.{HF_NAMES[stem]}.{kind}"


@pytest.fixture(scope="module")
def oracle() -> Any:
    """The same dequantised weights in transformers, float32."""
    with GGUFFile.open(resolve("demo")) as file:
        model = load_model(file)
        c = model.config
        config = transformers.Qwen3Config(
            vocab_size=c.vocab_size,
            hidden_size=c.hidden_size,
            intermediate_size=file.tensors["blk.0.ffn_up.weight"].shape[0],
            num_hidden_layers=c.num_layers,
            num_attention_heads=c.num_heads,
            num_key_value_heads=c.num_kv_heads,
            head_dim=c.head_dim,
            max_position_embeddings=c.context_length,
            rms_norm_eps=c.rms_norm_eps,
            rope_theta=file.metadata["qwen3.rope.freq_base"],
            tie_word_embeddings=True,
        )
        hf = transformers.Qwen3ForCausalLM(config).eval()
        weights = {
            hf_name(name): torch.from_numpy(np.array(file.dequantized(name)))
            for name in model.program.weights
        }
    missing, unexpected = hf.load_state_dict(weights, strict=False)
    assert set(missing) <= {"lm_head.weight"}
    assert not unexpected
    hf.tie_weights()
    return hf


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM("demo", dtype="float32") as loaded:
        yield loaded


def greedy(model: Any, prompt_token_ids: list[int]) -> list[int]:
    """NUM_STEPS tokens, each the largest logit, with the oracle's own cache."""
    token_ids = torch.tensor([prompt_token_ids])
    found: list[int] = []
    cache = None
    with torch.no_grad():
        for _ in range(NUM_STEPS):
            out = model(token_ids, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            token_ids = out.logits[:, -1:].argmax(-1)
            found.append(int(token_ids))
    return found


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_tokens_equal_transformers_for_200_steps(llm, oracle, prompt):
    """In float32 the engine walks the same path as transformers, token by token."""
    params = SamplingParams(max_tokens=NUM_STEPS, temperature=0, ignore_eos=True)
    output = llm.generate(prompt, params)[0]
    assert list(output.token_ids) == greedy(oracle, list(output.prompt_token_ids))


def test_quantised_kernels_stay_near_float32_on_a_trained_model():
    """int8 activations and a bf16 cache move the answers of a trained model very little.

    Mean KL at most 2e-3 and at least 98 % the same first choice, against NumPy in float32 on the
    same dequantised weights.
    """
    tokens = Tokenizer.from_file(resolve("demo")).encode(STORY)
    blocks = list(range(-(-len(tokens) // 16)))
    with GGUFFile.open(resolve("demo")) as file:
        model = load_model(file)
        oracle = ReferenceExecutor(model, num_blocks=len(blocks))
        kernels = CPUExecutor(
            model,
            num_blocks=len(blocks),
            max_num_batched_tokens=512,
            max_logits_rows=512,
            weight_dtype="auto",
            kv_dtype="bfloat16",
        )
        expected = log_softmax(prefill(oracle, tokens, blocks, chunk=512))
        found = log_softmax(prefill(kernels, tokens, blocks, chunk=512))
    divergence = (np.exp(expected) * (expected - found)).sum(-1)
    assert len(tokens) > 100
    assert divergence.mean() < 2e-3
    assert np.mean(expected.argmax(-1) == found.argmax(-1)) >= 0.98


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
