"""The demo model in the package, read by the gguf, tokenizers and jinja2 packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType, GGUFReader, TokenType, quants
from jinja2.sandbox import ImmutableSandboxedEnvironment

DEMO = Path(__file__).parents[2] / "src" / "quintet" / "hub" / "data" / "demo.gguf"
SPECIAL = {
    "<|endoftext|>": TokenType.CONTROL,
    "<|im_start|>": TokenType.CONTROL,
    "<|im_end|>": TokenType.CONTROL,
    "<tool_call>": TokenType.USER_DEFINED,
    "</tool_call>": TokenType.USER_DEFINED,
    "<think>": TokenType.USER_DEFINED,
    "</think>": TokenType.USER_DEFINED,
}


@pytest.fixture(scope="module")
def reader() -> GGUFReader:
    return GGUFReader(DEMO)


def value(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    assert field is not None, key
    return field.contents()


def test_the_file_stays_small() -> None:
    """The package carries it, so it may not exceed 8 MB."""
    assert DEMO.stat().st_size <= 8_000_000


def test_it_says_that_it_is_a_toy(reader: GGUFReader) -> None:
    """Whoever inspects the file learns what it is and how it may be used."""
    assert value(reader, "general.architecture") == "qwen3"
    assert value(reader, "general.name") == "Quintet demo"
    assert value(reader, "general.license") == "apache-2.0"
    assert "toy" in value(reader, "general.description")


def test_tensors_have_the_shapes_the_metadata_announces(reader: GGUFReader) -> None:
    """Every matrix is Q8_0 with rows of a multiple of 256, every norm F32, all values finite."""
    hidden = value(reader, "qwen3.embedding_length")
    num_layers = value(reader, "qwen3.block_count")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == 2 + 11 * num_layers
    assert "output.weight" not in tensors
    vocab_size = value(reader, "qwen3.vocab_size")
    assert tensors["token_embd.weight"].shape.tolist() == [hidden, vocab_size]
    for name, tensor in tensors.items():
        values = quants.dequantize(tensor.data, tensor.tensor_type)
        assert abs(values).max() < 100.0, name
        if len(tensor.shape) == 2:
            assert tensor.tensor_type == GGMLQuantizationType.Q8_0, name
            assert tensor.shape[0] % 256 == 0, name
        else:
            assert tensor.tensor_type == GGMLQuantizationType.F32, name


def test_every_byte_has_a_token(reader: GGUFReader) -> None:
    """The vocabulary holds the 256 byte letters of GPT-2's alphabet, so any text can be encoded."""
    pre_tokenizers = pytest.importorskip("tokenizers").pre_tokenizers
    tokens = set(value(reader, "tokenizer.ggml.tokens"))
    assert len(tokens) == value(reader, "qwen3.vocab_size")
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= tokens


def test_special_tokens_are_marked(reader: GGUFReader) -> None:
    """Markers are control or user-defined tokens, and generation ends at <|im_end|>."""
    tokens = value(reader, "tokenizer.ggml.tokens")
    types = value(reader, "tokenizer.ggml.token_type")
    for token, kind in SPECIAL.items():
        assert types[tokens.index(token)] == kind, token
    assert tokens[value(reader, "tokenizer.ggml.eos_token_id")] == "<|im_end|>"
    assert value(reader, "tokenizer.ggml.add_bos_token") is False
    assert value(reader, "tokenizer.ggml.pre") == "qwen2"


def test_the_chat_template_carries_tools_calls_and_responses(reader: GGUFReader) -> None:
    """Schemas stand in the system turn, calls in tool_call tags, responses in a user turn."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = json.dumps
    template = environment.from_string(value(reader, "tokenizer.chat_template"))
    call = {"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
    text = template.render(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "sunny"},
        ],
        tools=[{"type": "function", "function": {"name": "get_weather"}}],
        add_generation_prompt=True,
    )
    assert text.startswith("<|im_start|>system\nBe brief.\n\n")
    assert text.count("<|im_start|>system") == 1
    assert '<tools>\n{"type": "function", "function": {"name": "get_weather"}}\n</tools>' in text
    assert (
        "<|im_start|>assistant\n<tool_call>\n"
        '{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nsunny\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    ) in text
