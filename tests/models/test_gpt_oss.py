"""gpt-oss as it is published: experts in MXFP4, in the layout of its own checkpoints."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from backends.steps import prefill
from models.tiny import PARITY, hf_logits, make_hf
from quintet.backends.cpu import CPUExecutor
from quintet.backends.reference import ReferenceExecutor
from quintet.errors import ModelFormatError, UnsupportedModelError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.gguf import GGUFFile
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import load_model
from quintet.tools.convert import convert
from word_pieces import write_word_pieces

TOKENS = np.random.default_rng(7).integers(0, 160, 75).tolist()
BLOCKS = [9, 2, 5, 1, 7]
ROW = next(row for row in PARITY if row.id == "gpt-oss")


@pytest.fixture
def packed(tmp_path):
    """A directory with random MXFP4 experts, and the model that transformers makes of them."""
    model = make_hf(ROW, tmp_path)
    tensors = {}
    for shard in sorted(tmp_path.glob("*.safetensors")):
        tensors |= load_file(shard)
        shard.unlink()
    (tmp_path / "model.safetensors.index.json").unlink()
    torch.manual_seed(0)
    for name in [n for n in tensors if n.endswith("_proj") and "experts" in n]:
        count, width, out = tensors.pop(name).shape
        blocks = torch.randint(0, 256, (count, out, width // 32, 16), dtype=torch.uint8)
        scales = torch.randint(122, 125, (count, out, width // 32), dtype=torch.uint8)
        tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = blocks, scales
        values = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        with torch.no_grad():
            model.get_parameter(name).copy_(values)
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path, model


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_packed_experts_give_the_logits_of_transformers(packed):
    """Both backends, on the values that transformers' own unpacking gives; the codes stay codes."""
    directory, expected = packed
    with SafetensorsDir.open(directory) as source:
        model = load_model(source)
        name = "blk.0.ffn_up_exps.weight"
        assert model.weights.tensors[name].ggml_type is GGMLType.MXFP4
        wanted = hf_logits(expected, TOKENS)
        reference = ReferenceExecutor(model, num_blocks=10)
        assert relative_error(prefill(reference, TOKENS, BLOCKS, chunk=75), wanted) < 1e-4
        cpu = CPUExecutor(
            model,
            num_blocks=10,
            max_num_batched_tokens=75,
            max_logits_rows=75,
            weight_dtype="float32",
            kv_dtype="float32",
        )
        assert relative_error(prefill(cpu, TOKENS, BLOCKS, chunk=75), wanted) < 1e-3


def test_packed_experts_without_scales_are_refused(packed):
    """Blocks whose scales are missing, or of another shape, name the tensor."""
    directory, _ = packed
    tensors = load_file(directory / "model.safetensors")
    name = "model.layers.1.mlp.experts.down_proj_scales"
    tensors[name] = tensors[name][:, :-1].contiguous()
    save_file(tensors, directory / "model.safetensors")
    with SafetensorsDir.open(directory) as source, pytest.raises(ModelFormatError, match="scale"):
        load_model(source)


def test_packed_experts_are_converted_byte_for_byte(packed, tmp_path):
    """GGUF's MXFP4 holds the same codes; a float type of the rest does not unpack them."""
    directory, expected = packed
    write_word_pieces(directory)
    convert(directory, tmp_path / "m.gguf", "f16")
    with GGUFFile.open(tmp_path / "m.gguf") as file, SafetensorsDir.open(directory) as source:
        model = load_model(source)
        for part in ("gate", "up", "down"):
            name = f"blk.1.ffn_{part}_exps.weight"
            assert file.tensors[name].ggml_type is GGMLType.MXFP4
            assert file.raw(name).tobytes() == model.weights.raw(name).tobytes()
        assert file.tensors["blk.1.attn_q.weight"].ggml_type is GGMLType.F16
        assert file.tensors["blk.1.ffn_gate_inp.weight"].ggml_type is GGMLType.F32
        assert file.tensors["blk.1.ffn_up_exps.bias"].ggml_type is GGMLType.F32
        reference = ReferenceExecutor(load_model(file), num_blocks=10)
        found = prefill(reference, TOKENS, BLOCKS, chunk=75)
    assert relative_error(found, hf_logits(expected, TOKENS)) < 5e-3  # of float16


@pytest.mark.parametrize("change", [{"swiglu_limit": 5.0}, {"hidden_act": "relu"}])
def test_another_activation_is_refused(change, tmp_path):
    """GGUF could not say so, and the kernels have the published one."""
    make_hf(dataclasses.replace(ROW), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with SafetensorsDir.open(tmp_path) as source, pytest.raises(UnsupportedModelError):
        load_model(source)
