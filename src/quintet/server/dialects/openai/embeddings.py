"""Embeddings: texts or token ids to vectors, as numbers or as base64.

The official Python client asks for base64, little-endian float32, where its user says nothing.

Source: OpenAI API reference, "Create embeddings".
"""

from __future__ import annotations

import base64
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from quintet.errors import RequestError
from quintet.server.bodies import parse_body
from quintet.server.dialect import Context
from quintet.server.dialects.openai.bodies import MAX_EMBEDDINGS, EmbeddingBody
from quintet.server.disconnect import unless_disconnected
from quintet.server.keep_alive import keep_alive_s
from quintet.server.limits import read_json

_EXPECTED: Final[dict[int | str, str]] = {
    "input": "a string, a list of strings, a list of token ids, or a list of such lists"
}


async def embeddings(context: Context, request: Request) -> Response:
    """POST /v1/embeddings."""
    body = parse_body(EmbeddingBody, await read_json(request.receive, context.settings), _EXPECTED)
    inputs = embedding_inputs(body)
    keep_s = keep_alive_s(body.keep_alive)

    async def work() -> dict[str, Any]:
        async with context.models.use(body.model, keep_s) as model:
            output = await model.embed(inputs, dimensions=body.dimensions)
        return embedding_reply(body, output.embeddings, output.usage.num_prompt_tokens)

    return JSONResponse(await unless_disconnected(request.receive, work()))


def embedding_inputs(body: EmbeddingBody) -> list[str | list[int]]:
    """What is to be embedded, one vector each.

    Raises:
        RequestError: nothing, an empty one, or too many.
    """
    value = body.input
    inputs: list[str | list[int]]
    if isinstance(value, str):
        inputs = [value]
    elif value and isinstance(value[0], int):
        inputs = [[token for token in value if isinstance(token, int)]]
    else:
        inputs = [item for item in value if not isinstance(item, int)]
    if not 1 <= len(inputs) <= MAX_EMBEDDINGS:
        raise RequestError(
            f"expected 1 to {MAX_EMBEDDINGS} inputs, found {len(inputs)}", parameter="input"
        )
    if not all(inputs):
        raise RequestError("expected inputs that are not empty", parameter="input")
    return inputs


def embedding_reply(
    body: EmbeddingBody, vectors: NDArray[np.float32], num_prompt_tokens: int
) -> dict[str, Any]:
    """The reply; vectors: [num_inputs, num_dimensions] float32."""

    def wire(vector: NDArray[np.float32]) -> Any:
        if body.encoding_format == "base64":
            return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
        return vector.tolist()

    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": wire(vector)}
            for index, vector in enumerate(vectors)
        ],
        "model": body.model,
        "usage": {"prompt_tokens": num_prompt_tokens, "total_tokens": num_prompt_tokens},
    }
