"""Hypergradients where the part of a rank ignores parameters that the others use, against one process."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import hypergrad as hg
from hypergrad.core.autodiff import flatten


class Experts(nn.Module):
    """A layer for all examples, one for those with x₀ > 0 and one for the rest, which are called if there are some."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.above, self.below = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        z, rows = self.shared(x), torch.arange(len(x))
        for expert, mine in ((self.above, x[:, 0] > 0), (self.below, x[:, 0] <= 0)):
            if mine.any():
                z = z.index_add(0, rows[mine], torch.tanh(expert(x[mine])))
        return z


def problem(batch_size: int | None = None) -> hg.Supervised:
    """Train and dev sorted by x₀, so that the first of two ranks has the examples of one expert only."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for n in (12, 8):
        x, y = torch.randn(n, 3, generator=generator), torch.randint(3, (n,), generator=generator)
        x[:, 0] = torch.linspace(-1.1, 1, n)
        parts.append((x, y))
    torch.manual_seed(0)
    return hg.Supervised(
        model=Experts(),
        loss=nn.functional.cross_entropy,
        train=parts[0],
        dev=parts[1],
        hyperparameters={"weights": hg.ExampleWeights(), "l2": hg.L2(init=0.1, on="shared*", per="tensor")},
        batch_size=batch_size,
    )


SOLVER = hg.Momentum(lr=0.2)
DAMPED = hg.CG(max_iter=200, tol=1e-12)
ESTIMATORS: dict[str, hg.HypergradEstimator] = {
    "CG": hg.Implicit(solver=SOLVER, inner_steps=5, linsolve=DAMPED, damping=1.0, error_bar=False),
    "error bar": hg.Implicit(solver=SOLVER, inner_steps=5, linsolve=DAMPED, damping=1.0),
    "dense": hg.Implicit(solver=SOLVER, inner_steps=5, linsolve=hg.Dense(), damping=1.0, error_bar=False),
    "Gauss-Newton": hg.Implicit(
        solver=SOLVER, inner_steps=5, linsolve=DAMPED, product=hg.GaussNewton(), damping=1.0, error_bar=False
    ),
    "forward over reverse": hg.Implicit(
        solver=SOLVER, inner_steps=5, linsolve=DAMPED, product=hg.ForwardOverReverse(), damping=1.0, error_bar=False
    ),
    "columns forward over reverse": hg.Implicit(
        solver=SOLVER,
        inner_steps=5,
        linsolve=hg.Dense(),
        product=hg.ForwardOverReverse(),
        damping=1.0,
        error_bar=False,
    ),
    "Graph": hg.Unrolled(solver=SOLVER, inner_steps=5, tape=hg.Graph()),
    "Store": hg.Unrolled(solver=SOLVER, inner_steps=5, tape=hg.Store()),
    "Forward": hg.Forward(solver=SOLVER, inner_steps=5),
    "AmIGO": hg.SingleLoop(method=hg.AmIGO(solver=hg.GradientDescent(lr=0.1), inner_steps=2, adjoint_steps=2)),
    "SAMA": hg.SingleLoop(method=hg.SAMA()),
}


def parity(estimator: hg.HypergradEstimator, batch_size: int | None = None) -> float:
    """The largest relative difference of dF/dλ and w from those of one process."""
    one = problem(batch_size)
    found, wanted = (
        estimator.estimate(each, each.init_hparams(), each.init_params()) for each in (hg.DataParallel(one), one)
    )
    pairs = [(flatten(getattr(found, x)), flatten(getattr(wanted, x))) for x in ("grad", "params")]
    return max(((x - y).norm() / y.norm()).item() for x, y in pairs)


def cases() -> dict[str, Callable[[], Any]]:
    return {
        **{name: partial(parity, estimator) for name, estimator in ESTIMATORS.items()},
        "mini-batches": partial(parity, ESTIMATORS["Store"], 4),
    }
