"""A training step in parts gives the losses, hypergradients and reports of the whole step."""

from functools import cache, partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, huber_loss, mse_loss

import hypergrad as hg
from hypergrad.core.autodiff import flatten

N, DEV = 13, 7  # in parts of at most 5 and 3: the last ones are smaller
CLASSES = torch.tensor([0, 1, 2, 1, 0, 2, 2, 1, 0, 0, 1, 2, 1])
IGNORED = CLASSES.clone()
IGNORED[[0, 4, 5, 6, 7, 8, 9]] = -100  # none is left in the second part
WEIGHT = torch.tensor([0.5, 2.0, 1.3], dtype=torch.float64)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sum_of_squares(outputs, y):
    return (outputs - y).square().sum()


def mlp(width):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, width)).double()


l2 = {"l2": hg.L2(init=0.3)}
each = {"each": hg.ExampleWeights(), **l2}
SETTINGS = {
    "mean": (mse_loss, draw(N), l2, 1),
    "own sum": (sum_of_squares, draw(N), l2, 1),
    "sum": (partial(mse_loss, reduction="sum"), draw(N), l2, 1),
    "sum, example weights": (partial(huber_loss, reduction="sum"), draw(N), each, 1),
    "classes": (cross_entropy, CLASSES, each, 3),
    "class weights": (partial(cross_entropy, weight=WEIGHT), CLASSES, {"classes": hg.ClassWeights(), **l2}, 3),
    "ignored": (partial(cross_entropy, weight=WEIGHT), IGNORED, l2, 3),
    "ignored, smoothed, weighted": (cross_entropy, IGNORED, {"smooth": hg.LabelSmoothing(init=0.1), **each}, 3),
}


@cache
def make(setting, micro_batch=None, batch_size=None, model=None):
    loss, y, effects, width = SETTINGS[setting]
    y_dev = y[:DEV] if y.is_floating_point() else CLASSES[:DEV]
    return hg.Supervised(
        model=model or mlp(width),
        loss=loss,
        train=(draw(N, 4, seed=1), y),
        dev=(draw(DEV, 4, seed=2), y_dev),
        hyperparameters=effects,
        batch_size=batch_size,
        micro_batch=micro_batch,
    )


solver = hg.Momentum(lr=0.02, momentum=0.5)
unrolled = partial(hg.Unrolled, solver=solver, inner_steps=6)
implicit = partial(hg.Implicit, solver=solver, inner_steps=6, damping=20.0)
ESTIMATORS = {
    "graph": unrolled(tape=hg.Graph()),
    "store": unrolled(tape=hg.Store()),
    "checkpoint": unrolled(tape=hg.Checkpoint(slots=2)),
    "reversible": unrolled(tape=hg.Reversible()),
    "adam": hg.Unrolled(solver=hg.Adam(lr=0.02), inner_steps=6),
    "forward": hg.Forward(solver=solver, inner_steps=6),
    "cg": implicit(linsolve=hg.CG(tol=1e-13)),
    "dense": implicit(linsolve=hg.Dense()),
    "neumann": implicit(linsolve=hg.Neumann(num_terms=5, scale=0.02)),
    "nystrom": implicit(linsolve=hg.Nystrom(rank=3)),
    "differences": implicit(linsolve=hg.CG(tol=1e-8), product=hg.CentredDifferences(), error_bar=False),
    "gauss-newton": implicit(linsolve=hg.Dense(), product=hg.GaussNewton(), error_bar=False),
    "forward over reverse": implicit(linsolve=hg.Dense(), product=hg.ForwardOverReverse()),
    "traced": implicit(linsolve=hg.CG(tol=1e-13), product=hg.Traced()),
    "newton": hg.Implicit(solver=hg.Newton(), inner_steps=3, damping=20.0, linsolve=hg.Dense()),
}


def relative(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_hypergradients_are_those_of_the_whole_batch(setting, estimator):
    whole, parted = make(setting), make(setting, micro_batch=5)
    assert len(parted.inner_parts(None)) == 3
    wanted, found = (
        estimator.estimate(problem, problem.init_hparams(), problem.init_params()) for problem in (whole, parted)
    )
    # Differences divide the rounding of two gradients by a small step.
    tol = 1e-7 if isinstance(getattr(estimator, "product", None), hg.CentredDifferences) else 1e-10
    assert relative(flatten(found.grad), flatten(wanted.grad)) < tol
    assert found.stats["inner_loss"] == pytest.approx(wanted.stats["inner_loss"], rel=1e-12)
    if isinstance(getattr(estimator, "product", None), hg.Traced):
        assert "computed in parts" in found.stats["adjoint_remark"]
    else:
        assert found.num_matvecs == wanted.num_matvecs
    if "error_estimate" in wanted.stats:
        assert found.stats["error_estimate"] == pytest.approx(wanted.stats["error_estimate"], rel=1e-4, nan_ok=True)
