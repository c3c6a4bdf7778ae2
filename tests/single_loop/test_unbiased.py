"""The directions on batches: their mean over an epoch is that of all data, and at the solution the hypergradient."""

from functools import partial
from typing import Any

import pytest
import torch
from finite_sum import DEV, TRAIN, FiniteSum
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.core.autodiff import flatten, unflatten
from hypergrad.single_loop.joint import Directions, JointMethod, sampled
from hypergrad.single_loop.terms import Terms

NEAR = {"rtol": 0, "atol": 1e-12}
SGD = hg.GradientDescent(lr=0.1)


def supervised(**settings: Any) -> hg.Supervised:
    """A network whose λ are penalties and a weight for each example, each of which one batch alone sees."""
    torch.manual_seed(0)
    X, y = torch.randn(40, 3), torch.arange(40) % 3
    usual: dict[str, Any] = {"batch_size": 6, "dev_sample": 5} | settings
    return hg.Supervised(
        model=nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double(),
        loss=cross_entropy,
        train=(X[:23], y[:23]),
        dev=(X[23:], y[23:]),
        hyperparameters={"l2": hg.L2(init=0.3, per="tensor"), "weights": hg.ExampleWeights()},
        **usual,
    )


def whole_sum() -> FiniteSum:
    return FiniteSum(batch_size=None, dev_sample=None)


def whole_supervised() -> hg.Supervised:
    return supervised(batch_size=None, dev_sample=None)


FIXED = {
    "sum": (FiniteSum, whole_sum),
    "sum-one-batch": (partial(FiniteSum, batch_size=TRAIN + 3, dev_sample=DEV), whole_sum),
    "supervised": (partial(supervised, fixed_batches=True), whole_supervised),
    "micro": (partial(supervised, fixed_batches=True, micro_batch=4, dev_batch_size=3), whole_supervised),
    "streamed": (partial(supervised, fixed_batches=True, stream=True), whole_supervised),
}
PROBLEMS = FIXED | {
    "sum-not-fixed": (partial(FiniteSum, fixed=False), whole_sum),
    "supervised-not-fixed": (supervised, whole_supervised),
}
"""Each with the same problem on all data at once."""
ON_ALL = pytest.mark.parametrize(("problem", "whole"), PROBLEMS.values(), ids=PROBLEMS)
ON_FIXED = pytest.mark.parametrize(("problem", "whole"), FIXED.values(), ids=FIXED)


def point(problem: Any) -> tuple[Any, Any, Any]:
    """Some w, v and λ."""
    generator = torch.Generator().manual_seed(1)
    hparams = problem.init_hparams()
    w = flatten(problem.init_params())
    w, v = (torch.randn(w.shape, generator=generator, dtype=w.dtype) for _ in range(2))
    return unflatten(w, problem.init_params()), v, hparams


def pairs(problem: Any, epoch: int = 2) -> list[Terms]:
    """The terms of each pair of an inner and an outer batch of an epoch."""
    K, L = problem.inner_place(0).num_batches, problem.outer_place(0).num_batches
    return [Terms(problem, epoch * K + j, epoch * L + k) for j in range(K) for k in range(L)]


def flats(D: Directions) -> torch.Tensor:
    return torch.cat([D.w, D.v, D.hp])


@ON_ALL
def test_the_mean_over_an_epoch_is_that_of_all_data(problem, whole):
    problem, whole = problem(), whole()
    w, v, hparams = point(problem)
    mean = torch.stack([flats(sampled(terms, w, hparams, v)) for terms in pairs(problem)]).mean(0)
    torch.testing.assert_close(mean, flats(sampled(Terms(whole, 0, 0), w, hparams, v)), **NEAR)


def adjoint(problem: FiniteSum, hparams: Any, rows: Any, dev_rows: Any) -> torch.Tensor:
    """−H⁻¹ ∇_w f at w*, on some examples."""
    w = flatten(problem.solution(hparams))
    n = len(w)
    df_dw = problem.directions_by_hand(w, w, hparams, rows, dev_rows)[1][:n]
    return -torch.linalg.solve(problem.hessian(hparams, rows), df_dw)


