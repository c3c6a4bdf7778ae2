"""Training by every tape, of every problem and effect, on another device gives the numbers of the CPU."""

from typing import Any

import pytest
import torch
from elsewhere import ELSEWHERE, elsewhere
from moved import (
    EFFECTS,
    MOVES,
    PROBLEMS,
    SPARSE,
    agree,
    convolutions,
    drawn,
    network,
    supervised,
    two_classes,
    with_averages,
)
from runs import SOLVERS, STEPS, Ridge
from slow_cases import mostly_slow
from sparse_tables import made_sparse
from synchronisations import Synchronisations
from tables import synthetic

import hypergrad as hg
from hypergrad.core.autodiff import flatten

GD = hg.GradientDescent(lr=0.05)
HEAVY_BALL = hg.Momentum(lr=0.05, momentum=0.7)
TAPES = {"graph": hg.Graph(), "store": hg.Store(), "checkpoint": hg.Checkpoint(slots=3)}


def test_what_a_gpu_refuses_is_refused_elsewhere():
    with elsewhere(), Synchronisations() as met:
        x, two = torch.ones(3, device=ELSEWHERE), torch.tensor(2.0)
        for wrong in (
            lambda: x + torch.ones(3),
            lambda: x.dot(torch.ones(3)),
            lambda: torch.stack([x[0], two]),
            lambda: torch.addcmul(x, two, two),
            lambda: two.add_(x[0]),
            lambda: torch.randn(3, generator=torch.Generator(), device=ELSEWHERE),
        ):
            with pytest.raises(RuntimeError, match=r"same device|too many CPU scalars|generator of another device"):
                wrong()
        assert not met.operations
        assert (x * two).sum().item() == 6
        assert torch.tensor([3.0], device=ELSEWHERE).tolist() == [3]
        assert len(met.operations) == 3


@pytest.mark.parametrize("tape", mostly_slow(TAPES, ["store"]))
@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "gradient descent"])  # it has no `beta`
def test_steps_and_tapes(device, solver, tape):
    agree(Ridge(synthetic(0), l2=0.3), hg.Unrolled(solver=SOLVERS[solver], inner_steps=STEPS, tape=tape), device)


ONE_WAY = ("a recurrence", "attention", "posteriors")
"""Forward mode has no rule for what they call, or takes long."""


@pytest.mark.parametrize("problem", PROBLEMS)
def test_problems_backwards(device, problem):
    solver = hg.Momentum(lr="lr", momentum="beta") if problem == "learning to learn" else HEAVY_BALL
    agree(PROBLEMS[problem](), hg.Unrolled(solver=solver, inner_steps=3), device)


@pytest.mark.parametrize("problem", mostly_slow([x for x in PROBLEMS if x not in ONE_WAY], ["ridge", "batches"]))
def test_problems_forwards(device, problem):
    solver = hg.Momentum(lr="lr", momentum="beta") if problem == "learning to learn" else HEAVY_BALL
    agree(PROBLEMS[problem](), hg.Forward(solver=solver, inner_steps=3), device)


@pytest.mark.parametrize("solver", [hg.ProximalGradient(), hg.CoordinateDescent()], ids=["proximal", "coordinates"])
@pytest.mark.parametrize("problem", mostly_slow(list(SPARSE), ["lasso"]))
def test_sparse_problems(device, problem, solver):
    made = SPARSE[problem]()
    if problem == "logistic" and isinstance(solver, hg.CoordinateDescent):
        pytest.skip("coordinate descent is for a squared loss")
    estimator = hg.Implicit(solver=solver, inner_steps=20_000, inner_tol=1e-10, linsolve=hg.Dense())
    agree(made, estimator, device, rtol=1e-6)


@pytest.mark.parametrize("effect", EFFECTS)
def test_effects(device, effect):
    agree(supervised(hyperparameters=EFFECTS[effect](), batch_size=7), hg.Unrolled(solver=GD, inner_steps=3), device)


@pytest.mark.parametrize("effect", mostly_slow(list(MOVES), ["one"]))
def test_random_moves_of_images(device, effect):
    problem = convolutions(hyperparameters={"moves": MOVES[effect]()})
    agree(problem, hg.Unrolled(solver=GD, inner_steps=3), device)


@pytest.mark.parametrize("problem", ["ridge", "batches", "learning to learn"])
def test_reversible(device, problem):
    tuned = problem == "learning to learn"
    solver = hg.Momentum(lr="lr", momentum="beta") if tuned else HEAVY_BALL
    agree(PROBLEMS[problem](), hg.Unrolled(solver=solver, inner_steps=5, tape=hg.Reversible()), device)


@pytest.mark.parametrize("problem", mostly_slow(["batches", "convolutions"], ["batches"]))
def test_gradients_in_parts(device, problem):
    made = supervised(batch_size=7, micro_batch=2) if problem == "batches" else convolutions(micro_batch=4)
    few: Any = {"inner_steps": 3, "inner_tol": 0.0, "linsolve": hg.CG(max_iter=4), "error_bar": False}
    agree(made, hg.Implicit(solver=GD, damping=4.0, **few), device)


@pytest.mark.gpu
def test_a_loss_whose_kernel_adds_in_any_order_is_a_function(cuda):
    """Two calls of the loss of a class for each position differ in the last bits."""
    X, y = drawn(0, 8, 4, 4096), torch.randint(0, 3, (8, 4096), generator=torch.Generator().manual_seed(0))
    right = _of_positions(X, y)
    for _ in range(5):
        found = _of_positions(X.to(cuda), y.to(cuda))
        assert (found.cpu() - right).norm() <= 1e-9 * right.norm()


def _of_positions(X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    model = network(torch.nn.Conv1d(4, 3, 1)).to(X.device)
    problem = supervised(model, train=(X, y), dev=(X, y), test=None)
    estimator = hg.Unrolled(solver=GD, inner_steps=3)
    return flatten(estimator.estimate(problem, problem.init_hparams(), problem.init_params()).grad)


@pytest.mark.gpu
def test_running_averages(cuda):
    agree(with_averages(), hg.Unrolled(solver=GD, inner_steps=3), cuda)


@pytest.mark.gpu
def test_sparse_inputs(cuda):
    problem = hg.SparseLogistic(made_sparse(two_classes()))
    agree(problem, hg.Implicit(solver=hg.ProximalGradient(), inner_steps=20_000, inner_tol=1e-10), cuda, rtol=1e-6)
