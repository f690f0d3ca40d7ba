"""Recipes: which tensor gets which format, against what llama.cpp wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quintet.errors import RequestError
from quintet.formats.ggml_types import GGMLType
from quintet.formats.gguf_writer import tensor_info
from quintet.tools.recipes import RECIPES, choose_types, recipe_named

# Made with llama_model_quantize of llama-cpp-python 0.3.36 from random models: by model and
# recipe the formats of all matrices in order, "Q4_K*3" for three of them.
GOLDEN = json.loads((Path(__file__).parent / "recipes.json").read_text())
SHAPES = {  # hidden size, intermediate size, whether the output is the embedding, experts
    "dense": (256, 256, False, 0),
    "odd rows": (288, 512, True, 0),
    "experts": (256, 256, False, 8),
}


def tensors(model: str) -> dict:
    hidden, ffn, is_tied, experts = SHAPES[model]
    metadata = GOLDEN[model]["metadata"]
    kv = hidden // metadata["llama.attention.head_count"]
    kv *= metadata["llama.attention.head_count_kv"]
    shapes = {"token_embd": (64, hidden), "output_norm": (hidden,)}
    if not is_tied:
        shapes["output"] = (64, hidden)
    stack = (experts,) if experts else ()
    suffix = "_exps" if experts else ""
    for layer in range(metadata["llama.block_count"]):
        block = {
            "attn_norm": (hidden,),
            "ffn_norm": (hidden,),
            "attn_q": (hidden, hidden),
            "attn_k": (kv, hidden),
            "attn_v": (kv, hidden),
            "attn_output": (hidden, hidden),
            f"ffn_gate{suffix}": (*stack, ffn, hidden),
            f"ffn_up{suffix}": (*stack, ffn, hidden),
            f"ffn_down{suffix}": (*stack, hidden, ffn),
        }
        if experts:
            block["ffn_gate_inp"] = (experts, hidden)
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    return {
        f"{name}.weight": tensor_info(f"{name}.weight", shape, GGMLType.F32)
        for name, shape in shapes.items()
    }


def unpacked(text: str) -> list[str]:
    runs = [part.partition("*") for part in text.split()]
    return [name for name, _, count in runs for _ in range(int(count or 1))]


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in ("F32", "Q2_K_S")])
@pytest.mark.parametrize("model", SHAPES)
def test_a_recipe_gives_the_formats_llama_cpp_gives(model: str, recipe: str):
    """Every tensor of a dense model, one with odd rows and one with experts."""
    infos = tensors(model)
    found = choose_types(RECIPES[recipe], infos, GOLDEN[model]["metadata"])
    matrices = [name for name, info in infos.items() if found[name] != GGMLType.F32]
    first = ["token_embd.weight", "output.weight"]
    matrices = [n for n in first if n in matrices] + [n for n in matrices if n not in first]
    assert [found[name].name for name in matrices] == unpacked(GOLDEN[model]["types"][recipe])


def test_an_override_counts_before_the_recipe():
    """The first expression found in a name decides, and norms stay as they are."""
    infos = tensors("dense")
    found = choose_types(
        RECIPES["Q4_K_M"],
        infos,
        GOLDEN["dense"]["metadata"],
        overrides={r"blk\.0\.ffn_down": "q8_0", "ffn_down": "MXFP4", "norm": "Q8_0"},
    )
    assert found["blk.0.ffn_down.weight"] == GGMLType.Q8_0
    assert found["blk.1.ffn_down.weight"] == GGMLType.MXFP4
    assert found["blk.0.attn_norm.weight"] == GGMLType.F32
    assert found["output.weight"] == GGMLType.Q6_K


def test_pure_gives_every_matrix_the_base_format():
    """No exceptions but those that odd rows force."""
    for model, kind in (("dense", GGMLType.Q4_K), ("odd rows", GGMLType.Q5_0)):
        infos = tensors(model)
        found = choose_types(RECIPES["Q4_K_M"], infos, GOLDEN[model]["metadata"], pure=True)
        assert found["token_embd.weight"] == found["blk.0.attn_v.weight"] == kind


def test_names_of_types():
    """In any case, with llama-quantize's short names; what is unknown is refused with a list."""
    assert recipe_named("q4_k").name == "Q4_K_M"
    assert recipe_named("iq4_xs").base == GGMLType.IQ4_XS
    with pytest.raises(RequestError, match="Q4_K_M"):
        recipe_named("Q4_K_XXL")
    for overrides in ({"(": "Q8_0"}, {"attn": "Q9_9"}, {"attn": "Q4_K_M"}):
        with pytest.raises(RequestError, match="overrides"):
            choose_types(RECIPES["Q4_0"], {}, {}, overrides=overrides)
