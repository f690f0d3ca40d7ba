"""The part of the Python API that the server uses, as protocols."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quintet.engine.admission import EngineLimits
from quintet.engine.client import EngineState
from quintet.engine.output import OutputChunk
from quintet.engine.request import RequestOptions
from quintet.engine.stats import EngineStats
from quintet.sampling.params import SamplingParams

if TYPE_CHECKING:
    from typing_extensions import Unpack


class ServedTokenizer(Protocol):
    """The part of `Tokenizer` the server uses."""

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for."""

    def encode(
        self, text: str, *, add_special: bool = True, parse_special: bool = False
    ) -> list[int]:
        """Token ids of a text."""

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of token ids."""

    def token_to_id(self, text: str) -> int | None:
        """The id of a token by its spelling."""

    def is_special(self, token_id: int) -> bool:
        """Whether this is a control token."""

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """A conversation as the model wants to read it."""

    @property
    def bos_token(self) -> str:
        """The spelling of BOS, or an empty string."""

    @property
    def eos_token(self) -> str:
        """The spelling of EOS, or an empty string."""

    @property
    def chat_templates(self) -> Mapping[str, str]:
        """Jinja sources by name; "default" is the one."""

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
        """Token ids of a conversation as the model wants to read it."""


class EmbeddingUsage(Protocol):
    """Tokens that embeddings took."""

    @property
    def num_prompt_tokens(self) -> int:
        """Of all inputs."""


class Embeddings(Protocol):
    """Vectors of texts."""

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """[num_inputs, num_dimensions] float32, finite."""

    @property
    def usage(self) -> EmbeddingUsage:
        """Tokens they took."""


class RankedDocument(Protocol):
    """A document and how well it answers."""

    @property
    def index(self) -> int:
        """Of the document, as they were given."""

    @property
    def relevance_score(self) -> float:
        """The more the better."""


class Ranking(Protocol):
    """Documents, the best first."""

    @property
    def results(self) -> Sequence[RankedDocument]:
        """As many as were asked for."""

    @property
    def usage(self) -> EmbeddingUsage:
        """Tokens they took."""


class ServedEngine(Protocol):
    """The part of `AsyncLLM` the server uses.

    A stream that is closed early aborts its request at the next step.
    """

    def stream(
        self, prompt: str | list[int], params: SamplingParams, **options: Unpack[RequestOptions]
    ) -> AsyncIterator[OutputChunk]:
        """Continue a prompt."""

    def stream_chat(
        self,
        messages: list[dict[str, Any]],
        params: SamplingParams,
        *,
        tools: list[dict[str, Any]] | None = None,
        tool_choice: str | dict[str, Any] = "auto",
        parallel_tool_calls: bool = True,
        enable_thinking: bool | None = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncIterator[OutputChunk]:
        """Answer a conversation."""

    async def count_tokens(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        enable_thinking: bool | None = None,
    ) -> int:
        """Tokens of a conversation as the model would read it."""

    async def embed(
        self,
        inputs: Sequence[str | list[int]],
        *,
        dimensions: int | None = None,
        normalize: bool = True,
        truncate: bool = False,
    ) -> Embeddings:
        """The vectors of texts or token ids, of length 1 each, cut to `dimensions`."""

    async def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None
    ) -> Ranking:
        """Documents by how well they answer a query."""

    @property
    def tokenizer(self) -> ServedTokenizer:
        """The model's tokenizer."""

    @property
    def limits(self) -> EngineLimits:
        """Context length, vocabulary size and the most requests at a time."""

    def stats(self) -> EngineStats:
        """The engine's counters."""

    async def close(self) -> None:
        """End what is running with EngineError and free the model.  Idempotent."""

    @property
    def state(self) -> EngineState:
        """Whether the engine takes requests now."""
