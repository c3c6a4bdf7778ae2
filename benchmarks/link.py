"""What joins ranks, as a model of the time of a collective; its constants are measured or published."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls


@dataclass(frozen=True)
class Way:
    """One way to all-reduce B bytes on P ranks, which are on N nodes.

    As a ring, every rank sends 2 (P − 1) pieces of B/P bytes to the next one:

        base + 2 (P − N) hop + 2 (N − 1) net_hop + 2 (P − 1)/P · B / bandwidth.

    As a tree, sums go up the chain of a node, then up a tree of nodes, and back:

        base + 2 (P/N − 1) hop + 2 ⌈log₂ N⌉ net_hop + 2 (P − 1)/P · B / bandwidth.

    Attributes:
        base: seconds of a call, ≥ 0.
        hop: seconds from a rank to the next one, ≥ 0.
        net_hop: seconds from a node to another one, ≥ 0.
        bandwidth: bytes/s that a rank sends within a node, > 0.
        net_bandwidth: bytes/s that a node sends, > 0.
        is_tree: whether it is a tree.
    """

    base: float
    hop: float
    bandwidth: float
    net_hop: float = 0.0
    net_bandwidth: float = math.inf
    is_tree: bool = False

    def latency(self, ranks: int, nodes: int) -> float:
        """Seconds for no bytes."""
        if self.is_tree:
            hops = 2 * (ranks / nodes - 1) * self.hop + 2 * math.ceil(math.log2(nodes)) * self.net_hop
        else:
            hops = 2 * (ranks - nodes) * self.hop + 2 * (nodes - 1) * self.net_hop
        return self.base + hops

    def seconds(self, num_bytes: float, ranks: int, nodes: int) -> float:
        """Seconds of an all-reduce."""
        slowest = self.bandwidth if nodes == 1 else min(self.bandwidth, self.net_bandwidth)
        return self.latency(ranks, nodes) + 2 * (ranks - 1) / ranks * num_bytes / slowest


@dataclass(frozen=True)
class Link:
    """What joins ranks.

    Attributes:
        ways: to all-reduce; the fastest is taken, which depends on the bytes and the ranks.
        per_node: ranks on a node, ≥ 1.
    """

    ways: tuple[Way, ...]
    per_node: int = 2**30

    def all_reduce(self, num_bytes: float, ranks: int) -> float:
        """Seconds of an all-reduce; 0 for a single rank."""
        nodes = -(-ranks // self.per_node)
        return 0.0 if ranks == 1 else min(way.seconds(num_bytes, ranks, nodes) for way in self.ways)

    def gather(self, num_bytes: float, ranks: int) -> float:
        """Seconds to gather B bytes of which each rank has B/P, or to reduce and scatter them: half an all-reduce."""
        return self.all_reduce(num_bytes, ranks) / 2

    @classmethod
    def fitted(cls, measured: Mapping[int, tuple[Sequence[float], Sequence[float]]]) -> "Link":
        """A ring on one node, by least squares of the relative errors.

        Args:
            measured: for each number of ranks, the bytes of some all-reduces, and their seconds.
        """
        rows, seconds = [], []
        for ranks, (sizes, times) in measured.items():
            for num_bytes, spent in zip(sizes, times, strict=True):
                rows.append([1.0, 2 * (ranks - 1), 2 * (ranks - 1) / ranks * num_bytes])
                seconds.append(spent)
        scaled = np.array(rows) / np.array(seconds)[:, None]
        size = np.linalg.norm(scaled, axis=0)
        base, hop, slope = nnls(scaled / size, np.ones(len(seconds)))[0] / size
        return cls((Way(base=float(base), hop=float(hop), bandwidth=1 / float(slope)),))
