"""single_loop: the problems against autograd and differences, and the loops by hand against each other and ours."""

from typing import Any

import numpy as np
import pytest
import torch
from slow_cases import mostly_slow

import hypergrad as hg
from benchmarks.problem.bilevel_logistic import BilevelLogistic
from benchmarks.problem.bilevel_quadratic import BilevelQuadratic
from benchmarks.problem.partitioned import Partition
from benchmarks.single_loop_by_hand import Steps, by_numpy, by_torch, saba_by_numpy, terms
from experiments.single_loop.contestants import ENTRANTS, Ours
from experiments.single_loop.table import at
from experiments.single_loop.tune import Setting, tuned
from hypergrad.core.autodiff import flatten

QUADRATIC: dict[str, Any] = {"num_train": 70, "num_dev": 50, "size": 8, "num_hparams": 3, "batch_size": 16}
LOGISTIC: dict[str, Any] = {"num_train": 90, "num_dev": 70, "num_features": 5, "batch_size": 16}
PROBLEMS = {
    "quadratic": lambda **more: BilevelQuadratic(**QUADRATIC | more),
    "logistic": lambda **more: BilevelLogistic(**LOGISTIC | more),
}


@pytest.fixture(params=PROBLEMS.values(), ids=list(PROBLEMS))
def make(request):
    return request.param


def test_a_partition_has_each_example_once_per_epoch_in_batches_that_stay():
    partition = Partition(size=70, batch_size=16, seed=3)
    orders = [[partition.index(t) for t in range(5 * e, 5 * e + 5)] for e in range(4)]
    assert len({tuple(order) for order in orders}) > 1
    for order in orders:
        assert sorted(order) == list(range(5))
    rows = {partition.index(t): partition.rows(t) for t in range(5)}
    assert rows == {partition.index(t): partition.rows(t) for t in range(15, 20)}
    assert sorted(i for found in rows.values() for i in range(70)[found]) == list(range(70))
    weights = {partition.index(t): partition.place(t).weight for t in range(5)}
    assert weights[4] == pytest.approx(5 * 6 / 70)
    assert sum(weights.values()) == pytest.approx(5)


def test_the_value_and_its_gradient_are_those_of_the_solution(make):
    problem = make()
    hparams = problem.init_hparams()
    w = problem.solution(hparams)
    assert flatten(problem.inner_loss_and_gradient(w, hparams, (problem.X, problem.Y))[1]).norm() < 1e-12
    _, grad = problem.value(hparams)
    spaces = problem.hyperparameters()
    u = {name: spaces[name].to_unconstrained(x) for name, x in hparams.items()}
    direction = torch.linspace(-1, 2, len(grad), dtype=torch.float64)

    def at(s):
        return problem.value({name: spaces[name].to_natural(x + s * direction) for name, x in u.items()})[0]

    assert (at(1e-5) - at(-1e-5)) / 2e-5 == pytest.approx((grad @ direction).item(), rel=1e-6)


def test_the_optimum_is_the_least_value(make):
    problem = make()
    least, hparams = problem.optimum(), problem.init_hparams()
    F = problem.value(hparams)[0]
    assert least < F
    spaces = problem.hyperparameters()
    ((name, h),) = spaces.items()
    u = h.to_unconstrained(hparams[name])
    for _ in range(300):
        u = u - 0.3 * problem.value({name: h.to_natural(u)})[1]
    assert least <= problem.value({name: h.to_natural(u)})[0] + 1e-10


def test_the_curvature_of_the_quadratic_is_as_said():
    problem = BilevelQuadratic(num_train=8_000, num_dev=10, size=6, num_hparams=4)
    x, b, _ = problem.X.unbind(1)
    s, a, _ = problem.Y.unbind(1)
    eigenvalues = torch.linalg.eigvalsh(x.T @ x / len(x))
    torch.testing.assert_close(eigenvalues, torch.logspace(-1, 0, 6, dtype=torch.float64), rtol=0.15, atol=0)
    of_hp = torch.linalg.eigvalsh(s.T @ s / len(x))
    torch.testing.assert_close(of_hp[1:], torch.logspace(-1, 0, 3, dtype=torch.float64), rtol=0.15, atol=0)
    assert of_hp[0].abs() < 1e-12
    torch.testing.assert_close(
        torch.linalg.svdvals(a.T @ b / len(x)), torch.full((4,), 0.1, dtype=torch.float64), rtol=0.3, atol=0
    )


