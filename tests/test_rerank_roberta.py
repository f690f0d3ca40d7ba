"""XLM-RoBERTa rerankers (bge-reranker) as llama.cpp's converter writes them: a BERT without the
rows of its position table that are never read, one token type, and a Unigram vocabulary."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import torch
import transformers

from models.encoders import BASE, finish
from quintet import LLM
from quintet.reranking import probabilities

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


def write(model: transformers.XLMRobertaForSequenceClassification, path: Path) -> None:
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


def test_scores_equal_transformers(tmp_path):
    """Pairs are put together and scored as transformers does."""
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
    write(model, tmp_path / "model.gguf")
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
