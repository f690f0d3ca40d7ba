"""GGUF files with the exact shapes of public models and random weights, in any number format.

Speed, memory and load time depend on shapes and formats, not on what the weights have learnt.
Run as a program in the peer's environment, which has the `gguf` package and llama.cpp's quantiser:

    python -m peers.models SHAPE FORMAT OUT.gguf [--vocab VOCAB.gguf]

Shapes: the models' config.json on Hugging Face (Qwen/Qwen3-0.6B, Qwen/Qwen3-1.7B,
meta-llama/Llama-3.2-1B).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FORMATS = ("Q4_0", "Q4_K_M", "Q6_K", "Q8_0", "BF16")


@dataclass(frozen=True)
class Shape:
    """A decoder's dimensions; its head is tied to the embedding."""

    arch: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float
    context_length: int
    vocab_size: int
    pre_tokenizer: str

    @property
    def kv_bytes_per_token(self) -> int:
        """Of a KV cache in 16 bits."""
        return self.num_layers * 2 * self.num_kv_heads * self.head_dim * 2


SHAPES = {
    "qwen3-0.6b": Shape(
        "qwen3", 28, 1024, 3072, 16, 8, 128, 1e6, 40_960, 151_936, "qwen2"
    ),
    "qwen3-1.7b": Shape(
        "qwen3", 28, 2048, 6144, 16, 8, 128, 1e6, 40_960, 151_936, "qwen2"
    ),
    "llama-3.2-1b": Shape(
        "llama", 16, 2048, 8192, 32, 8, 64, 5e5, 131_072, 128_256, "llama-bpe"
    ),
    # No public model: to try the harness in seconds.
    "smoke": Shape("qwen3", 2, 256, 512, 4, 2, 64, 1e6, 8192, 4096, "qwen2"),
}  # fmt: skip


def synthetic_vocabulary(size: int) -> tuple[list[str], list[str]]:
    """Tokens and merges of a byte-level BPE vocabulary: bytes, then words of two to four letters.

    Its last token, a control token, ends answers.

    Raises:
        ValueError: more tokens than there are such words.
    """
    # GPT-2's spelling of bytes: printable ones stand for themselves, the rest from U+0100 on
    # (openai/gpt-2, src/encoder.py, bytes_to_unicode).
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    tokens = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = ["".join(pair) for pair in itertools.product(chr(0x120) + letters, letters)]
    halves = [(pair[0], pair[1]) for pair in pairs]
    fours = itertools.product(pairs, pairs[len(letters) :])  # a space only in front
    merges = []
    for left, right in itertools.chain(halves, fours):
        if len(tokens) == size - 1:
            break
        tokens.append(left + right)
        merges.append(f"{left} {right}")
    else:
        raise ValueError(f"expected at most {len(tokens) + 1} tokens, found {size}")
    return [*tokens, "<|endoftext|>"], merges


def write_f16(shape: Shape, path: Path, vocabulary: Path | None) -> None:
    """The model in F16, norms in F32; one tensor at a time in memory."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, shape.arch, use_temp_file=False)
    if vocabulary is None:
        vocab_size = _write_tokenizer(writer, shape)
    else:
        vocab_size = _copy_tokenizer(gguf.GGUFReader(vocabulary), writer)
    writer.add_name(f"random-{path.stem}")
    writer.add_block_count(shape.num_layers)
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_heads)
    writer.add_head_count_kv(shape.num_kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(vocab_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    tensors = list(_tensors(shape, vocab_size))
    for name, dims in tensors:
        dtype = np.float32 if len(dims) == 1 else np.float16
        num_bytes = int(np.prod(dims)) * np.dtype(dtype).itemsize
        writer.add_tensor_info(name, dims, np.dtype(dtype), num_bytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(0)
    for _, dims in tensors:
        if len(dims) == 1:
            writer.write_tensor_data(np.ones(dims, np.float32))
        else:
            weights = random.standard_normal(dims, np.float32) * 0.02
            writer.write_tensor_data(weights.astype(np.float16))
    writer.close()


def quantize(source: Path, target: Path, format_name: str) -> None:
    """Write `source` in another number format, by llama.cpp's own quantiser.

    Raises:
        RuntimeError: it failed.
    """
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{format_name}")
    # Whole, or not there: what lies at `target` is used without another look.
    unfinished = target.with_suffix(".unfinished")
    if llama_cpp.llama_model_quantize(bytes(source), bytes(unfinished), params) != 0:
        raise RuntimeError(f"llama.cpp could not quantise {source} to {format_name}")
    unfinished.rename(target)


def _tensors(shape: Shape, vocab_size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and dimensions, rows first."""
    hidden, dim = shape.hidden_size, shape.head_dim
    yield "token_embd.weight", (vocab_size, hidden)
    yield "output_norm.weight", (hidden,)
    for layer in range(shape.num_layers):
        block = f"blk.{layer}."
        yield block + "attn_norm.weight", (hidden,)
        yield block + "attn_q.weight", (shape.num_heads * dim, hidden)
        yield block + "attn_k.weight", (shape.num_kv_heads * dim, hidden)
        yield block + "attn_v.weight", (shape.num_kv_heads * dim, hidden)
        if shape.arch == "qwen3":
            yield block + "attn_q_norm.weight", (dim,)
            yield block + "attn_k_norm.weight", (dim,)
        yield block + "attn_output.weight", (hidden, shape.num_heads * dim)
        yield block + "ffn_norm.weight", (hidden,)
        yield block + "ffn_gate.weight", (shape.intermediate_size, hidden)
        yield block + "ffn_up.weight", (shape.intermediate_size, hidden)
        yield block + "ffn_down.weight", (hidden, shape.intermediate_size)


def _write_tokenizer(writer: object, shape: Shape) -> int:
    import gguf

    assert isinstance(writer, gguf.GGUFWriter)
    tokens, merges = synthetic_vocabulary(shape.vocab_size)
    types = [gguf.TokenType.NORMAL] * (len(tokens) - 1) + [gguf.TokenType.CONTROL]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(shape.pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(len(tokens) - 1)
    writer.add_eos_token_id(len(tokens) - 1)
    return len(tokens)


def _copy_tokenizer(reader: object, writer: object) -> int:
    """Copy every tokenizer.* field; return the number of tokens."""
    import gguf

    assert isinstance(reader, gguf.GGUFReader)
    assert isinstance(writer, gguf.GGUFWriter)
    num_tokens = 0
    for key, field in reader.fields.items():
        if not key.startswith("tokenizer."):
            continue
        value = field.contents()
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, field.types[0])
        if key == "tokenizer.ggml.tokens":
            num_tokens = len(value)
    return num_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description="A GGUF of a public model's shape.")
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("format", choices=FORMATS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocab", type=Path, help="take the tokenizer of this GGUF")
    options = parser.parse_args()

    source = options.out.with_name(f"{options.shape}-F16.gguf")
    if not source.exists():
        unfinished = source.with_suffix(".unfinished")
        write_f16(SHAPES[options.shape], unfinished, options.vocab)
        unfinished.rename(source)
    quantize(source, options.out, options.format)


if __name__ == "__main__":
    main()
