"""A query against documents: what `LLM.rerank` shares with its async twin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quintet.embeddings import Collector, spec_of
from quintet.engine.embedding import EmbeddingRequest
from quintet.engine.output import OutputChunk, Usage
from quintet.errors import ContextLengthError, RequestError
from quintet.runtime import Runtime

# Source: the model card of Qwen3-Reranker, arXiv:2506.05176.
_JUDGE_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
_JUDGE_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_JUDGE_TASK = "Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """
    A document and how well it answers the query.

    Args:
        index: of the document, in the order they were given.
        relevance_score: from 0 to 1, the more the better.
    """

    index: int
    relevance_score: float


@dataclass(frozen=True, slots=True)
class RerankOutput:
    """
    Documents by relevance.

    Args:
        results: best first; equal ones in the order they were given.
        usage: tokens of all pairs, special tokens included.
    """

    results: tuple[RankedDocument, ...]
    usage: Usage


class Reranking:
    """
    A query against documents, as one embedding request.

    Args:
        runtime: the model.
        query, documents, top_n, truncate: see `LLM.rerank`.

    Raises:
        RequestError: what cannot be served.
    """

    def __init__(
        self,
        runtime: Runtime,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        truncate: bool = False,
        instruction: str | None = None,
    ) -> None:
        spec = spec_of(runtime)
        if spec.ranks == "no":
            raise RequestError("expected a model that ranks, found one without a classifier")
        if isinstance(documents, str) or not all(isinstance(text, str) for text in documents):
            raise RequestError("expected a list of texts", parameter="documents")
        if not documents:
            raise RequestError("expected at least one text, found none", parameter="documents")
        if not isinstance(query, str) or not query:
            raise RequestError("expected a text", parameter="query")
        if top_n is not None and top_n < 1:
            raise RequestError(f"expected at least 1, found {top_n}", parameter="top_n")
        if instruction is not None and not spec.is_causal:
            raise RequestError(
                "expected none, since this model takes a query and a document only",
                parameter="instruction",
            )
        self._spec = spec
        self._top_n = top_n
        max_len = runtime.client.limits.max_model_len
        second_starts: tuple[int, ...] = ()
        label_ids: tuple[int, ...] = ()
        if spec.is_causal:
            judge = _Judge(runtime, query, instruction or _JUDGE_TASK)
            pairs = [judge.encode(text, max_len, truncate) for text in documents]
            if spec.ranks == "judge":
                label_ids = judge.label_ids()
        else:
            tokenizer = runtime.tokenizer
            first = tokenizer.prefix_ids + _plain(runtime, query) + tokenizer.between_ids
            last = tokenizer.suffix_ids
            pairs = [
                _joined(first, _plain(runtime, text), last, max_len, truncate) for text in documents
            ]
            if spec.has_token_types:
                second_starts = (len(first),) * len(pairs)
        self.request = EmbeddingRequest(
            runtime.new_id(),
            tuple(pairs),
            "rank",
            second_starts=second_starts,
            label_ids=label_ids,
        )
        self._scores = Collector(len(pairs))

    def add(self, chunk: OutputChunk) -> None:
        """Take in what a pass has made."""
        self._scores.add(chunk)

    def output(self) -> RerankOutput:
        """Once the last chunk is in."""
        relevant = 1 if self._spec.ranks == "judge" else self._spec.relevant_label
        relevance = probabilities(self._scores.rows().astype(np.float64), relevant)
        order = np.argsort(-relevance, kind="stable")[: self._top_n]
        results = tuple(RankedDocument(int(i), float(relevance[i])) for i in order)
        return RerankOutput(results, self._scores.usage)


def probabilities(scores: npt.NDArray[np.float64], relevant: int) -> npt.NDArray[np.float64]:
    """How likely the relevant label is: sigmoid of a single score, softmax of several."""
    if scores.shape[1] == 1:
        return np.asarray(1 / (1 + np.exp(-np.clip(scores[:, 0], -700, 700))))
    grown = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(grown[:, relevant] / grown.sum(axis=1))


class _Judge:
    """Qwen3-Reranker's question, whose answer is yes or no.  Texts never become control tokens."""

    def __init__(self, runtime: Runtime, query: str, task: str) -> None:
        self._runtime = runtime
        self._question = f"<Instruct>: {task}\n<Query>: {query}\n<Document>: "
        encode = runtime.tokenizer.encode
        self._before = tuple(encode(_JUDGE_PREFIX, add_special=False, parse_special=True))
        self._after = tuple(encode(_JUDGE_SUFFIX, add_special=False, parse_special=True))

    def encode(self, document: str, max_len: int, truncate: bool) -> tuple[int, ...]:
        middle = _plain(self._runtime, self._question + document)
        return _joined(self._before, middle, self._after, max_len, truncate)

    def label_ids(self) -> tuple[int, int]:
        """No and yes.

        Raises:
            RequestError: they are not tokens.
        """
        no, yes = (_plain(self._runtime, word) for word in ("no", "yes"))
        if len(no) != 1 or len(yes) != 1:
            raise RequestError("expected a model that ranks, found none: yes and no are no tokens")
        return no[0], yes[0]


def _plain(runtime: Runtime, text: str) -> tuple[int, ...]:
    return tuple(runtime.tokenizer.encode(text, add_special=False, parse_special=False))


def _joined(
    before: Iterable[int],
    middle: Sequence[int],
    after: Sequence[int],
    max_len: int,
    truncate: bool,
) -> tuple[int, ...]:
    """A document between what stands around it, which is never cut."""
    before, after = tuple(before), tuple(after)
    room = max_len - len(before) - len(after)
    if len(middle) > room and (not truncate or room < 0):
        num_tokens = len(before) + len(middle) + len(after)
        raise ContextLengthError(num_tokens, max_len, parameter="documents")
    return (*before, *middle[:room], *after)
