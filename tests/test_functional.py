"""A hypergradient from two functions and a solved point: closed forms as truth, in the caller's own structure."""

import math
import warnings
from functools import partial
from typing import NamedTuple

import pytest
import torch
from tables import PROBLEMS, grad_of, relative_error
from torch import nn
from torch.func import functional_call

import hypergrad as hg
from hypergrad import functional
from hypergrad.core.autodiff import detach
from hypergrad.estimator.inexact import inexactness
from hypergrad.estimator.report import NO_GRADIENT, ErrorBar

TIGHT = hg.CG(max_iter=500, tol=1e-13)
EVERY_PROBLEM = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


@pytest.fixture(autouse=True)
def no_reason_was_reported(monkeypatch):
    monkeypatch.setattr(functional, "_REPORTED", set())


def losses(problem):
    return lambda w, hp: problem.inner_loss(w, hp, None), lambda w, hp: problem.outer_loss(w, hp, None)


@EVERY_PROBLEM
def test_dicts_match_the_closed_form(problem):
    hparams = problem.init_hparams()
    found = hg.hypergradient(*losses(problem), problem.solution(hparams), hparams, linsolve=TIGHT)
    assert isinstance(found, hg.Hypergradient)
    assert relative_error(found.grad, problem.hypergradient(hparams)) <= 1e-9
    assert relative_error(found.params, problem.solution(hparams)) == 0
    assert found.outer_loss == problem.outer_loss(problem.solution(hparams), hparams, None).item()
    assert found.stats["adjoint_status"] == "converged"


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@pytest.mark.parametrize("kind", [list, tuple, Pair._make], ids=["list", "tuple", "named tuple"])
def test_sequences_come_back_as_they_were(kind):
    problem = PROBLEMS["quadratic"]
    hparams, truth = problem.init_hparams(), problem.hypergradient(problem.init_hparams())

    def by_name(w, hp):
        assert type(w) is type(hp) is type(kind([0, 0]))
        return dict(zip("ab", w, strict=True)), dict(zip(truth, hp, strict=True))

    found = hg.hypergradient(
        lambda w, hp: problem.inner_loss(*by_name(w, hp), None),
        lambda w, hp: problem.outer_loss(*by_name(w, hp), None),
        kind(problem.solution(hparams).values()),
        kind(hparams.values()),
        linsolve=TIGHT,
    )
    assert type(found.grad) is type(found.params) is type(kind([0, 0]))
    assert relative_error(dict(zip(truth, found.grad, strict=True)), truth) <= 1e-9


def test_single_tensors_come_back_as_tensors():
    problem = PROBLEMS["ridge"]
    hparams = problem.init_hparams()
    found = hg.hypergradient(
        lambda w, l2: problem.inner_loss({"weight": w}, {"l2": l2}, None),
        lambda w, l2: problem.outer_loss({"weight": w}, {"l2": l2}, None),
        problem.solution(hparams)["weight"],
        hparams["l2"],
        linsolve=TIGHT,
    )
    torch.testing.assert_close(found.grad, problem.hypergradient(hparams)["l2"], rtol=1e-9, atol=0)


@pytest.mark.parametrize("grad_mode", [torch.enable_grad, torch.no_grad])
def test_leaves_stay_untouched(grad_mode):
    problem = PROBLEMS["quadratic"]
    hparams = {name: value.requires_grad_() for name, value in problem.init_hparams().items()}
    params = {name: value.requires_grad_() for name, value in problem.solution(detach(hparams)).items()}
    params["a"] = nn.Parameter(params["a"])
    params["b"] = params["b"].detach()
    before = {name: (value.requires_grad, value.detach().clone()) for name, value in (params | hparams).items()}
    with grad_mode():
        found = hg.hypergradient(*losses(problem), params, hparams)
    for name, value in (params | hparams).items():
        assert value.grad is None
        assert value.requires_grad == before[name][0]
        assert torch.equal(value.detach(), before[name][1])
    assert not any(value.requires_grad for value in (found.grad | found.params).values())


