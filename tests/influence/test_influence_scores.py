"""Scores of each dev example: against the jackknife, differences of refits, and each other."""

from copy import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.influence.examples import influences
from hypergrad.training.training import Training


@pytest.fixture(autouse=True)
def in_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def network(**settings) -> hg.Supervised:
    """A network with two layers on 60 examples in 3 features and 2 classes, with weights of the examples."""
    torch.manual_seed(0)
    X = torch.randn(80, 3)
    y = (X[:, 0] + 0.5 * torch.randn(80) > 0).long()
    given = {
        "model": nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)),
        "loss": cross_entropy,
        "hyperparameters": {"l2": hg.L2(init=0.02), "omega": hg.ExampleWeights(init=0.7)},
        "batch_size": 20,
    }
    return hg.Supervised(train=(X[:60], y[:60]), dev=(X[60:], y[60:]), **given | settings)


def whole(problem: hg.Supervised) -> hg.Supervised:
    other = copy(problem)
    other.batch_size = None
    return other


def fitted(problem: hg.Supervised, steps: int = 50):
    start = problem.init_params()
    return Training(solver=hg.Newton(), steps=steps, tol=1e-12).run(problem, problem.init_hparams(), start).params


@pytest.fixture(scope="module")
def at_the_optimum():
    torch.set_default_dtype(torch.float64)
    problem = network()
    return problem, fitted(whole(problem))


BLOCKS = {"dev_block": 7, "train_block": 11}
EXACT = {
    "default": hg.ImplicitInfluence(),
    "dense": hg.ImplicitInfluence(linsolve=hg.Dense(), **BLOCKS),
    "cg": hg.ImplicitInfluence(linsolve=hg.CG(tol=1e-12), **BLOCKS),
}


@pytest.mark.parametrize("method", EXACT.values(), ids=EXACT)
def test_their_mean_is_the_influence_on_the_dev_loss(method, at_the_optimum):
    problem, w = at_the_optimum
    hparams = problem.init_hparams()
    each = hg.influence_scores(problem, w, hparams, method=method)
    mean = hg.influence_scores(problem, w, hparams, method=method, mean=True)
    known = influences(problem, w, hparams).change
    assert each.shape == (20, 60)
    torch.testing.assert_close(mean, known, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(each.mean(0), known, rtol=1e-8, atol=1e-12)


def test_a_score_is_the_slope_of_refits(at_the_optimum):
    problem, w = at_the_optimum
    scores = hg.influence_scores(problem, w, problem.init_hparams(), dev=torch.tensor([3, 11]))
    weighted = problem.weighted("more")
    hparams = weighted.init_hparams()

    def losses(weight: float, example: int) -> torch.Tensor:
        moved = hparams | {"more": hparams["more"].index_fill(0, torch.tensor(example), weight)}
        params = Training(solver=hg.Newton(), steps=50, tol=1e-12).run(weighted, moved, w).params
        outputs = problem.model(params, problem.X_dev, None)
        return cross_entropy(outputs, problem.y_dev, reduction="none")[[3, 11]]

    for example in (0, 7, 30):
        slope = (losses(1 + 1e-4, example) - losses(1 - 1e-4, example)) / 2e-4
        torch.testing.assert_close(scores[:, example], -slope, rtol=1e-5, atol=1e-9)


LOSSES = {
    "class weights": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0], dtype=torch.float64)),
    "sum": nn.CrossEntropyLoss(reduction="sum", label_smoothing=0.1),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_any_denominator_is_that_of_all_examples(loss):
    problem = network(loss=loss, model=nn.Linear(3, 2))
    w, hparams = fitted(whole(problem)), problem.init_hparams()
    known = influences(problem, w, hparams)
    found = hg.influence_scores(problem, w, hparams, method=EXACT["dense"], mean=True)
    torch.testing.assert_close(found, known.change, rtol=1e-8, atol=1e-12)


def test_what_depends_on_other_examples_or_is_out_of_range_is_refused():
    problem = network(model=nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), batch_size=None)
    w, hparams = problem.init_params(), problem.init_hparams()
    with pytest.raises(ValueError, match="the layer '1' normalises by the statistics of its batch. Call eval"):
        hg.influence_scores(problem, w, hparams)
    plain = network()
    with pytest.raises(ValueError, match="integers from 0 to 19"):
        hg.influence_scores(plain, plain.init_params(), hparams, dev=torch.tensor([20]))
    with pytest.raises(ValueError, match=r"leave out dev"):
        hg.influence_scores(plain, plain.init_params(), hparams, dev=torch.tensor([2]), mean=True)
    with pytest.raises(TypeError, match="needs a Supervised problem"):
        hg.influence_scores(hg.Ridge(hg.diabetes(seed=1)), {}, {})
