"""What makes a GPU wait: values that are read in Python, counted on the CPU by the operations that read them."""

from collections import Counter, deque
from dataclasses import replace

import pytest
import torch
from runs import STEPS, case, problems
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import hypergrad as hg
from hypergrad.core.arithmetic import Peaks, Remainders
from hypergrad.core.autodiff import leaves
from hypergrad.training.dynamics import Dynamics

READS = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "item"}


class Reads(TorchDispatchMode):
    """Counts the operations that a GPU has to finish before Python can go on."""

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in READS:
            self.count[name] += 1
        return func(*args, **(kwargs or {}))


def sweep(problem, solver, hparams, start, tape, num_steps):
    """What is read while training is recorded, and on the way back."""
    dynamics, state = Dynamics(problem, solver, leaves(hparams)), solver.init(start)
    with Reads() as reads:
        trajectory = tape.record(dynamics, state, range(num_steps))
        adjoint = {group: dict(tensors) for group, tensors in trajectory.end.items()}
        deque(trajectory.pull_back(adjoint), maxlen=0)
    return reads.count


def images():
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn(49, 6, generator=generator), torch.randint(0, 3, (49,), generator=generator)
    return hg.Supervised(
        model=nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)),
        loss=nn.functional.cross_entropy,
        train=(X[:40], y[:40]),
        dev=(X[40:], y[40:]),
        hyperparameters={"l2": hg.L2(init=0.1), "lr": hg.Hyperparameter(torch.linspace(0.05, 0.1, STEPS))},
    )


TAPES = {"graph": hg.Graph(), "store": hg.Store(), "checkpoint": hg.Checkpoint(slots=3)}


@pytest.mark.parametrize("tape", TAPES.values(), ids=TAPES)
@pytest.mark.parametrize("solver", [hg.Momentum(lr="lr"), hg.Adam(lr="lr")], ids=["momentum", "adam"])
def test_no_step_of_a_tape_reads_a_value(tape, solver):
    problem = images()
    hparams, start = problem.init_hparams(), problem.init_params()
    sweep(problem, solver, hparams, start, tape, 1)  # tries the second derivatives, once for a problem
    assert not sweep(problem, solver, hparams, start, tape, STEPS)


@pytest.mark.parametrize("problem", problems())
def test_no_step_backwards_on_integers_reads_a_value(problem):
    problem, solver, hparams, start = case(problem, "momentum")
    dynamics = Dynamics(problem, solver, leaves(hparams))
    run = hg.Reversible().start(dynamics, solver.init(start))
    run.read(range(STEPS))
    with Reads() as reads:
        for t in range(STEPS):
            run.step(t)
        for t in reversed(range(STEPS)):
            run.back(t)
    assert not reads.count


def test_a_run_on_integers_is_checked_once_and_not_in_each_step():
    problem, solver, hparams, start = case("quadratic", "momentum")
    counts = [sweep(problem, replace(solver, lr=0.05), hparams, start, hg.Reversible(), steps) for steps in (3, STEPS)]
    assert counts[0] == counts[1]


class Scheduled(hg.InnerProblem):
    """Two tensors, and a learning rate per step that is tuned; no data."""

    def init_params(self):
        return {"a": torch.ones(5), "b": torch.ones(3)}

    def hyperparameters(self):
        return {"c": hg.Hyperparameter(1.0), "lr": hg.Hyperparameter(torch.full((STEPS,), 0.1))}

    def inner_loss(self, params, hparams, batch):
        return (params["a"] - hparams["c"]).square().sum() + (params["b"] * params["a"][:3]).sum()

    def outer_loss(self, params, hparams, batch):
        return params["a"].sum()


def test_steps_on_integers_run_on_a_device_whose_values_cannot_be_read():
    problem, solver = Scheduled(), hg.Momentum(lr="lr")
    run = hg.Reversible().start(
        Dynamics(problem, solver, leaves(problem.init_hparams())), solver.init(problem.init_params())
    )
    run.read(range(STEPS))
    run.w, run.v = ({name: q.to("meta") for name, q in tensors.items()} for tensors in (run.w, run.v))
    hparams = {name: x.detach().to("meta") for name, x in run.dynamics.hparams.items()}
    run.dynamics = replace(run.dynamics, hparams=leaves(hparams))
    run.remainders = {name: Remainders(torch.zeros_like(q)) for name, q in run.w.items()}
    run._peaks = Peaks(run.w["a"], 4 * STEPS)
    for t in range(STEPS):
        run.step(t)
    for t in reversed(range(STEPS)):
        stretch = run.back(t)
        before, (terms,) = stretch.pull_back({group: dict(xs) for group, xs in stretch.after.items()})
        assert terms["lr"] is not None
        assert before["params"]["a"].device == terms["lr"].device == torch.device("meta")