def test_a_module_trained_elsewhere():
    """Softmax regression in a plain loop, against autograd through Newton's step at the solution."""
    generator = torch.Generator().manual_seed(0)
    X, X_dev = (torch.randn(40, 4, generator=generator) for _ in range(2))
    y, y_dev = (torch.randint(3, (40,), generator=generator) for _ in range(2))
    model, decay = nn.Linear(4, 3), torch.tensor([0.1, 0.3])
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)

    def inner_loss(params, decay):
        fit = nn.functional.cross_entropy(functional_call(model, params, (X,)), y)
        return fit + decay[0] * params["weight"].square().sum() + decay[1] * params["bias"].square().sum()

    def outer_loss(params, decay):
        return nn.functional.cross_entropy(functional_call(model, params, (X_dev,)), y_dev)

    params = dict(model.named_parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.8)
    for _ in range(600):
        optimizer.zero_grad()
        inner_loss(params, decay).backward()
        optimizer.step()
    written = {name: p.grad.clone() for name, p in params.items() if p.grad is not None}
    found = hg.hypergradient(inner_loss, outer_loss, params, decay, linsolve=TIGHT)
    assert float(found.stats["inner_grad_norm"]) < 1e-12
    assert all(torch.equal(p.grad, written[name]) for name, p in params.items() if p.grad is not None)

    w = torch.cat([p.detach().reshape(-1) for p in params.values()])

    def shaped(flat):
        return {"weight": flat[:12].view(3, 4), "bias": flat[12:]}

    H = torch.func.jacrev(torch.func.grad(lambda flat: inner_loss(shaped(flat), decay)))(w)

    def after_newton(hp):
        gradient = torch.func.grad(lambda flat: inner_loss(shaped(flat), hp["decay"]))(w)
        return outer_loss(shaped(w - torch.linalg.solve(H, gradient)), hp["decay"])

    truth = grad_of(after_newton, {"decay": decay})
    assert relative_error({"decay": found.grad}, truth) <= 1e-10


def test_damping_and_the_linear_solver_are_used():
    problem = PROBLEMS["quadratic"]
    hparams = problem.init_hparams()
    point = problem.solution(hparams)
    same = hg.Implicit(linsolve=hg.Dense(), inner_steps=0, damping=0.3).estimate(problem, hparams, point)
    with pytest.warns(hg.NotConvergedWarning, match="may be wrong: .* use less damping"):
        found = hg.hypergradient(*losses(problem), point, hparams, linsolve=hg.Dense(), damping=0.3)
    assert relative_error(found.grad, same.grad) == 0


def test_a_point_that_is_no_solution_is_said():
    problem = PROBLEMS["ridge"]
    with pytest.warns(hg.NotConvergedWarning, match="its norm is 0.00e"):
        hg.hypergradient(*losses(problem), problem.init_params(), problem.init_hparams())


W, L2 = {"w": torch.ones(3)}, {"l2": torch.tensor(0.5)}


def good(w, hp):
    return (w["w"] ** 2).sum() * hp["l2"].sum()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((lambda w, hp: w["w"] ** 2, good, W, L2), ValueError, r"inner_loss must .* one of shape \(3,\); take"),
        ((good, lambda w, hp: w["w"] ** 2, W, L2), ValueError, r"outer_loss must .* one of shape \(3,\); take"),
        ((good, lambda w, hp: 0.5, W, L2), TypeError, r"outer_loss .* returned 0.5 of float"),
        (
            (lambda w, hp: good(w, hp).detach(), good, W, L2),
            ValueError,
            "inner_loss depends on none of w",
        ),
        ((good, good, {}, L2), ValueError, "params must hold at least 1 tensor, but it holds 0"),
        ((good, good, W, {}), ValueError, "hparams must hold at least 1 tensor, but it holds 0"),
        ((good, good, W, "0.5"), TypeError, "hparams must be a tensor, a list or tuple .* but it is a str"),
        ((good, good, nn.Linear(1, 1).parameters(), L2), TypeError, "params must be .* but it is a generator"),
        ((good, good, W, {"l2": "0.5"}), TypeError, "'l2' is of type str"),
        ((good, good, {"w": torch.arange(3)}, L2), TypeError, "'w' is of dtype torch.int64; keep what is not"),
        ((good, good, W, {**L2, "idle": torch.tensor(1.0)}), hg.UnusedHyperparameterError, "hyperparameter 'idle'"),
        (
            (good, good, {"w": W["w"] * torch.nan}, L2),
            hg.NonFiniteError,
            "params must hold finite numbers, but .w. holds 3 of 3",
        ),
        ((lambda w, hp: -good(w, hp), good, W, L2), hg.IndefiniteError, "CG needs a positive definite matrix"),
        (
            (lambda w, hp: hp["l2"] * 2, good, W, L2),
            ValueError,
            "inner_loss depends on none of w; .*functional_call",
        ),
        ((good, lambda w, hp: hp["l2"] * 2, W, L2), ValueError, "depends on none of the parameters"),
    ],
)
def test_what_is_no_problem_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        hg.hypergradient(*arguments)


