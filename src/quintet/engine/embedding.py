"""What a client asks of the engine and gets where it wants vectors instead of text."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from quintet.models import Pooling


@dataclass(frozen=True, slots=True)
class EmbeddingSpec:
    """
    What a loaded model can do with whole texts.

    Args:
        hidden_size: columns of an embedding.
        pooling: what makes a text's rows one vector unless the request says.
        is_causal: no token sees a later one.
        ranks: how it judges pairs of texts: "classifier", by scores of labels; "judge", by the
            tokens for yes and no; or "no".
        num_labels: of the classifier.
        relevant_label: the one that says that a document answers a query.
        has_token_types: whether it is told which of a pair a token belongs to.
    """

    hidden_size: int
    pooling: Pooling
    is_causal: bool
    ranks: Literal["no", "classifier", "judge"] = "no"
    num_labels: int = 0
    relevant_label: int = 0
    has_token_types: bool = False


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """
    Texts to make a vector of each.

    Args:
        request_id: unique among the engine's unfinished requests.
        texts: token ids of each, at least one.
        pooling: of a text's rows: "mean" and "max" of all, "cls" is the first, "last" the last;
            "rank" gives what the model's head makes of that one.
        second_starts: for pairs of texts, where the second begins in each; () for single ones.
        label_ids: with "rank", the columns of the head that are wanted; () for all.
        arrival_s: when it was made, on `time.monotonic`'s clock.
    """

    request_id: str
    texts: tuple[tuple[int, ...], ...]
    pooling: Pooling
    second_starts: tuple[int, ...] = ()
    label_ids: tuple[int, ...] = ()
    arrival_s: float = field(default_factory=time.monotonic)

    @property
    def num_tokens(self) -> int:
        """Of all texts."""
        return sum(map(len, self.texts))


@dataclass(frozen=True, slots=True)
class Vectors:
    """
    What a pass made of some texts of a request.

    Args:
        indices: of the texts, in the request.
        width: columns of each vector.
        data: [len(indices), width] float32, in the machine's byte order.
    """

    indices: tuple[int, ...]
    width: int
    data: bytes