def test_at_the_solution_the_mean_is_the_hypergradient():
    problem = FiniteSum()
    hparams = problem.init_hparams()
    w, v = problem.solution(hparams), adjoint(problem, hparams, None, None)
    mean = torch.stack([flats(sampled(terms, w, hparams, v)) for terms in pairs(problem)]).mean(0)
    torch.testing.assert_close(mean, torch.cat([torch.zeros(20), flatten(problem.hypergradient(hparams))]), **NEAR)


def test_solving_the_system_of_one_batch_is_biased():
    problem = FiniteSum()
    hparams = problem.init_hparams()
    w, wanted = problem.solution(hparams), flatten(problem.hypergradient(hparams))
    each = []
    for terms in pairs(problem):
        v = adjoint(problem, hparams, terms.inner_batch(), terms.outer_batch())
        each.append(sampled(terms, w, hparams, v).hp)
    bias = torch.stack(each).mean(0) - wanted
    assert torch.linalg.vector_norm(bias) > 0.05 * torch.linalg.vector_norm(wanted)


def begun(method: JointMethod, problem: Any, v: Any) -> tuple[Any, Any, Any]:
    """A memory of a method, at a point."""
    w, _, hparams = point(problem)
    return w, hparams, method.begin(Terms(problem, 0, 0), w, hparams) | {"v": v}


def any_table(table: Any, generator: torch.Generator) -> Any:
    rows = tuple(torch.randn(row.shape, generator=generator) for row in table["rows"])
    return {"rows": rows, "average": sum(rows) / len(rows)}


@ON_FIXED
def test_with_any_table_the_mean_of_saba_is_that_of_all_data(problem, whole):
    problem, whole, generator = problem(), whole(), torch.Generator().manual_seed(2)
    _, v, _ = point(problem)
    w, hparams, memory = begun(hg.SABA(solver=SGD), problem, v)
    memory |= {name: any_table(memory[name], generator) for name in ("inner", "outer")}
    each = [hg.SABA(solver=SGD).directions(terms, w, hparams, memory)[0] for terms in pairs(problem)]
    mean = torch.stack([flats(D) for D in each]).mean(0)
    torch.testing.assert_close(mean, flats(sampled(Terms(whole, 0, 0), w, hparams, v)), **NEAR)


@ON_FIXED
def test_once_its_table_is_filled_saba_has_no_variance(problem, whole):
    problem, whole, method = problem(), whole(), hg.SABA(solver=SGD)
    _, v, _ = point(problem)
    w, hparams, memory = begun(method, problem, v)
    for terms in pairs(problem):
        memory = {"v": v, **method.directions(terms, w, hparams, memory)[1]}
    wanted = flats(sampled(Terms(whole, 0, 0), w, hparams, v))
    for terms in pairs(problem, epoch=5):
        torch.testing.assert_close(flats(method.directions(terms, w, hparams, memory)[0]), wanted, **NEAR)


@ON_ALL
def test_the_mean_of_srba_is_that_of_all_data(problem, whole):
    problem, whole, method = problem(), whole(), hg.SRBA(solver=SGD)
    w, v, hparams = point(problem)
    memory = {"v": v, **method.begin_directions(Terms(problem, 0, 0), w, hparams)}
    first, memory = method.directions(Terms(problem, 1, 1), w, hparams, memory)
    torch.testing.assert_close(flats(first), flats(sampled(Terms(whole, 0, 0), w, hparams, v)), **NEAR)
    moved, other = {name: x + 0.1 for name, x in w.items()}, {name: x + 0.05 for name, x in hparams.items()}
    memory |= {"v": v - 0.2}
    each = [method.directions(terms, moved, other, memory)[0] for terms in pairs(problem)]
    mean = torch.stack([flats(D) for D in each]).mean(0)
    torch.testing.assert_close(mean, flats(sampled(Terms(whole, 0, 0), moved, other, v - 0.2)), **NEAR)