def test_an_unused_entry_of_a_list_is_named_by_its_index():
    with pytest.raises(hg.UnusedHyperparameterError, match="hyperparameter '1'"):
        hg.hypergradient(
            lambda w, hp: (w**2).sum() * hp[0], lambda w, hp: w.sum(), torch.ones(2), [torch.ones(()), torch.ones(())]
        )


def reported(call):
    """What a call returns, and the messages of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = call()
    assert all(issubclass(one.category, hg.NotConvergedWarning) for one in caught)
    return found, [str(one.message) for one in caught]


def test_each_reason_to_distrust_is_reported_once():
    problem = PROBLEMS["ridge"]
    point = problem.init_hparams()
    w = problem.solution(point)
    for linsolve, message in (
        (hg.CG(tol=0.5), "hardly solved: its relative residual is 0."),
        (hg.Nystrom(rank=1), "not solved (max_iter): its relative residual is"),
    ):
        call = partial(hg.hypergradient, *losses(problem), w, point, linsolve=linsolve, error_bar=False)
        found, messages = reported(call)
        assert len(messages) == 1
        assert message in messages[0]
        assert float(found.stats["adjoint_residual"]) > 0.1
        assert "error_estimate" not in found.stats
        assert reported(call)[1] == []


def test_an_unknown_error_is_reported_with_its_reason():
    def call():
        return hg.hypergradient(
            lambda w, hp: (w**2 - 1).square().sum() / 4 + hp * w.sum(),
            lambda w, hp: w.square().sum(),
            torch.tensor([0.3]),
            0.1,
            linsolve=hg.MINRES(),
        )

    found, messages = reported(call)
    assert math.isnan(float(found.stats["error_estimate"]))
    assert ["error of the hypergradient is unknown: " in one for one in messages] == [True]
    assert "compare with a difference of trainings" in messages[0]
    assert reported(call)[1] == []


def test_an_own_condition_is_no_reason():
    fine = hg.Hypergradient({}, {}, 0.0, error_bar=ErrorBar.unknown(NO_GRADIENT))
    assert inexactness(fine) == {}
    assert "error_status" in inexactness(hg.Hypergradient({}, {}, 0.0, error_bar=ErrorBar.unknown("far away")))


def test_numbers_come_back_as_floats_and_tensors_as_tensors():
    problem = PROBLEMS["quadratic"]
    hparams = problem.init_hparams()
    mixed = {**hparams, "penalty": hparams["penalty"].item()}
    found = hg.hypergradient(*losses(problem), problem.solution(hparams), mixed, linsolve=TIGHT)
    truth = problem.hypergradient(hparams)
    assert isinstance(found.grad["penalty"], float)
    assert found.grad["penalty"] == pytest.approx(truth["penalty"].item(), rel=1e-9)
    torch.testing.assert_close(found.grad["shift"], truth["shift"], rtol=1e-9, atol=1e-12)
    whole = hg.hypergradient(lambda w, l2: (w**2).sum() * l2 - w.sum(), lambda w, l2: w.sum(), torch.tensor([0.5]), 1)
    assert whole.grad == pytest.approx(-0.5)
