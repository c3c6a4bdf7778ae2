"""A small image classifier whose architecture is a mixture of operations."""

from collections.abc import Callable, Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn


class Zero(nn.Module):
    """No connection."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


_OPERATIONS: dict[str, Callable[[int], nn.Module]] = {
    "zero": lambda channels: Zero(),
    "identity": lambda channels: nn.Identity(),
    "average": lambda channels: nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
    "tanh": lambda channels: nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Tanh()),
    "relu": lambda channels: nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU()),
    "conv": lambda channels: nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()),
}
OPERATIONS = tuple(_OPERATIONS)
"""The candidates: no connection, the identity, a 3 × 3 average, tanh or relu of a linear map of each pixel's channels,
or relu of a 3 × 3 convolution."""


class Cell(nn.Module):
    """An image classifier with nodes x₀, …, x_N, each a sum over its predecessors of a mixture of operations.

    x_j = Σ_{i<j} Σ_o softmax(α_ij)_o o_ij(x_i),    outputs = linear(mean over the pixels of (x₁, …, x_N)),

    where x₀ is a 3 × 3 convolution of the image, and each operation o has weights of its own. α, shape (edges,
    operations), is the buffer `alpha`, initially zero, which an `hg.Buffer(name="alpha")` tunes. With one operation per
    edge there is nothing to mix, and the cell is a fixed architecture.

    Args:
        edges: names of the operations of each of the N (N + 1)/2 edges, the same number for each edge, in the order
            (0, 1), (0, 2), (1, 2), (0, 3), ….
        side: images have side × side pixels and are flat, shape (n, side²); ≥ 1.
        channels: of each node, ≥ 1.
        num_outputs: classes, ≥ 1.

    Raises:
        ValueError: if the edges do not form a cell, or an operation is unknown.

    Source: Liu, Simonyan & Yang, "DARTS: differentiable architecture search", ICLR (2019).
    """

    alpha: Tensor

    def __init__(
        self, edges: Sequence[Sequence[str]], *, side: int = 8, channels: int = 8, num_outputs: int = 10
    ) -> None:
        super().__init__()
        self.names, self.side, self.nodes = [tuple(edge) for edge in edges], side, (isqrt(8 * len(edges) + 1) - 1) // 2
        met = {len(edge) for edge in self.names}
        if self.nodes * (self.nodes + 1) != 2 * len(edges) or len(met) != 1 or met == {0}:
            raise ValueError(
                f"Cell.edges must be N (N + 1)/2 lists of operations, all of the same length ≥ 1, but they are "
                f"{len(edges)} of {', '.join(map(str, sorted(met))) or 'no'} operations."
            )
        for name in sorted({name for edge in self.names for name in edge} - _OPERATIONS.keys()):
            raise ValueError(f"The operations are {', '.join(OPERATIONS)}, but Cell.edges has {name!r}.")
        self.stem = nn.Conv2d(1, channels, 3, padding=1)
        self.edges = nn.ModuleList(nn.ModuleList(_OPERATIONS[name](channels) for name in edge) for edge in self.names)
        self.head = nn.Linear(self.nodes * channels, num_outputs)
        self.register_buffer("alpha", torch.zeros(len(edges), *met))

    def forward(self, X: Tensor) -> Tensor:
        x = [self.stem(X.reshape(len(X), 1, self.side, self.side))]
        mixtures = zip(self.alpha.softmax(1), self.edges, strict=True)
        for _ in range(self.nodes):
            x.append(torch.stack([_mixed(*next(mixtures), xi) for xi in x]).sum(0))
        return self.head(torch.cat(x[1:], 1).mean((2, 3)))

    def strongest(self, alpha: Tensor) -> list[list[str]]:
        """The architecture that α selects: for each edge the operation with the largest share, except zero.

        The share of zero says how strong an edge should be, not what it should do.
        """
        found = []
        for row, names in zip(alpha.tolist(), self.names, strict=True):
            shares = {name: a for name, a in zip(names, row, strict=True) if name != "zero"}
            found.append([max(shares, key=shares.__getitem__) if shares else "zero"])
        return found


def _mixed(shares: Tensor, operations: Any, x: Tensor) -> Tensor:
    return torch.stack([share * operation(x) for share, operation in zip(shares, operations, strict=True)]).sum(0)


def mixed_cell(candidates: Sequence[str] = OPERATIONS, *, nodes: int = 2, **settings: int) -> Cell:
    """A `Cell` with the same candidates for each edge.

    Args:
        candidates: the operations to choose from, see `Cell`, such as "conv" and "zero".
        nodes: how many follow the first, ≥ 1.
        settings: of `Cell`: `side` of the images, `channels` and `num_outputs`.
    """
    return Cell([candidates] * (nodes * (nodes + 1) // 2), **settings)
