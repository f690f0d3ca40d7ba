"""LiteLLM, which speaks to a server as OpenAI's, as Ollama's and as Anthropic's."""

from __future__ import annotations

import os
import warnings
from typing import Any

import pytest

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # the other one is on the network
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    litellm = pytest.importorskip("litellm")

pytestmark = pytest.mark.filterwarnings("ignore")  # of its own code
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ROUTES = {
    "openai": ("openai/demo", "/v1"),
    "ollama": ("ollama_chat/demo", ""),
    "anthropic": ("anthropic/demo", ""),
}


def options(url: str, route: str) -> dict[str, Any]:
    model, base = ROUTES[route]
    return {
        "model": model,
        "api_base": url + base,
        "api_key": "none",
        "temperature": 0,
        "max_tokens": 32,
        "num_retries": 0,
    }


@pytest.mark.parametrize("route", ROUTES)
def test_an_answer_and_its_pieces(route: str, url: str):
    """The pieces of a stream are the whole."""
    whole = litellm.completion(messages=QUESTION, **options(url, route))
    text = whole.choices[0].message.content
    assert "Paris" in text
    assert whole.usage.completion_tokens > 1
    pieces = litellm.completion(messages=QUESTION, stream=True, **options(url, route))
    deltas = [chunk.choices[0].delta.content or "" for chunk in pieces]
    assert len([delta for delta in deltas if delta]) > 1
    assert "".join(deltas) == text


def test_a_bad_request_is_told_as_such(url: str):
    """LiteLLM's own classes of errors."""
    with pytest.raises(litellm.BadRequestError, match="top_p"):
        litellm.completion(messages=QUESTION, **{**options(url, "openai"), "top_p": 9})
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(messages=QUESTION, **{**options(url, "openai"), "model": "openai/no"})
