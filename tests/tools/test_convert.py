"""Hugging Face directories to GGUF: what both files compute, and how they cut text."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from typer.testing import CliRunner

from backends.steps import prefill
from models.tiny import GPT_OSS, PARITY, Row, make_hf, write_gguf
from quintet import LLM, SamplingParams
from quintet.backends.reference import ReferenceExecutor
from quintet.cli.app import app
from quintet.errors import ModelFormatError, ModelNotFoundError, UnsupportedModelError
from quintet.formats.gguf import GGUFFile
from quintet.formats.safetensors import SafetensorsDir
from quintet.models import load_model
from quintet.tokenizer import Tokenizer
from quintet.tokenizer.pretokenizers import pre_tokenization
from quintet.tools.convert import convert

QWEN3, LLAMA, MISTRAL = (
    next(row for row in PARITY if row.id == name) for name in ("qwen3", "llama", "mistral")
)
VOCAB_SIZE = 340
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
ROPE_OF_GPT_OSS = GPT_OSS["rope_parameters"]
GREEDY = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)
TEXT = "It's 2024: the hello world of naïve tests, числа и слова, 12345 done.\n\n  Hello!"


def byte_level(directory: Path, pre: str = "qwen2") -> None:
    """A trained byte-level BPE with chat tokens, as Qwen's."""
    tokenizer = tokenizers.Tokenizer(models.BPE(ignore_merges=pre_tokenization(pre).ignores_merges))
    tokenizer.pre_tokenizer = pre_tokenization(pre).build()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([TEXT, "the other hello, the world, the tests"] * 3, trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    tokenizer.add_tokens(["<think>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "eos_token": "<|im_end|>",
        "pad_token": {"content": "<|endoftext|>"},
        "chat_template": "{{ messages[0].content }}",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def sentencepiece(directory: Path) -> None:
    """A SentencePiece-like BPE with byte fallback, as Llama 2's tokenizer.json has it."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    merges = [("l", "l"), ("h", "e"), ("he", "ll"), ("▁", "t"), ("▁t", "he"), ("hell", "o")]
    merges += [("▁", "hello"), ("e", "r"), ("o", "r"), ("w", "or")]
    for piece in ["▁", *"abcdefghijklmnopqrstuvwxyzHIT.,!:'"]:
        vocab[piece] = len(vocab)
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def make(row: Row, directory: Path, dtype: torch.dtype = torch.float32) -> Any:
    """A random model of this row with a tokenizer of its kind; the model in float64."""
    directory.mkdir(exist_ok=True)
    overrides = {**row.overrides, "vocab_size": VOCAB_SIZE}
    model = make_hf(replace(row, overrides=overrides), directory, dtype=dtype)
    if row.hf in ("Mistral", "Gemma2", "Gemma3", "Phi3"):
        sentencepiece(directory)
    else:
        byte_level(directory, "llama-bpe" if row.gguf_arch == "llama" else "qwen2")
    return model


def logits(path: Path) -> np.ndarray:
    tokens = np.random.default_rng(7).integers(0, VOCAB_SIZE, 40).tolist()
    with SafetensorsDir.open(path) if path.is_dir() else GGUFFile.open(path) as source:
        executor = ReferenceExecutor(load_model(source), num_blocks=3, dtype=np.float64)
        return prefill(executor, tokens, [2, 0, 1], chunk=40)


# Rows that write no key or tensor of their own.
ALIKE = ("qwen3-tied", "llama-mha", "granite-tied", "gemma3-linear-rope", "deepseek3-groups")
# GGUF has no names for it, or what another file says of what nothing reads.
DIFFERENT = {
    "llama.expert_feed_forward_length": "Mixtral's is its feed_forward_length",
    "qwen3moe.feed_forward_length": "of dense layers, of which there are none",
    "deepseek2.expert_group_count": "left out where it is 1",
    "deepseek2.expert_group_used_count": "left out where it is 1",
}


@pytest.mark.parametrize(
    "row",
    [
        *[row for row in PARITY if row.gguf_arch and row.id not in ALIKE],
        Row("llama-linear", "Llama", "llama", {"rope_parameters": LINEAR_ROPE}),
    ],
    ids=lambda row: row.id,
)
def test_a_converted_model_is_what_the_gguf_package_writes_and_gives_the_same_logits(
    row: Row, tmp_path: Path
):
    """Keys and tensors are those that gguf's own names and writer give; so are the logits."""
    directory, path = tmp_path / "hf", tmp_path / "m.gguf"
    row = replace(row, split_kv_b=row.gguf_arch == "deepseek2")  # as llama.cpp now wants it
    model = make(row, directory)
    convert(directory, path, "f32")
    found, expected = logits(path), logits(directory)
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)

    write_gguf(row, model, tmp_path / "oracle.gguf", gguf.GGMLQuantizationType.F32)
    made, oracle = gguf.GGUFReader(path), gguf.GGUFReader(tmp_path / "oracle.gguf")
    for key, field in oracle.fields.items():
        if key.startswith(f"{row.gguf_arch}.") and key not in DIFFERENT:
            value = field.contents()
            wanted = value if isinstance(value, str) else pytest.approx(value, rel=1e-6)
            assert made.fields[key].contents() == wanted, key
            assert made.fields[key].types == field.types, key
    tensors = {tensor.name: tensor for tensor in made.tensors}
    assert tensors.keys() == {tensor.name for tensor in oracle.tensors}
    for tensor in oracle.tensors:
        assert tensors[tensor.name].tensor_type == tensor.tensor_type
        np.testing.assert_allclose(tensors[tensor.name].data, tensor.data, rtol=1e-6)


@pytest.mark.parametrize("row", [QWEN3, LLAMA, MISTRAL], ids=lambda row: row.id)
def test_a_converted_vocabulary_cuts_text_as_its_directory(row: Row, tmp_path: Path):
    """Tokens and special tokens arrive, padded to the rows of the embedding."""
    directory, path = tmp_path / "hf", tmp_path / "m.gguf"
    make(row, directory)
    convert(directory, path, "f32")
    original = Tokenizer.from_file(directory)
    with GGUFFile.open(path) as file:
        made = Tokenizer.from_gguf(file.metadata)
        assert len(file.metadata["tokenizer.ggml.tokens"]) == VOCAB_SIZE
    for text in (TEXT, " hello", "the hello  or\n", "日本"):
        assert made.encode(text) == original.encode(text)
    assert made.eos_token == original.eos_token


def test_half_precision_is_kept_bit_for_bit_and_vectors_are_float32(tmp_path: Path):
    """From bfloat16 to bf16 nothing is rounded; llama.cpp wants norms in float32."""
    directory, path = tmp_path / "hf", tmp_path / "m.gguf"
    make(QWEN3, directory, dtype=torch.bfloat16)
    convert(directory, path, "bf16")
    with GGUFFile.open(path) as file, SafetensorsDir.open(directory) as source:
        name, theirs = "blk.1.ffn_up.weight", "model.layers.1.mlp.up_proj.weight"
        assert file.raw(name).tobytes() == source.raw(theirs).tobytes()
        assert file.tensors["blk.1.ffn_norm.weight"].ggml_type.name == "F32"
        assert file.metadata["general.file_type"] == 32


def test_a_conversion_can_quantise_at_once(tmp_path: Path):
    """The same bytes as converting first and quantising then."""
    directory = tmp_path / "hf"
    make(QWEN3, directory)
    convert(directory, tmp_path / "f32.gguf", "f32")
    convert(directory, tmp_path / "at-once.gguf", "q8_0")
    runner = CliRunner()
    arguments = [str(tmp_path / "f32.gguf"), str(tmp_path / "then.gguf"), "Q8_0"]
    assert runner.invoke(app, ["quantize", *arguments]).exit_code == 0
    assert (tmp_path / "at-once.gguf").read_bytes() == (tmp_path / "then.gguf").read_bytes()
    arguments = [str(directory), str(tmp_path / "cli.gguf"), "--dtype", "q8_0"]
    assert runner.invoke(app, ["convert", *arguments]).exit_code == 0
    assert (tmp_path / "cli.gguf").read_bytes() == (tmp_path / "at-once.gguf").read_bytes()


def test_a_converted_model_runs(tmp_path: Path):
    """The whole way: the file answers with what the directory answers."""
    directory, path = tmp_path / "hf", tmp_path / "m.gguf"
    make(QWEN3, directory)
    convert(directory, path, "f32")
    texts = []
    for source in (directory, path):
        with LLM(str(source), dtype="float32") as llm:
            (answer,) = llm.generate(["the hello"], GREEDY)
            texts.append(answer.token_ids)
    assert texts[0] == texts[1]


# llama.cpp ignores Phi-3's window, and rounds the ends of gpt-oss's ramp.
PEER = {
    "phi3": {"sliding_window": None},
    "gpt-oss": {"rope_parameters": {"rope_type": "default", "rope_theta": 150000.0}},
}


@pytest.mark.skipif(not importlib.util.find_spec("llama_cpp"), reason="needs llama-cpp-python")
@pytest.mark.parametrize(
    "row",
    [
        replace(row, overrides={**row.overrides, **PEER.get(row.id, {})})
        for row in PARITY
        # Long rope changes with the length of the text in transformers; DeepSeek-V2-Lite wants 27
        # layers, and groups are ranked otherwise in llama.cpp.
        if row.gguf_arch and row.id not in ("phi3-long", "deepseek2-lite", "deepseek2-groups")
    ],
    ids=lambda row: row.id,
)
def test_llama_cpp_writes_the_same_text(row: Row, tmp_path: Path):
    """llama.cpp opens the file and greedily continues with the same tokens."""
    import llama_cpp

    directory, path = tmp_path / "hf", tmp_path / "m.gguf"
    make(row, directory)
    convert(directory, path, "f32")
    f32 = llama_cpp.GGML_TYPE_F32  # its cache is in float16 by default, which moves near ties
    peer = llama_cpp.Llama(
        str(path), n_ctx=64, verbose=False, type_k=f32, type_v=f32, flash_attn=False
    )
    prompt = Tokenizer.from_file(directory).encode("the hello")
    assert peer.tokenize(b"the hello") == prompt
    theirs = []
    for token in peer.generate(prompt, temp=0.0):
        theirs.append(token)
        if len(theirs) == 12:
            break
    with LLM(str(path), dtype="float32") as llm:
        (answer,) = llm.generate([prompt], GREEDY)
    assert list(answer.token_ids) == theirs


@pytest.mark.parametrize(
    ("row", "changes", "name"),
    [
        ("qwen3moe-some-dense", {}, "without experts"),
        ("qwen3moe", {"norm_topk_prob": False}, "expert_weights_normalized"),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 1, 1]}, "rope_layers"),
        ("gemma2", {"query_pre_attn_scalar": 100}, "attention_scale"),
        ("gemma2", {"attn_logit_softcapping": None}, "attention_softcap"),
        (
            "gemma3",
            {"layer_types": [*["sliding_attention"] * 4, *["full_attention"] * 2]},
            "window",
        ),
        ("gpt-oss", {"rope_parameters": {**ROPE_OF_GPT_OSS, "truncate": True}}, "rope_inv_freq"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_gguf_has_no_key_for_is_refused_by_name(
    row: str, changes: dict[str, Any], name: str, tmp_path: Path
):
    """A reader would take it for something else, though the directory runs."""
    make(next(each for each in PARITY if each.id == row), tmp_path / "hf")
    config = json.loads((tmp_path / "hf/config.json").read_text())
    (tmp_path / "hf/config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(UnsupportedModelError, match=name):
        convert(tmp_path / "hf", tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


def test_refusals(tmp_path: Path):
    """What would come out wrong is refused by name."""
    directory, out = tmp_path / "hf", tmp_path / "m.gguf"
    with pytest.raises(ModelNotFoundError):
        convert(directory, out)
    make(QWEN3, directory)
    stored = json.loads((directory / "tokenizer.json").read_text())

    def with_tokenizer(**changes) -> None:
        (directory / "tokenizer.json").write_text(json.dumps({**stored, **changes}))

    with_tokenizer(
        pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
    )
    with pytest.raises(UnsupportedModelError, match="pre-tokenizer"):
        convert(directory, out)
    with_tokenizer(normalizer={"type": "Lowercase"})
    with pytest.raises(UnsupportedModelError, match="cut text otherwise"):
        convert(directory, out)
    with_tokenizer(model={**stored["model"], "merges": ["a"]})
    with pytest.raises((ModelFormatError, UnsupportedModelError)):
        convert(directory, out)
    (directory / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"tokenizer\.json"):
        convert(directory, out)
    assert not out.exists()
