"""A problem that does not return what it promises is told so, by the name of its method."""

from functools import partial

import numpy as np
import pytest
import torch
from tables import synthetic

import hypergrad as hg


def ridge_with(**methods):
    """A ridge problem of which some methods return something else."""
    kind = type(
        "Mine", (hg.Ridge,), {name: (lambda self, *_, value=value: value(self, *_)) for name, value in methods.items()}
    )
    return kind(synthetic(0))


ESTIMATORS = {"implicit": hg.Implicit(inner_steps=3), "unrolled": hg.Unrolled(inner_steps=3)}
MISTAKES = {
    "inner loss is a vector": (
        {"inner_loss": lambda self, p, h, b: (self.X @ p["weight"]) ** 2 * h["l2"]},
        r"Mine.inner_loss must return a tensor of shape \(\), but it returned one of shape \(30,\)",
    ),
    "inner loss is a number": (
        {"inner_loss": lambda *_: 1.0},
        "Mine.inner_loss must return a tensor.* returned 1.0 of float",
    ),
    "inner loss is None": (
        {"inner_loss": lambda *_: None},
        "Mine.inner_loss must return a tensor.* returned None of NoneType",
    ),
    "inner loss is detached": (
        {"inner_loss": lambda self, p, h, b: (p["weight"].detach() ** 2).sum()},
        "Mine.inner_loss depends on none of weight",
    ),
    "outer loss is a number": (
        {"outer_loss": lambda *_: 1.0},
        "Mine.outer_loss must return a tensor.* returned 1.0 of float",
    ),
    "outer loss is a vector": (
        {"outer_loss": lambda self, p, h, b: self.X_dev @ p["weight"]},
        r"Mine.outer_loss must return a tensor of shape \(\), but it returned one of shape \(30,\)",
    ),
    "init_params is a tensor": (
        {"init_params": lambda self: torch.zeros(5)},
        r"Mine.init_params\(\) must return a dict of tensors by name, but it returned a Tensor",
    ),
    "init_params is of numpy": (
        {"init_params": lambda self: {"weight": np.zeros(5)}},
        r"Mine.init_params\(\) must return a dict of tensors by name, but 'weight' is a ndarray",
    ),
    "hyperparameters are numbers": (
        {"hyperparameters": lambda self: {"l2": 0.1}},
        r"Mine.hyperparameters\(\) must return a dict of .*Hyperparameter.*, but 'l2' is a float",
    ),
}


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize(("methods", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_broken_promise_is_named(methods, message, estimator):
    sgd = partial(torch.optim.SGD, lr=0.1)
    with pytest.raises((TypeError, ValueError), match=message):
        hg.Trainer(problem=ridge_with(**methods), estimator=estimator, optimizer=sgd, outer_steps=1).fit()


def test_an_error_of_the_losses_own_keeps_its_traceback():
    def own(*_):
        raise ValueError("three classes, but five labels")

    with pytest.raises(ValueError, match="^three classes, but five labels$") as caught:
        hg.Implicit().estimate(ridge_with(inner_loss=own), {"l2": torch.tensor(1.0)}, {"weight": torch.zeros(5)})
    assert caught.traceback[-1].name == "own"


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (torch.optim.SGD([torch.zeros(1)], lr=0.1), "must make an optimiser from a list of tensors"),
        ("adam", "must make an optimiser from a list of tensors"),
        (lambda tensors: tensors, "must make a torch.optim.Optimizer, but it made"),
    ],
)
def test_what_makes_no_optimiser_is_refused(optimizer, message):
    with pytest.raises(TypeError, match=message):
        hg.Trainer(problem=hg.Ridge(synthetic(0)), estimator=ESTIMATORS["implicit"], optimizer=optimizer).fit()


def test_damping_that_is_not_enough_is_counted_in_the_advice():
    problem = ridge_with(inner_loss=lambda self, p, h, b: -((p["weight"] - 1) ** 2).sum() * h["l2"])
    with pytest.raises(
        hg.IndefiniteError, match="larger than 1.90e\\+00; begin .* That is in addition to the present damping of 0.1"
    ):
        hg.Implicit(inner_steps=0, damping=0.1).estimate(problem, {"l2": torch.tensor(1.0)}, problem.init_params())


def test_a_loss_that_rose_is_told_from_one_that_has_not_arrived():
    problem = hg.Ridge(synthetic(0))
    hparams = problem.init_hparams()
    unstable = hg.Implicit(solver=hg.GradientDescent(lr=0.2), inner_steps=4).estimate(
        problem, hparams, problem.init_params()
    )
    slow = hg.Implicit(solver=hg.GradientDescent(lr=1e-4), inner_steps=4).estimate(
        problem, hparams, problem.init_params()
    )
    assert unstable.stats["inner_status"] == "rising"
    assert slow.stats["inner_status"] == "max_iter"
