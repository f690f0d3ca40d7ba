"""Where a program is looked at, to see what its blocks and their parts do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quintet import ops
from quintet.errors import UnsupportedModelError
from quintet.tools.prune.anatomy import BLOCK_NAME, Part

# The matrices whose inputs are parts, and those parts.
_OUTPUTS: Mapping[str, Part] = {
    "attn_output.weight": "heads",
    "ffn_down.weight": "columns",
    "ffn_down_shexp.weight": "shared_columns",
}


@dataclass(frozen=True, slots=True)
class Router:
    """
    What sends a block's tokens to experts.

    Args:
        layer: the block.
        weight, bias: the matrix that gives the scores, [num_experts, width], and its bias.
        routing: what follows from them.
    """

    layer: int
    weight: str
    bias: str | None
    routing: ops.Routing


@dataclass(frozen=True, slots=True)
class Places:
    """
    Weights, by what can be seen in the rows that they are given.

    Args:
        starts: a block's input; with the block.
        end: what the last block gives.
        outputs: parts; with the block, and which.
        gates: what experts are given; with who sent it.
        downs: columns of experts; with the block.
    """

    starts: Mapping[str, int]
    end: str
    outputs: Mapping[str, tuple[int, Part]]
    gates: Mapping[str, Router]
    downs: Mapping[str, int]

    def __contains__(self, name: object) -> bool:
        places = (self.starts, self.outputs, self.gates, self.downs)
        return name == self.end or any(name in each for each in places)


def find_places(program: ops.Program) -> Places:
    """
    The places of a decoder.

    Raises:
        UnsupportedModelError: it has no last norm, as encoders have none.
        NotImplementedError: the scores of experts come from no matrix.
    """
    starts: dict[str, int] = {}
    outputs: dict[str, tuple[int, Part]] = {}
    gates: dict[str, Router] = {}
    downs: dict[str, int] = {}
    end, layer = "", -1
    for op in program.ops:
        if isinstance(op, ops.Moe):
            scores = program.ops[op.scores.node]
            if not isinstance(scores, ops.Linear):
                raise NotImplementedError(f"scores of experts from {scores!r}")
            gates[op.experts.gate] = Router(layer, scores.weight, scores.bias, op.routing)
            downs[op.experts.down] = layer
        elif isinstance(op, ops.Linear | ops.RMSNorm):
            if match := BLOCK_NAME.fullmatch(op.weight):
                number, name = int(match.group(1)), match.group(2)
                if number != layer:  # what reads the stream first is a norm, or a projection
                    layer = number
                    starts[op.weight] = layer
                if name in _OUTPUTS:
                    outputs[op.weight] = (layer, _OUTPUTS[name])
            elif isinstance(program.ops[op.x.node], ops.SelectRows):
                end = op.weight
    if not end:
        raise UnsupportedModelError("model to prune by activations", "without a last norm")
    return Places(starts, end, outputs, gates, downs)
