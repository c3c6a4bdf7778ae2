"""The outer objective stands where it was put: an evaluation can be taken back."""

import pytest
import torch
from tables import PROBLEMS

import hypergrad as hg
from hypergrad.outer.objective import OuterObjective

ESTIMATORS = {
    "implicit": hg.Implicit(solver=hg.Momentum(lr=0.05), inner_steps=20, inner_tol=1e-3, error_bar=False),
    "unrolled": hg.Unrolled(solver=hg.Momentum(lr=0.05), inner_steps=7),
    "online": hg.Forward(solver=hg.Momentum(lr=0.05), inner_steps=3, online=True),
}


def objective_of(estimator, **settings):
    settings = {"warm_start": True, "max_grad_norm": None} | settings
    return OuterObjective(PROBLEMS["quadratic"], ESTIMATORS[estimator], **settings)


def bits_of(objective, step):
    """What an evaluation gives, and what it leaves in `.grad`."""
    found = objective.evaluate(step).found
    return [*found.grad.values(), *found.params.values(), *(u.grad.clone() for u in objective.u.values())]


def moved(objective, by):
    objective.place({name: u.detach() + by for name, u in objective.u.items()})


@pytest.mark.filterwarnings("ignore::hypergrad.NotConvergedWarning")
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_after_a_rewind_the_next_evaluation_gives_the_same_bits(estimator):
    objective = objective_of(estimator)
    bits_of(objective, 0)
    before = objective.snapshot()
    moved(objective, 0.01)
    first = bits_of(objective, 1)
    moved(objective, -0.02)
    again = bits_of(objective, 1)
    assert not all(map(torch.equal, first, again))
    objective.rewind(before)
    assert all(torch.equal(objective.u[name], u) for name, u in before.u.items())
    moved(objective, 0.01)
    assert all(map(torch.equal, first, bits_of(objective, 1)))


def test_a_rewind_takes_back_the_warm_start():
    objective = objective_of("implicit")
    before = objective.snapshot()
    cold = objective.evaluate(0).found.stats["inner_grad_norm"]
    assert objective.evaluate(0).found.stats["inner_grad_norm"] != cold
    objective.rewind(before)
    assert objective.evaluate(0).found.stats["inner_grad_norm"] == cold


def test_the_gradient_of_u_is_pulled_back_and_clipped():
    objective = objective_of("implicit", max_grad_norm=None)
    grad = objective.evaluate(0).found.grad
    truth = {"penalty": grad["penalty"] * objective.hparams()["penalty"].detach(), "shift": grad["shift"]}
    for name, u in objective.u.items():
        torch.testing.assert_close(u.grad, truth[name], rtol=1e-12, atol=0)
    clipped = objective_of("implicit", max_grad_norm=1e-3)
    clipped.evaluate(0)
    norm = torch.cat([u.grad.reshape(-1) for u in clipped.u.values() if u.grad is not None]).norm()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)
