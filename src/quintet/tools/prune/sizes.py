"""How much of a model will be left, of what a caller asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from quintet.errors import RequestError, UnsupportedModelError
from quintet.tools.prune.anatomy import Anatomy, Sizes

Strategy: TypeAlias = Literal["depth", "width", "attention", "experts", "combined"]

# The kernels hold so many rows of an expert together: see `Graph.moe`.
_EXPERT_STEP = 16


@dataclass(frozen=True, slots=True)
class Request:
    """
    What is asked for: see `prune`.

    Args:
        strategy: what is cut.
        num_layers: blocks to keep; None: three quarters, rounded up.
        width_ratio, head_ratio, expert_ratio: shares to keep.

    Raises:
        RequestError: a share that is none.
    """

    strategy: Strategy
    num_layers: int | None
    width_ratio: float
    head_ratio: float
    expert_ratio: float

    def __post_init__(self) -> None:
        for parameter in ("width_ratio", "head_ratio", "expert_ratio"):
            ratio = getattr(self, parameter)
            if not 0 < ratio <= 1:
                raise RequestError(
                    f"expected above 0 and at most 1, found {ratio}", parameter=parameter
                )

    def cuts(self, strategy: Strategy) -> bool:
        """Whether this is cut."""
        return self.strategy in (strategy, "combined")


@dataclass(frozen=True, slots=True)
class Experts:
    """
    How tokens find experts.

    Args:
        num_used: by each token.
        num_groups, num_groups_used: of neighbours, and those a token chooses from.
    """

    num_used: int = 0
    num_groups: int = 1
    num_groups_used: int = 1


def target_sizes(anatomy: Anatomy, experts: Experts, request: Request) -> Sizes:
    """
    What will be left.

    Raises:
        RequestError: a number out of range, or nothing to remove.
        UnsupportedModelError: heads of an encoder, which fill the hidden size.
    """
    before = anatomy.sizes
    after = before
    if request.cuts("depth"):
        after = replace(after, num_layers=_num_layers(before.num_layers, request.num_layers))
    if request.cuts("width"):
        width = _width(before.expert_feed_forward, request.width_ratio, _EXPERT_STEP)
        after = replace(
            after,
            feed_forward=_width(before.feed_forward, request.width_ratio),
            expert_feed_forward=width,
            # Files give their number, and readers multiply it with the width of the others.
            shared_feed_forward=anatomy.num_shared * width,
        )
    if request.cuts("attention") and not (anatomy.is_encoder and request.strategy == "combined"):
        if anatomy.is_encoder:
            raise UnsupportedModelError("cut of an encoder", "attention", ("depth", "width"))
        num_kv_heads = max(1, _floor(request.head_ratio * before.num_kv_heads))
        group = before.num_heads // before.num_kv_heads
        after = replace(after, num_kv_heads=num_kv_heads, num_heads=group * num_kv_heads)
    if request.cuts("experts") and before.num_experts:
        after = replace(after, num_experts=_num_experts(before, experts, request.expert_ratio))
    if after == before:
        names = {
            "depth": "target_n_layer",
            "width": "width_ratio",
            "attention": "head_ratio",
            "experts": "expert_ratio",
        }
        raise RequestError(
            f"nothing would be removed of {_told(before)}",
            parameter=names.get(request.strategy, "strategy"),
        )
    return after


def _num_layers(before: int, asked: int | None) -> int:
    if asked is None:
        return -(-3 * before // 4)
    if not 1 <= asked <= before:
        raise RequestError(
            f"expected 1 to {before}, the model's blocks, found {asked}",
            parameter="target_n_layer",
        )
    return asked


def _num_experts(before: Sizes, experts: Experts, ratio: float) -> int:
    """As many of each group, and enough for those that a token uses."""
    groups = experts.num_groups
    least = max(2 if groups > 1 else 1, -(-experts.num_used // experts.num_groups_used))
    size = before.num_experts // groups
    return groups * min(size, max(least, _floor(ratio * size)))


def _width(before: int, ratio: float, least_step: int = 1) -> int:
    """Columns to keep: whole blocks of weights where these are small against all of them."""
    steps = [step for step in (256, 32) if before % step == 0 and before >= 8 * step]
    step = (*steps, least_step)[0]
    return min(before, max(step, round(ratio * before / step) * step))


def _floor(number: float) -> int:
    return math.floor(number + 1e-9)


def _told(sizes: Sizes) -> str:
    parts = [f"{sizes.num_layers} blocks"]
    if sizes.feed_forward:
        parts.append(f"{sizes.feed_forward} feed-forward columns")
    if sizes.num_experts:
        parts.append(f"{sizes.num_experts} experts of {sizes.expert_feed_forward} columns")
    return f"{', '.join(parts)} and {sizes.num_kv_heads} KV heads"
