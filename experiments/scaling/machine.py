"""Machines as a model of time: what a gradient takes on a rank, and what joins the ranks."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.link import Link, Way
from experiments.scaling.methods import Piece

NVLINK, NODE_NETWORK = 370e9, 8 * 46e9
"""Bytes/s of a ring of NCCL on 8 H100 that NVSwitch joins, and of the 8 adapters of 400 Gbit/s of a node."""
_MICRO = 1e-6
_WAYS = (
    (6.6, 0.6, 2.7, False, 0.25),
    (8.4, 3.4, 14.0, False, 1.0),
    (6.8, 0.6, 5.0, True, 0.24),
    (8.4, 4.0, 14.0, True, 0.9),
)
"""Of NCCL: base, hop and network hop in µs, whether it is a tree, and the part of the bandwidth that it reaches."""
CLUSTER = Link(
    tuple(
        Way(base * _MICRO, hop * _MICRO, part * NVLINK, net * _MICRO, part * NODE_NETWORK, is_tree)
        for base, hop, net, is_tree, part in _WAYS
    ),
    per_node=8,
)
"""Nodes of 8 H100 with InfiniBand, from published numbers; README.md says which."""


@dataclass(frozen=True)
class Machine:
    """What computes.

    Attributes:
        gradient: seconds of a gradient of a whole batch on one rank.
        floor: seconds that a gradient takes for any number of examples.
        link: what joins the ranks.
        itemsize: bytes of a number.
        cores: ranks that compute at the same time.
    """

    gradient: float
    floor: float
    link: Link
    itemsize: int
    cores: int = 2**30

    def seconds(self, pieces: Sequence[Piece], ranks: int) -> tuple[float, float]:
        """Of one hypergradient: what is computed, and what is sent."""
        each = self.floor + (self.gradient - self.floor) / ranks
        computed = sum(piece.times * piece.passes for piece in pieces) * each * max(1.0, ranks / self.cores)
        sent = sum(
            piece.times
            * (
                sum(self.link.all_reduce(size * self.itemsize, ranks) for size in piece.sums)
                + sum(self.link.gather(size * self.itemsize, ranks) for size in piece.gathers)
            )
            for piece in pieces
        )
        return computed, sent


GPT_TOKENS, GPT_PARAMETERS = 2**19, 124_000_000
TOKENS_PER_SECOND = 10e9 / (45 * 60) / 8
"""Of one H100 in llm.c: ten billion tokens in 45 minutes on 8 of them, GPT-2 of 124 M."""
H100 = Machine(GPT_TOKENS / TOKENS_PER_SECOND, 5e-3, CLUSTER, itemsize=4)
"""GPT-2 of 124 M on half a million tokens. That its kernels take 5 ms to launch is a judgement."""
