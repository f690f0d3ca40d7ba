"""llamatelemetry.api.gguf against the gguf package."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from llamatelemetry.api.gguf import (
    QUANT_TYPE_INFO,
    GGUFParser,
    estimate_vram,
    get_quantization_info,
    kaggle_t4_recommended_models,
    list_quantization_types,
    recommend_quantization,
)
from llamatelemetry.exceptions import ConfigurationError, ModelError


def write(path: Path, file_type: int | None = None) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_vocab_size(32)
    if file_type is not None:
        writer.add_file_type(file_type)
    writer.add_tensor("a", np.zeros((4, 32), np.float16))
    writer.add_tensor("b", np.zeros((3,), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_says_what_it_is(tmp_path: Path):
    """GGUFParser(file_path): get_metadata, get_architecture, get_parameter_count,
    get_quantization_type, get_context_length and get_vocab_size."""
    parser = GGUFParser(file_path=write(tmp_path / "x.gguf"))
    assert parser.get_architecture() == "llama"
    assert parser.get_parameter_count() == 4 * 32 + 3
    assert parser.get_quantization_type() == "F16", "what most weights have"
    assert parser.get_context_length() == 4096
    assert parser.get_vocab_size() == 32
    assert parser.get_metadata()["general.architecture"] == "llama"


@pytest.mark.parametrize(
    "file_type", [each for each in gguf.LlamaFileType if each.name != "GUESSED"]
)
def test_file_types_have_llama_cpps_names(tmp_path: Path, file_type: gguf.LlamaFileType):
    """As the gguf package has them."""
    name = file_type.name.removeprefix("MOSTLY_").removeprefix("ALL_").removesuffix("_MOE")
    parser = GGUFParser(write(tmp_path / "x.gguf", int(file_type)))
    assert parser.get_quantization_type() == name


def test_the_packaged_model():
    """By its name."""
    parser = GGUFParser("demo")
    assert parser.get_architecture() == "qwen3"
    assert parser.get_vocab_size() == 2048
    assert parser.get_context_length() == 2048


def test_no_model(tmp_path: Path):
    """ModelError, whatever is wrong."""
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF")
    for wrong in (path, tmp_path / "no.gguf"):
        with pytest.raises(ModelError):
            GGUFParser(wrong)


def test_types_that_are_one_format_have_its_size():
    """QUANT_TYPE_INFO.bits_per_weight, by gguf's table of block sizes."""
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q6_K", "F16", "BF16", "F32", "IQ4_NL"):
        weights, num_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
        info = get_quantization_info(name)
        # Files of IQ4_NL and Q6_K have tensors of other formats, too.
        assert info.bits_per_weight == pytest.approx(8 * num_bytes / weights, rel=0.05)


def test_every_type_is_described():
    """list_quantization_types and get_quantization_info; more bits take more memory."""
    names = list_quantization_types()
    infos = [get_quantization_info(name) for name in names]
    assert all(isinstance(info, QUANT_TYPE_INFO) for info in infos)
    assert [info.name for info in infos] == names
    assert all(info.description and info.recommended_for for info in infos)
    bits = [info.bits_per_weight for info in infos]
    assert bits == sorted(bits)
    assert [info.vram_7b_gb for info in infos] == sorted(info.vram_7b_gb for info in infos)
    assert get_quantization_info("q4_k_m").name == "Q4_K_M"
    with pytest.raises(ConfigurationError, match="Q4_K_M"):
        get_quantization_info("Q4_K_XXL")


def test_memory_is_what_its_parts_add_up_to():
    """estimate_vram(parameter_count, quantization, context_size), for a Llama 3.1 8B."""
    # 8.03e9 weights of 4.8944 bits; 32 layers, keys and values of 8 heads of 128, in 16 bits.
    weights, cache = 8.03e9 * 4.8944 / 8, 4096 * 32 * 2 * 8 * 128 * 2
    estimate = estimate_vram(parameter_count=8.03e9, quantization="Q4_K_M", context_size=4096)
    assert estimate == pytest.approx((weights + cache) / 2**30 + 0.5, rel=0.01)
    # Llama 3.1 70B: 80 layers.
    cache = 4096 * 80 * 2 * 8 * 128 * 2
    estimate = estimate_vram(70.6e9, "Q4_K_M", 4096) - estimate_vram(70.6e9, "Q4_K_M", 0)
    assert estimate == pytest.approx(cache / 2**30, rel=0.02)
    for wrong in ({"parameter_count": -1}, {"parameter_count": 1, "context_size": -1}):
        with pytest.raises(ConfigurationError):
            estimate_vram(**wrong)


def test_recommendations_fit_and_the_next_larger_ones_do_not():
    """recommend_quantization(parameter_count, available_vram)."""
    previous = 0.0
    for gigabytes in (3, 4, 6, 8, 12, 24):
        name = recommend_quantization(parameter_count=7e9, available_vram=gigabytes)
        assert estimate_vram(7e9, name) < gigabytes
        bits = get_quantization_info(name).bits_per_weight
        assert bits >= previous
        previous = bits
    assert name == "F16"
    with pytest.raises(ConfigurationError, match=r"70\.0B"):
        recommend_quantization(70e9, 8)


def test_recommended_models_fit_a_t4():
    """kaggle_t4_recommended_models: name, quantization, parameter_count, vram_gb."""
    models = kaggle_t4_recommended_models()
    assert len({model.name for model in models}) == len(models) > 3
    for model in models:
        assert model.vram_gb < 15
        assert model.vram_gb == round(estimate_vram(model.parameter_count, model.quantization), 1)
