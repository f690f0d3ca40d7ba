"""Request bodies, with llama-server's names and defaults; unknown fields are ignored.

Source: tools/server/README.md of ggml-org/llama.cpp, "POST /completion" and the sections after it.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from quintet.server.bodies import MAX_STOP_STRINGS, Body, KeepAlive, StopString
from quintet.server.dialects.openai.bodies import ChatBody, ModelName

MAX_PROMPTS = 64
MAX_BIASES = 1024
MAX_DOCUMENTS = 1024
MAX_PROBS = 20
MAX_EXTRA_FILES = 64

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=-1, lt=2**31)]


class ModelBody(Body):
    """Which model is meant, the only one or the first where none is named, and for how long."""

    model: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    keep_alive: KeepAlive | None = None


class GenerationBody(ModelBody):
    """What /completion and /infill have in common."""

    n_predict: Count = -1
    n_keep: Count = 0
    stream: bool = False
    stop: list[StopString] | None = Field(default=None, max_length=MAX_STOP_STRINGS)
    temperature: float = 0.8
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    top_k: Annotated[int, Field(ge=-(2**31), lt=2**31)] = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    repeat_penalty: float = 1.0
    repeat_last_n: Count = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: Count = -1
    dry_sequence_breakers: list[str] | None = None
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] = -1
    samplers: list[str] | None = None
    ignore_eos: bool = False
    logit_bias: list[Any] | dict[str, Any] | None = Field(default=None, max_length=MAX_BIASES)
    n_probs: Annotated[int, Field(ge=0, le=MAX_PROBS)] = 0
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    return_tokens: bool = False
    timings_per_token: bool = False
    response_fields: list[str] | None = None
    t_max_predict_ms: Annotated[int, Field(ge=0)] = 0


class CompletionBody(GenerationBody):
    """POST /completion."""

    prompt: str | list[Any]


class ExtraFile(Body):
    filename: str = ""
    text: str = ""


class InfillBody(GenerationBody):
    """POST /infill."""

    input_prefix: str
    input_suffix: str
    input_extra: list[ExtraFile] = Field(default_factory=list, max_length=MAX_EXTRA_FILES)
    prompt: str = ""


class TokenizeBody(ModelBody):
    """POST /tokenize."""

    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeBody(ModelBody):
    """POST /detokenize."""

    tokens: list[TokenId]


class TemplateBody(ChatBody):
    """POST /apply-template: a chat completion's, whose model may be left out."""

    model: ModelName = ""


class EmbeddingBody(ModelBody):
    """POST /embedding."""

    content: str | list[Any] | None = None
    input: str | list[Any] | None = None
    embd_normalize: int = 2


class RerankBody(ModelBody):
    """POST /rerank, in Jina's shape (documents) or that of text-embeddings-inference (texts)."""

    query: str
    documents: list[str] | None = Field(default=None, max_length=MAX_DOCUMENTS)
    texts: list[str] | None = Field(default=None, max_length=MAX_DOCUMENTS)
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_text: bool = False
