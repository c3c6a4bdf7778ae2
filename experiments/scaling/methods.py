"""What each method computes and sends for one hypergradient on P ranks, in gradients and in all-reduces of n and p.

`tests/experiments/test_scaling.py` compares it with `estimator.plan`, which counts the code.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

STEPS, PRODUCTS, LOCAL, UNITS = 100, 20, 16, 14
"""Training steps, products of CG, local moves between two averages, and units that FSDP gathers one by one."""


@dataclass(frozen=True)
class Sizes:
    """How large a problem is.

    Attributes:
        n: parameters.
        p: hyperparameters, all of which the inner loss depends on and the outer loss does not.
        steps: of training.
        products: of CG.
    """

    n: int
    p: int
    steps: int = STEPS
    products: int = PRODUCTS


@dataclass(frozen=True)
class Piece:
    """A piece of work on one rank.

    Attributes:
        times: how often in one hypergradient; a fraction, if it is done once in several.
        passes: gradients of the rank's part of a batch, of train or dev, whose time it takes.
        sums: numbers in each all-reduce.
        gathers: numbers in each gather, or reduction to shards.
    """

    times: float
    passes: float
    sums: tuple[float, ...] = ()
    gathers: tuple[float, ...] = ()


def conjugate_gradient(s: Sizes) -> list[Piece]:
    """`Implicit` with CG after training, without an error bar."""
    return [
        Piece(s.steps + 2, 1, (s.n + 1,)),
        Piece(1, 2, (s.n + 1, s.n + 1)),
        Piece(s.products, 2, (s.n,)),
        Piece(1, 2, (s.p,)),
    ]


def store(s: Sizes) -> list[Piece]:
    """`Unrolled` with the tape `Store`, through all steps."""
    return [
        Piece(2 * s.steps + 2, 1, (s.n + 1,)),
        Piece(s.steps - 1, 2, (s.n,)),
        Piece(1, 2, (s.p,)),
        Piece(1, 1, (s.n + 1,)),
    ]


def soba(s: Sizes) -> list[Piece]:
    """`SingleLoop` with SOBA, a move."""
    return [Piece(1, 3, (s.n + 1, s.n, s.p)), Piece(1, 1, (s.n + 1,))]


def f2sa(s: Sizes) -> list[Piece]:
    """`SingleLoop` with F2SA, a move: no second derivative."""
    return [Piece(2, 1, (s.n + s.p + 1,)), Piece(1, 1, (s.n + 1,))]


def local_soba(s: Sizes) -> list[Piece]:
    """SOBA with several local moves between two averages of w, v and λ: simulated, not a method of the library."""
    return [Piece(1, 4), Piece(1 / LOCAL, 0, (2 * s.n + s.p,))]


def sharded_differences(s: Sizes) -> list[Piece]:
    """CG on differences of gradients of a model in shards, each of which gathers w twice and scatters a gradient."""
    unit = s.n / UNITS
    gradient = (unit,) * (3 * UNITS)
    return [
        Piece(s.steps + 2, 1, (1,), gradient),
        Piece(1, 2, (1, 1), gradient * 2),
        Piece(s.products, 2, (1, 1), gradient * 2),
        Piece(1, 2, (s.p, 1), gradient * 2),
    ]


METHODS: Mapping[str, Callable[[Sizes], list[Piece]]] = {
    "CG": conjugate_gradient,
    "unrolled, Store": store,
    "sharded differences": sharded_differences,
    "SOBA, a move": soba,
    "F2SA, a move": f2sa,
    f"SOBA, averages every {LOCAL} moves": local_soba,
}
