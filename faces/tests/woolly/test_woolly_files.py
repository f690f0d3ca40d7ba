"""Models' files, tokenizers, number formats, memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import gguf
import numpy as np
import pytest
import sentencepiece
import tokenizers

from quintet.formats.gguf import GGUFFile
from quintet.hub.packaged import packaged_models
from quintet.tokenizer import Tokenizer as QuintetTokenizer
from woolly import (
    Architecture,
    BPETokenizer,
    InvalidRequest,
    MappedFile,
    MemoryBackend,
    MmapConfig,
    Model,
    ModelLoadFailed,
    ModelMetadata,
    ModelNotFound,
    OutOfMemory,
    QuantizationType,
    SentencePieceTokenizer,
    SpecialTokens,
    Tokenizer,
    TokenizerError,
    Vocabulary,
    load_merges,
    quantize_model,
)

DEMO = packaged_models()["demo"]
TEXTS = ("Hello, world!", "  two  spaces\n\tand tabs", "naïve café 东京 🦙", "1234567 don't", "")


@pytest.fixture(scope="module")
def shared_data() -> Path:
    """Public test data: vocab/*.gguf; see the repository's tests/conftest.py."""
    folder = Path(os.environ.get("QUINTET_TEST_DATA", "../../shared/data"))
    if not folder.is_dir():
        pytest.skip("no test data; set QUINTET_TEST_DATA")
    return folder


def test_a_models_file():
    """What the headers say agrees with the gguf package."""
    model = Model.from_file(DEMO)
    reader = gguf.GGUFReader(DEMO)
    metadata = model.metadata()
    assert isinstance(metadata, ModelMetadata)
    assert metadata.parameters == sum(int(tensor.n_elements) for tensor in reader.tensors)
    assert metadata.file_size == DEMO.stat().st_size
    assert metadata.quantization is QuantizationType.Q8_0
    assert metadata.name == reader.fields["general.name"].contents()
    assert metadata.license == "apache-2.0"
    assert metadata.author is None
    field = reader.fields.get("general.description")
    assert metadata.description == (None if field is None else field.contents())
    assert model.architecture() == reader.fields["general.architecture"].contents() == "qwen3"
    assert isinstance(model.architecture(), Architecture)
    assert model.architecture().is_supported
    assert not Architecture("nonesuch").is_supported
    vocabulary = model.vocabulary()
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert list(vocabulary.tokens) == tokens
    assert vocabulary.id(vocabulary.token(300)) == 300
    with pytest.raises(TokenizerError):
        vocabulary.token(10**9)
    model.validate()


def test_what_is_no_model(tmp_path: Path):
    """Missing, cut, and full of what is not a number."""
    with pytest.raises(ModelNotFound):
        Model.from_file(tmp_path / "none.gguf")
    data = DEMO.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelLoadFailed, match=r"cut\.gguf"):
        Model.from_file(tmp_path / "cut.gguf")
    tensor = next(t for t in gguf.GGUFReader(DEMO).tensors if t.tensor_type == 0)
    broken = bytearray(data)
    offset = int(tensor.data_offset)
    broken[offset : offset + 4] = np.float32(np.nan).tobytes()
    (tmp_path / "nan.gguf").write_bytes(broken)
    model = Model.from_file(tmp_path / "nan.gguf")
    with pytest.raises(ModelLoadFailed, match=f"{tensor.name}.*NaN"):
        model.validate()


def gpt2(folder: Path) -> tuple[list[str], list[str]]:
    """GPT-2's tokens and merges, from its GGUF vocabulary."""
    with GGUFFile.open(folder / "vocab" / "ggml-vocab-gpt-2.gguf") as file:
        found = file.metadata
    return list(found["tokenizer.ggml.tokens"]), list(found["tokenizer.ggml.merges"])


def test_bpe_as_the_library_has_it(tmp_path: Path, shared_data: Path):
    """Ids and texts are those of the tokenizers library for GPT-2's vocabulary and merges."""
    tokens, merges = gpt2(shared_data)
    (tmp_path / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    vocab = Vocabulary.from_file(tmp_path / "vocab.json")
    assert len(vocab) == len(tokens)
    assert "<|endoftext|>" in vocab
    pairs = load_merges(tmp_path / "merges.txt")
    assert len(pairs) == len(merges)
    tokenizer = BPETokenizer(vocab, pairs)
    assert isinstance(tokenizer, Tokenizer)
    oracle = tokenizers.ByteLevelBPETokenizer(
        str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")
    )
    for text in TEXTS:
        ids = tokenizer.tokenize(text)
        assert ids == oracle.encode(text).ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.vocab_size() == len(tokens)
    special = tokenizer.special_tokens()
    assert isinstance(special, SpecialTokens)
    assert special.eos == vocab.id("<|endoftext|>")
    # Text that spells a control token stays text.
    assert special.eos not in tokenizer.tokenize("<|endoftext|>")
    with pytest.raises(TokenizerError):
        tokenizer.decode([10**9])
    with pytest.raises(TokenizerError):
        tokenizer.tokenize("\ud800")


def test_broken_vocabularies(tmp_path: Path):
    """Files that are none, ids with gaps, merges that are no pairs."""
    (tmp_path / "a.json").write_text("[1, 2]")
    (tmp_path / "b.json").write_text('{"a": 0, "b": 2}')
    (tmp_path / "c.json").write_text("{")
    for name in ("a.json", "b.json", "c.json", "none.json"):
        with pytest.raises(TokenizerError):
            Vocabulary.from_file(tmp_path / name)
    (tmp_path / "merges.txt").write_text("a b\nabc\n")
    with pytest.raises(TokenizerError, match="line 2"):
        load_merges(tmp_path / "merges.txt")
    with pytest.raises(TokenizerError):
        BPETokenizer(Vocabulary(["a", "b"]), [("a", "c")])


def test_sentencepiece_from_its_own_file(tmp_path: Path):
    """A model that the library trained gives the library's ids."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"the {n} quick brown foxes jump over {n} dogs" for n in range(300)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "m"), vocab_size=120, model_type="bpe",
        minloglevel=5,
    )  # fmt: skip
    tokenizer = SentencePieceTokenizer.from_file(tmp_path / "m.model")
    assert isinstance(tokenizer, Tokenizer)
    ids = tokenizer.tokenize("the quick fox")
    assert len(ids) > 2
    assert tokenizer.decode(ids) == "the quick fox"
    assert tokenizer.vocab_size() == 120
    assert tokenizer.special_tokens() == SpecialTokens(1, 2, 0, None, frozenset({2}))
    with pytest.raises(TokenizerError):
        tokenizer.decode([120])
    (tmp_path / "broken.model").write_bytes(b"no model")
    for name in ("broken.model", "none.model", "none.gguf"):
        with pytest.raises(TokenizerError):
            SentencePieceTokenizer.from_file(tmp_path / name)


def test_sentencepiece_from_gguf(shared_data: Path):
    """Llama's vocabulary gives the ids that llama.cpp publishes for its lines."""
    path = shared_data / "vocab" / "ggml-vocab-llama-spm.gguf"
    tokenizer = SentencePieceTokenizer.from_file(path)
    texts = (path.parent / f"{path.name}.inp").read_text().split("\n__ggml_vocab_test__\n")
    wanted = (path.parent / f"{path.name}.out").read_text().splitlines()
    checked = 0
    for text, line in zip(texts, wanted, strict=False):
        ids = [int(number) for number in line.split()]
        assert tokenizer.tokenize(text) == [tokenizer.special_tokens().bos, *ids]
        checked += 1
    assert checked > 20
    assert tokenizer.vocab_size() == QuintetTokenizer.from_file(path).vocab_size


def test_number_formats():
    """Woolly's eight come first, by their names."""
    names = [kind.name for kind in QuantizationType]
    assert names[:8] == ["F32", "F16", "Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1", "Q2_K"]
    assert all(kind.name == kind.value for kind in QuantizationType)


def test_quantizing(tmp_path: Path):
    """The output is in the format asked for, and runs; progress goes from 0 to 1."""
    shares: list[float] = []
    output = tmp_path / "small.gguf"
    quantize_model(DEMO, output, QuantizationType.Q4_0, shares.append)
    assert output.stat().st_size < DEMO.stat().st_size
    assert Model.from_file(output).metadata().quantization is QuantizationType.Q4_0
    Model.from_file(output).validate()
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(0 <= share <= 1 for share in shares)
    with pytest.raises(ModelNotFound):
        quantize_model(tmp_path / "none.gguf", output, QuantizationType.Q4_0)
    with pytest.raises(InvalidRequest):
        quantize_model(DEMO, output, "Q4_0")


@pytest.mark.parametrize(
    "config",
    [MmapConfig(), MmapConfig(enabled=False), MmapConfig(prefetch=True, huge_pages=True)],
)
def test_a_mapped_file(config: MmapConfig):
    """However it is read, its bytes are the file's; memory is given and taken back."""
    data = DEMO.read_bytes()
    with MappedFile(DEMO, config) as file:
        assert isinstance(file, MemoryBackend)
        for offset, length in ((0, 4), (4096, 5000), (len(data) - 7, 7)):
            buffer = bytearray(length)
            file.read(offset, buffer)
            assert buffer == data[offset : offset + length]
        for offset in (-1, len(data) - 3):
            with pytest.raises(InvalidRequest):
                file.read(offset, bytearray(4))
        memory = file.allocate(10_000)
        assert bytes(memory) == bytes(10_000)
        memory[5] = 7
        with pytest.raises(InvalidRequest):
            file.deallocate(memory, 9_999)
        file.deallocate(memory, 10_000)
        with pytest.raises(InvalidRequest):
            file.deallocate(memory, 10_000)
        with pytest.raises(InvalidRequest):
            file.allocate(0)
        with pytest.raises(OutOfMemory):
            file.allocate(2**62)


def test_a_file_that_is_not_there(tmp_path: Path):
    """It is said to be missing; an empty one has no bytes."""
    with pytest.raises(ModelNotFound):
        MappedFile(tmp_path / "none")
    (tmp_path / "empty").touch()
    with MappedFile(tmp_path / "empty") as file, pytest.raises(InvalidRequest):
        file.read(0, bytearray(1))
