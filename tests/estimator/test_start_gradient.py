"""dF/ds₀ is formed when it is read, and is the same as when it is formed at once."""

import pytest
import torch
from runs import STEPS, case

import hypergrad as hg
from hypergrad.core.cost import Spent
from hypergrad.estimator.differentiated_run import DifferentiatedRun

TAPES = {"graph": hg.Graph(), "store": hg.Store(), "checkpoint": hg.Checkpoint(), "reversible": hg.Reversible()}


@pytest.mark.parametrize("name", TAPES)
def test_it_costs_a_gradient_when_it_is_first_read_and_has_the_same_bits(name, monkeypatch):
    problem, solver, hparams, start = case("ridge", "momentum")
    estimator = hg.Unrolled(solver=solver, inner_steps=STEPS, tape=TAPES[name])
    found = estimator.estimate(problem, hparams, start)
    spent = Spent()
    with spent.counting():
        assert found.start is not None
        lazy = {group: dict(tensors) for group, tensors in found.start.items()}
    assert spent.gradients == 1
    assert set(found.start) == {"params", "velocity"}
    assert len(found.start) == 2

    monkeypatch.setattr(DifferentiatedRun, "moves_start", True)
    wanted = estimator.estimate(problem, hparams, start)
    assert wanted.start is not None
    with spent.counting():
        assert all(torch.equal(x, wanted.start[g][k]) for g, xs in lazy.items() for k, x in xs.items())
    assert spent.gradients == 1
    assert all(torch.equal(x, wanted.grad[k]) for k, x in found.grad.items())


def test_a_truncated_run_has_none():
    problem, solver, hparams, start = case("ridge", "momentum")
    found = hg.Unrolled(solver=solver, inner_steps=STEPS, horizon=5).estimate(problem, hparams, start)
    assert found.start is None


def test_where_the_start_moves_it_is_formed_at_once():
    problem, solver, hparams, start = case("network", "momentum")
    found = hg.Unrolled(solver=solver, inner_steps=STEPS).estimate(problem, hparams, start)
    assert isinstance(found.start, dict)
