"""/embedding and /rerank: vectors and relevance, in the shapes of several servers.

Sources: tools/server/README.md of ggml-org/llama.cpp, "POST /embedding" and "POST /reranking";
Jina's and Cohere's rerank APIs (documents, results); text-embeddings-inference (texts, a bare
list).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quintet.errors import RequestError
from quintet.server.dialects.llamacpp.bodies import EmbeddingBody, RerankBody
from quintet.server.dialects.llamacpp.prompts import prompts
from quintet.server.served_model import ServedModel

_EUCLIDEAN = 2  # embd_normalize: -1 none, 0 the largest, 1 taxicab, 2 Euclidean, p the p-norm
_MAX_INT16 = 32760.0  # what 0 scales the largest component to
_MAX_NORM = 64


async def embed(body: EmbeddingBody, model: ServedModel) -> list[dict[str, Any]]:
    """The body of /embedding: a vector per prompt, each in a list of its own.

    Raises:
        RequestError: no prompt, or a norm that is none.
    """
    value = body.content if body.content is not None else body.input
    if value is None:
        raise RequestError("expected content or input", parameter="content")
    inputs = prompts(value, model.engine.tokenizer)
    if not -1 <= body.embd_normalize <= _MAX_NORM:
        raise RequestError(f"expected -1 to {_MAX_NORM}", parameter="embd_normalize")
    output = await model.embed(inputs, normalize=body.embd_normalize == _EUCLIDEAN)
    return [
        {"index": index, "embedding": [_normalized(row, body.embd_normalize).tolist()]}
        for index, row in enumerate(output.embeddings)
    ]


async def rerank(body: RerankBody, model: ServedModel) -> Any:
    """The body of /rerank: documents by relevance, the best first.

    Raises:
        RequestError: no documents.
    """
    documents = body.documents if body.documents is not None else body.texts
    if not documents:
        raise RequestError('expected "documents" or "texts"', parameter="documents")
    output = await model.rerank(body.query, documents, top_n=body.top_n)
    if body.texts is not None and body.documents is None:
        return [
            {
                "index": result.index,
                "score": result.relevance_score,
                **({"text": documents[result.index]} if body.return_text else {}),
            }
            for result in output.results
        ]
    count = output.usage.num_prompt_tokens
    return {
        "model": body.model or model.name,
        "object": "list",
        "usage": {"prompt_tokens": count, "total_tokens": count},
        "results": [
            {"index": result.index, "relevance_score": result.relevance_score}
            for result in output.results
        ],
    }


def _normalized(row: NDArray[np.float32], norm: int) -> NDArray[np.float32]:
    if norm in (-1, _EUCLIDEAN):
        return row
    size = np.abs(row)
    length = size.max() / _MAX_INT16 if norm == 0 else (size**norm).sum() ** (1 / norm)
    return row / np.float32(length) if length > 0 else row
