"""No training step makes the host wait for a GPU; only the evaluations at the start and end of a run do."""

import pytest
import torch
from runs import SOLVERS, Network
from synchronisations import Synchronisations
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.core.autodiff import leaves
from hypergrad.tape.base import Tape
from hypergrad.training.dynamics import Dynamics

META = torch.device("meta")
"""A device without values, on which reading one raises."""


def supervised():
    torch.manual_seed(0)
    X, y = torch.randn(30, 4), torch.arange(30) % 3
    return hg.Supervised(
        model=nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.2), nn.Tanh(), nn.Linear(5, 3)),
        loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 1.0]), ignore_index=2),
        train=(X[:20], y[:20]),
        dev=(X[20:], y[20:]),
        hyperparameters={
            "l2": hg.L2(init=1e-2, per="tensor"),
            "weights": hg.ExampleWeights(),
            "lr": hg.Hyperparameter(torch.linspace(0.03, 0.08, 12)),
            "beta": hg.Hyperparameter(0.6),
        },
        batch_size=6,
        probe=False,
    )


def run_of(problem, solver, device=None):
    """The dynamics, and a state on a device."""
    solving = SOLVERS[solver]
    hparams = {name: x if device is None else x.to(device) for name, x in problem.init_hparams().items()}
    return Dynamics(problem, solving, leaves(hparams)), solving.init(problem.init_params())


def counted(evaluate):
    with Synchronisations() as met:
        evaluate()
    return met.operations


def steps(dynamics, state):
    for t in range(9):  # three epochs of a Supervised problem
        state = dynamics.step(state, t)


@pytest.mark.parametrize("make", [supervised, Network], ids=["supervised", "network"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_and_its_pull_back_read_no_value(make, solver):
    dynamics, state = run_of(make(), solver)
    assert counted(lambda: steps(dynamics, state)) == []

    def back():
        after, passage = dynamics.passage(state, range(2))
        passage.pull_back(after)

    assert counted(back) == []


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_copies_nothing_between_devices(solver):
    problem = supervised().to(META)
    dynamics, state = run_of(problem, solver, META)
    assert {x.device for x in state["params"].values()} == {META}
    assert counted(lambda: steps(dynamics, state)) == []


def test_a_scheduled_coefficient_and_augmentation_copy_nothing_either():
    torch.manual_seed(0)
    X, y = torch.randn(16, 9), torch.arange(16) % 2
    problem = hg.Supervised(
        model=nn.Linear(9, 2),
        loss=cross_entropy,
        train=(X[:10], y[:10]),
        dev=(X[10:], y[10:]),
        hyperparameters={"shift": hg.RandomAffine(), "smooth": hg.LabelSmoothing()},
        batch_size=4,
        probe=False,
    ).to(META)
    solver = hg.Adam(lr=hg.Cosine(base=hg.Warmup(base=0.1, steps=3), steps=9))
    hparams = {name: x.to(META) for name, x in problem.init_hparams().items()}
    assert counted(lambda: steps(Dynamics(problem, solver, leaves(hparams)), solver.init(problem.init_params()))) == []


@pytest.mark.parametrize("tape", [hg.Graph(), hg.Store(), hg.Checkpoint()], ids=repr)
def test_a_longer_sweep_synchronises_no_more_often(tape: Tape):
    problem = supervised()

    def sweep(num):
        dynamics, state = run_of(problem, "momentum")
        trajectory = tape.record(dynamics, state, range(num))
        for _ in trajectory.pull_back(trajectory.end):
            pass

    assert counted(lambda: sweep(12)) == []


@pytest.mark.parametrize("tol", [0.0, 1e-9])
def test_training_reads_values_at_its_checks_only(tol):
    problem, solver = supervised(), hg.Momentum(lr=0.01)

    def run(num):
        training = hg.Training(solver=solver, steps=num, tol=tol, check_every=10)
        return counted(lambda: training.run(problem, problem.init_hparams(), problem.init_params()))

    per_check = 2  # the loss and the norm of the gradient
    assert len(run(10)) - len(run(3)) == 0
    assert len(run(30)) - len(run(10)) == (2 * per_check if tol else 0)
    assert len(run(10)) == (3 if tol else 2) * per_check
