"""What is particular about single decoders: long rope, models with eyes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from backends.steps import prefill
from models.tiny import BASE, GEMMA, MINISTRAL_ROPE, PARITY, Row, hf_logits, make_hf, write_gguf
from quintet.backends.reference import ReferenceExecutor
from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.formats.gguf import GGUFFile
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import load_model
from quintet.tools.convert import convert
from word_pieces import write_word_pieces

TOKENS = np.random.default_rng(7).integers(0, 160, 75).tolist()
BLOCKS = [9, 2, 5, 1, 7]
ROWS = {row.id: row for row in PARITY}


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def change_config(directory: Path, change: dict[str, Any]) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **change}))


def test_long_rope_of_a_short_run_has_the_frequencies_for_short_texts(tmp_path):
    """A model that will see no more than its first training's length rotates as it did then."""
    row = ROWS["phi3-long"]
    model = make_hf(row, tmp_path)
    write_gguf(row, model, tmp_path / "model.gguf", gguf.GGMLQuantizationType.F32)
    expected = hf_logits(model, TOKENS[:60])
    for source in (SafetensorsDir.open(tmp_path), GGUFFile.open(tmp_path / "model.gguf")):
        with source:
            short = load_model(source, context_length=64)
            assert short.config.context_length == 64
            executor = ReferenceExecutor(short, num_blocks=10)
            assert relative_error(prefill(executor, TOKENS[:60], BLOCKS, chunk=60), expected) < 1e-4
            longer = load_model(source, context_length=65)
            assert longer.config.context_length == 512
            executor = ReferenceExecutor(longer, num_blocks=10)
            assert relative_error(prefill(executor, TOKENS[:60], BLOCKS, chunk=60), expected) > 1e-3


