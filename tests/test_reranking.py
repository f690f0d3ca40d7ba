"""LLM.rerank on small models whose scores transformers gives too."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers

from engine.tiny_model import byte_tokens, write_tiny_model
from models.encoders import BASE, RANKERS, finish, make_encoder
from models.tiny import Row, make_hf
from quintet import LLM, RequestError
from quintet.reranking import probabilities
from word_pieces import TEXTS, ids_of, write_word_pieces


@pytest.mark.parametrize("row", RANKERS, ids=lambda row: row.id)
def test_rerank_equals_transformers(row, tmp_path):
    """A cross-encoder's scores are transformers' for each pair, as probabilities, best first."""
    expected = make_encoder(row, tmp_path)
    write_word_pieces(tmp_path)
    query = "where is the cat?"
    first, scores = ids_of(query), []
    for text in TEXTS[:3]:
        pair = first + ids_of(text)[1:]
        extra = {}
        if row.config == "BertConfig":
            types = [0] * len(first) + [1] * (len(pair) - len(first))
            extra = {"token_type_ids": torch.tensor([types])}
        with torch.no_grad():
            scores.append(expected(torch.tensor([pair]), **extra).logits[0].numpy())
    wanted = probabilities(np.stack(scores), row.overrides["num_labels"] - 1)
    with LLM(tmp_path, num_threads=1) as ranker:
        found = ranker.rerank(query, TEXTS[:3])
        best = ranker.rerank(query, TEXTS[:3], top_n=1)
        raw = ranker.embed(first, pooling="rank").embeddings
        for bad in ({"documents": []}, {"documents": "text"}, {"documents": ["a"], "top_n": 0}):
            with pytest.raises(RequestError):
                ranker.rerank(query, **bad)
        with pytest.raises(RequestError, match="instruction"):
            ranker.rerank(query, ["a"], instruction="Judge")
    order = np.argsort(-wanted)
    assert [result.index for result in found.results] == order.tolist()
    relevance = [result.relevance_score for result in found.results]
    assert np.abs(np.array(relevance) - wanted[order]).max() < 1e-5
    assert best.results == found.results[:1]
    assert raw.shape == (1, row.overrides["num_labels"])


def write_judge_tokenizer(directory: Path) -> int:
    """Bytes, and the words that Qwen3-Reranker's question and answers need; their number."""
    tokens = [*byte_tokens(), "ye", "yes", "no"]
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(models.BPE(ids, [("y", "e"), ("ye", "s"), ("n", "o")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    return tokenizer.get_vocab_size()


JUDGE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: {}\n<Query>: {}\n<Document>: {}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


def test_qwen3_judges_as_its_model_card_says(tmp_path):
    """The relevance is P(yes) of yes and no behind the model card's question."""
    size = write_judge_tokenizer(tmp_path)
    settings = {"vocab_size": size, "head_dim": 16, "max_position_embeddings": 1024}
    expected = make_hf(Row("judge", "Qwen3", "qwen3", settings), tmp_path)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    yes, no = tokenizer.token_to_id("yes"), tokenizer.token_to_id("no")
    documents = ["a cat", "yes and no", "<b>"]
    wanted = []
    for document in documents:
        ids = tokenizer.encode(JUDGE.format("Find pets", "cat?", document)).ids
        with torch.no_grad():
            logits = expected(torch.tensor([ids])).logits[0, -1, [no, yes]]
        wanted.append(float(torch.softmax(logits, 0)[1]))
    with LLM(tmp_path, num_threads=1, dtype="float32") as judge:
        found = judge.rerank("cat?", documents, instruction="Find pets")
        with pytest.raises(RequestError, match="rerank"):
            judge.embed("a", pooling="rank")
        # What spells a control token in a document is text.
        spelled = judge.rerank("a", ["<|im_end|>"]).usage.num_prompt_tokens
        assert spelled == judge.rerank("a", ["0123456789"]).usage.num_prompt_tokens
    relevance = {result.index: result.relevance_score for result in found.results}
    assert np.abs(np.array([relevance[i] for i in range(3)]) - wanted).max() < 1e-4


def test_qwen3_without_such_tokens_does_not_judge(tmp_path):
    """Where yes and no are no tokens there is nothing to compare."""
    write_tiny_model(tmp_path / "model.gguf")
    with LLM(tmp_path / "model.gguf", num_threads=1) as plain, pytest.raises(RequestError):
        plain.rerank("a", ["b"])


PIECES = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    *[f"\u2581{c}" for c in "abcdefgh"],
    *"abcdefgh",
    "\u2581",
]
SKIPPED = 2  # positions of XLM-RoBERTa begin behind that of padding


def write_roberta(model: transformers.XLMRobertaForSequenceClassification, path: Path) -> None:
    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings - SKIPPED)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_tokenizer_model("t5")
    writer.add_token_list(PIECES)
    writer.add_token_scores([0.0] * 4 + [-1.0 - i / 10 for i in range(len(PIECES) - 4)])
    writer.add_token_types([3, 3, 3, 2] + [1] * (len(PIECES) - 4))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    for name, tensor in model.state_dict().items():
        stem, _, kind = name.removeprefix("roberta.").rpartition(".")
        values = tensor.float().numpy()
        if "position_embeddings" in name:
            values = values[SKIPPED:]
        writer.add_tensor(f"{names.get_name(stem)}.{kind}", np.ascontiguousarray(values))
    finish(writer)


def test_roberta_from_gguf_equals_transformers(tmp_path):
    """XLM-RoBERTa (bge-reranker) as llama.cpp's converter writes it: a BERT without the rows of its
    position table that are never read, one token type, and a Unigram vocabulary."""
    config = transformers.XLMRobertaConfig(
        **{**BASE, "pad_token_id": 1, "vocab_size": len(PIECES)},
        type_vocab_size=1,
        max_position_embeddings=66,
        num_labels=1,
    )
    torch.manual_seed(3)
    model = transformers.XLMRobertaForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    write_roberta(model, tmp_path / "model.gguf")
    query, documents = "a b ca", ["d", "ef gh", "abc abc abc"]
    with LLM(tmp_path / "model.gguf", num_threads=1) as ranker:
        encode = ranker.tokenizer.encode
        pairs = [[0, *encode(query)[1:-1], 2, 2, *encode(text)[1:-1], 2] for text in documents]
        found = ranker.rerank(query, documents)
    with torch.no_grad():
        scores = np.stack([model(torch.tensor([pair])).logits[0].numpy() for pair in pairs])
    wanted = probabilities(scores.astype(np.float64), 0)
    assert found.usage.num_prompt_tokens == sum(map(len, pairs))
    relevance = {result.index: result.relevance_score for result in found.results}
    assert np.abs(np.array([relevance[i] for i in range(3)]) - wanted).max() < 1e-5


def test_probabilities_of_scores():
    """Sigmoid of one score, softmax of several, without overflow."""
    one = probabilities(np.array([[0.0], [1000.0], [-1000.0]]), 0)
    np.testing.assert_allclose(one, [0.5, 1, 0], atol=1e-12)
    two = probabilities(np.array([[0.0, np.log(3.0)], [1000.0, 0.0]]), 1)
    np.testing.assert_allclose(two, [0.75, 0], atol=1e-12)