def test_the_derivatives_by_hand_are_those_of_autograd(make):
    problem = make()
    X, Y = problem.inner_batch(2)
    generator = torch.Generator().manual_seed(0)
    w, v = torch.randn(2, X.shape[-1], generator=generator, dtype=torch.float64)
    u = torch.randn(flatten(problem.init_hparams()).shape, generator=generator, dtype=torch.float64)
    w.requires_grad_()
    u.requires_grad_()
    ((name, h),) = problem.hyperparameters().items()
    hparams = {name: h.to_natural(u)}
    (D_w,) = torch.autograd.grad(problem.inner_loss({"w": w}, hparams, (X, Y)), w, create_graph=True)
    right = D_w, *torch.autograd.grad(D_w, (w, u), v)
    of_outer = torch.autograd.grad(problem.outer_loss({"w": w}, hparams, (X, Y)), (w, u), materialize_grads=True)
    inner, outer = terms(problem)
    at_w, at_v, at_u = (x.detach().numpy() for x in (w, v, u))
    found = (*inner(at_w, at_v, at_u, X.numpy(), Y.numpy()), *outer(at_w, at_u, X.numpy(), Y.numpy()))
    for mine, autograd in zip(found, (*right, *of_outer), strict=True):
        np.testing.assert_allclose(mine, autograd.detach().numpy(), rtol=1e-10, atol=1e-14)


def test_three_loops_of_soba_are_one(make):
    problem = make(num_train=64, num_dev=48)  # no short batch, whose weights only ours knows
    result = hg.Trainer(
        problem=problem,
        estimator=hg.SingleLoop(method=hg.SOBA(solver=hg.GradientDescent(lr=0.1))),
        optimizer=lambda u: torch.optim.SGD(u, lr=0.2),
        outer_steps=40,
    ).fit()
    ((name, h),) = problem.hyperparameters().items()
    ours, steps = h.to_unconstrained(result.last.hparams[name]).numpy(), Steps(40, lr=0.1, lr_hp=0.2)
    np.testing.assert_allclose(by_numpy(problem, steps), ours, rtol=0, atol=1e-12)
    np.testing.assert_allclose(by_torch(problem, steps), ours, rtol=0, atol=1e-12)


def test_saba_by_hand_converges_where_soba_does_not():
    problem = BilevelQuadratic(**QUADRATIC)
    gaps = []
    for loop in (by_numpy, saba_by_numpy):
        u = loop(problem, Steps(5000, lr=0.2, lr_hp=0.2))
        gaps.append(problem.value({"hp": torch.from_numpy(u)})[0] - problem.optimum())
    assert gaps[1] < 1e-12
    assert gaps[0] > 1e-4


def tiny(batch_size):
    return BilevelQuadratic(**QUADRATIC | {"num_train": 64, "num_dev": 48, "batch_size": batch_size and 16})


ORACLES = {
    "SOBA": 4 * 16,
    "SOBA, steps falling as 1/√t": 4 * 16,
    "MA-SOBA": 4 * 16,
    "SABA": 4 * 16,
    "AmIGO, 10 and 10 steps": (10 + 11 + 11 + 1 + 1) * 16,
    "F2SA": 3 * 16,
    "BOME, 10 steps": 12 * 16,
    "MEHA": 4 * 16,
}


@pytest.mark.parametrize("name", mostly_slow(list(ENTRANTS), ["SABA", "F2SA", "BOME, 10 steps", "MEHA"]))
def test_every_entrant_starts_from_the_same_gap_and_pays_for_what_it_computes(name):
    path = ENTRANTS[name].run(tiny, step=0.05, ratio=0.5, epochs=30)
    problem = tiny(None)
    assert torch.equal(path.hparams[0]["hp"], problem.init_hparams()["hp"])
    assert path.epochs[0] == 0
    assert path.epochs[0] < path.epochs[-1] <= 30
    columns = path.judged(problem, problem.optimum())
    assert min(columns["gap"]) < columns["gap"][0]
    assert at(columns, "gap", 0) == columns["gap"][0]
    assert at(columns, "gap", 1e9) == columns["gap"][-1]


@pytest.mark.parametrize("name", ORACLES)
def test_an_outer_step_costs(name):
    entrant = ENTRANTS[name]
    assert isinstance(entrant, Ours)
    assert entrant._oracles(tiny(16), 0.02, 1.0) == ORACLES[name]


def test_tuning_chooses_the_pair_with_the_lowest_gap():
    setting = Setting(tiny, (0.001, 0.1), (3.0, 300.0), tuning=10, epochs=10, shown=(10,))
    found = tuned(ENTRANTS["SABA by hand, numpy"], setting, tiny(None).optimum())
    pairs = [(0.001, 3.0), (0.001, 300.0), (0.1, 3.0), (0.1, 300.0)]
    assert (found["step"], found["ratio"]) == pairs[found["gaps"].index(min(found["gaps"]))] == (0.1, 3.0)