@pytest.mark.parametrize("name", ["Gemma3", "Mistral3"])
def test_the_text_part_of_a_model_with_eyes_loads(name, tmp_path):
    """A directory with a vision tower gives the logits of its text model, and so does the GGUF file
    that is made of it."""
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    text = {**BASE, "head_dim": 16}
    if name == "Gemma3":
        text |= {**GEMMA, "query_pre_attn_scalar": 16, "model_type": "gemma3_text"}
        ids = {"image_token_index": 9, "boi_token_index": 8, "eoi_token_index": 7}
    else:
        text |= {"rope_parameters": MINISTRAL_ROPE, "model_type": "ministral3"}
        vision["model_type"] = "pixtral"
        ids = {"image_token_index": 9}
    config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=vision, **ids)
    torch.manual_seed(1)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(tmp_path)
    tokens = [token for token in TOKENS if token > 9]
    expected = hf_logits(model.double(), tokens)
    with SafetensorsDir.open(tmp_path) as source:
        executor = ReferenceExecutor(load_model(source), num_blocks=10)
        found = prefill(executor, tokens, BLOCKS, chunk=len(tokens))
    assert relative_error(found, expected) < 1e-4
    write_word_pieces(tmp_path)
    convert(tmp_path, tmp_path / "model.gguf", "f32")
    with GGUFFile.open(tmp_path / "model.gguf") as source:
        executor = ReferenceExecutor(load_model(source), num_blocks=10)
        found = prefill(executor, tokens, BLOCKS, chunk=len(tokens))
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gemma2", {"hidden_activation": "gelu"}),
        ("gemma2", {"use_bidirectional_attention": True}),
        ("gemma2", {"layer_types": ["chunked_attention"] * 3}),
        ("gemma3", {"use_bidirectional_attention": True}),
        ("phi3", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4}}),
        ("granite", {"rope_parameters": {"rope_type": "ntk", "rope_theta": 1e4}}),
        ("olmo2", {"hidden_act": "relu"}),
        ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}),
        ("olmo3", {"layer_types": ["linear_attention"] * 5}),
        ("smollm3", {"hidden_act": "gelu"}),
        ("llama", {"partial_rotary_factor": 0.5}),
        ("ministral3", {"model_type": "other"}),
        ("deepseek2-lite", {"topk_method": "random"}),
        ("deepseek2-lite", {"norm_topk_prob": True}),
        ("deepseek3", {"rope_interleave": False}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_would_run_wrong_is_refused(name, change, tmp_path):
    """An option that changes what is computed is refused by name."""
    make_hf(ROWS[name], tmp_path)
    change_config(tmp_path, change)
    with SafetensorsDir.open(tmp_path) as source, pytest.raises(UnsupportedModelError):
        load_model(source)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("qwen2-yarn", "qwen2.rope.scaling.yarn_attn_factor", 2.0),
        ("qwen2-yarn", "qwen2.rope.scaling.type", "dynamic"),
        ("deepseek2-lite", "deepseek2.expert_gating_func", 3),
        ("glm4", "glm4.rope.dimension_sections", [8, 8, 8]),
    ],
)
def test_what_would_run_wrong_is_refused_in_gguf(name, key, value, tmp_path):
    """The same of keys of a GGUF file."""
    row = ROWS[name]
    path = tmp_path / "model.gguf"
    write_gguf(row, make_hf(row, tmp_path), path, gguf.GGMLQuantizationType.F32)
    with GGUFFile.open(path) as source:
        metadata = {**source.metadata, key: value}
        source.metadata = metadata
        with pytest.raises(UnsupportedModelError):
            load_model(source)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gemma2", {"sliding_window": 0}),
        ("gemma2", {"layer_types": ["full_attention"]}),
        ("gemma2", {"attn_logit_softcapping": "fifty"}),
        ("gemma3", {"rope_parameters": {"full_attention": 3}}),
        ("phi3-long", {"rope_parameters": {"rope_type": "longrope", "long_factor": [1.0]}}),
        ("smollm3", {"no_rope_layers": [2, 1, 1, 1, 1]}),
        ("granite", {"logits_scaling": 0}),
        ("qwen3moe", {"num_experts_per_tok": 7}),
        ("qwen3moe", {"norm_topk_prob": "yes"}),
        ("gpt-oss", {"num_experts_per_tok": -1}),
        ("deepseek2-lite", {"kv_lora_rank": 500}),
        ("deepseek3", {"n_group": 4, "topk_group": 1}),
        ("deepseek3", {"n_group": 3, "topk_group": 0}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_broken_configuration_is_refused(name, change, tmp_path):
    """A value that makes no sense is refused with its key."""
    make_hf(ROWS[name], tmp_path)
    change_config(tmp_path, change)
    with SafetensorsDir.open(tmp_path) as source, pytest.raises(ModelFormatError):
        load_model(source)


def rewritten(directory: Path, change) -> SafetensorsDir:
    """The directory with its tensors changed, in one file."""
    tensors = {}
    for shard in sorted(directory.glob("*.safetensors")):
        tensors |= load_file(shard)
        shard.unlink()
    (directory / "model.safetensors.index.json").unlink()
    change(tensors)
    save_file(tensors, directory / "model.safetensors")
    return SafetensorsDir.open(directory)


def test_experts_with_gaps_or_of_other_shapes_are_refused(tmp_path):
    """A missing expert, or one that is unlike the others, is a broken file."""
    expert = "model.layers.1.mlp.experts.3.up_proj.weight"
    make_hf(ROWS["qwen3moe"], tmp_path / "gap")
    with (
        rewritten(tmp_path / "gap", lambda tensors: tensors.pop(expert)) as source,
        pytest.raises(ModelFormatError, match="experts"),
    ):
        load_model(source)
    make_hf(ROWS["qwen3moe"], tmp_path / "shape")
    shorter = lambda tensors: tensors.update({expert: tensors[expert][:16]})  # noqa: E731
    with (
        rewritten(tmp_path / "shape", shorter) as source,
        pytest.raises(ModelFormatError, match="experts"),
    ):
        load_model(source)


def test_experts_that_share_panels_are_refused(tmp_path):
    """The kernels hold sixteen rows together: an expert must be whole panels."""
    row = ROWS["qwen3moe"]
    odd = Row("odd", row.hf, row.gguf_arch, {**row.overrides, "moe_intermediate_size": 24})
    make_hf(odd, tmp_path)
    with SafetensorsDir.open(tmp_path) as source, pytest.raises(UnsupportedModelError):
        load_model(source)


@pytest.mark.parametrize("name", ["gemma2", "gpt-oss", "deepseek3"])
def test_a_tensor_that_nothing_reads_is_refused(name, tmp_path):
    """A bias the program knows nothing of means another model."""
    make_hf(ROWS[name], tmp_path)
    add = lambda tensors: tensors.update({"model.layers.0.mlp.odd.bias": np.zeros(4, "f4")})  # noqa: E731
    with (
        rewritten(tmp_path, add) as source,
        pytest.raises(UnsupportedModelError, match="odd"),
    ):
        load_model(source)
