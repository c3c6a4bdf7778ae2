"""Scores of each dev example: against the jackknife, differences of refits, and each other."""

from copy import copy
from typing import Any

import pytest
import torch
from layered_problems import NEEDS_CURVLINOPS
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

import hypergrad as hg
from hypergrad.influence.examples import influences
from hypergrad.training.training import Training


def network(**settings) -> hg.Supervised:
    """A network with two layers on 60 examples in 3 features and 2 classes, with weights of the examples."""
    torch.manual_seed(0)
    X = torch.randn(80, 3)
    y = (X[:, 0] + 0.5 * torch.randn(80) > 0).long()
    given: dict[str, Any] = {
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


BLOCKS: Any = {"dev_block": 7, "train_block": 11}
EXACT = {
    "default": hg.ImplicitInfluence(),
    "dense": hg.ImplicitInfluence(linsolve=hg.Dense(), **BLOCKS),
    "cg": hg.ImplicitInfluence(linsolve=hg.CG(tol=1e-12), **BLOCKS),
    "all of Arnoldi's pairs": hg.ArnoldiInfluence(rank=26, iterations=26, **BLOCKS),
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


def test_arnoldi_approaches_the_exact_scores_with_its_rank(at_the_optimum):
    problem, w = at_the_optimum
    hparams = problem.init_hparams()
    exact = hg.influence_scores(problem, w, hparams, method=EXACT["dense"])
    errors = [
        (hg.influence_scores(problem, w, hparams, method=hg.ArnoldiInfluence(rank=r)) - exact).norm() / exact.norm()
        for r in (2, 6, 12)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02


def test_damping_is_added_to_the_hessian(at_the_optimum):
    problem, w = at_the_optimum
    hparams = problem.init_hparams()
    settings: Any = {"damping": 0.3, **BLOCKS}
    dense = hg.influence_scores(problem, w, hparams, method=hg.ImplicitInfluence(linsolve=hg.Dense(), **settings))
    pairs = hg.influence_scores(problem, w, hparams, method=hg.ArnoldiInfluence(rank=26, iterations=26, **settings))
    torch.testing.assert_close(pairs, dense, rtol=1e-8, atol=1e-12)
    more = hg.L2(init=0.02 + 0.15)  # its Hessian is twice the coefficient
    ridge = network(hyperparameters={"l2": more, "omega": hg.ExampleWeights(init=0.7)})
    known = hg.influence_scores(ridge, w, ridge.init_hparams(), method=EXACT["dense"])
    torch.testing.assert_close(dense, known, rtol=1e-8, atol=1e-12)


def test_groups_are_sums_over_their_examples(at_the_optimum):
    problem, w = at_the_optimum
    scores = hg.influence_scores(problem, w, problem.init_hparams(), dev=torch.arange(5))
    groups = torch.arange(60) % 7 + 3
    names, sums = hg.group_scores(scores, groups)
    assert names.tolist() == list(range(3, 10))
    for name, column in zip(names, sums.T, strict=True):
        torch.testing.assert_close(column, scores[:, groups == name].sum(1))
    torch.testing.assert_close(hg.group_scores(scores[2], groups)[1], sums[2])
    with pytest.raises(ValueError, match=r"group of each of the 60 train examples, but has shape \(59,\)"):
        hg.group_scores(scores, groups[:59])
    with pytest.raises(TypeError, match="must be integers"):
        hg.group_scores(scores, groups.double())


PARTS = {"train": "X", "dev": "X_dev"}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "method",
    [hg.ImplicitInfluence(linsolve=hg.CG(), damping=1.0, **BLOCKS), hg.ArnoldiInfluence()],
    ids=["cg", "arnoldi"],
)
def test_an_example_that_is_not_finite_is_named(part, method):
    problem = network()
    getattr(problem, PARTS[part])[13, 1] = torch.inf
    with pytest.raises(hg.NonFiniteError, match=f"The loss of {part} example 13, or its gradient, is NaN or infinite"):
        hg.influence_scores(problem, problem.init_params(), problem.init_hparams(), method=method)


@NEEDS_CURVLINOPS
def test_ekfac_is_nearer_to_the_exact_scores_than_kfac_and_the_identity():
    """By the correlation with the exact scores, on softmax regression: 0.959, 0.951 and 0.666."""
    torch.manual_seed(1)
    X = torch.randn(300, 6) * torch.tensor([4.0, 2.0, 1.0, 0.5, 0.3, 0.1]) + 0.5
    y = (0.3 * X @ torch.randn(6, 3) + torch.randn(300, 3)).argmax(1)
    problem = hg.Supervised(
        model=nn.Linear(6, 3),
        loss=cross_entropy,
        train=(X[:240], y[:240]),
        dev=(X[240:], y[240:]),
        hyperparameters={"l2": hg.L2(init=0.01)},
    )
    w, hparams = fitted(problem), problem.init_hparams()
    exact = hg.influence_scores(problem, w, hparams, method=EXACT["dense"])

    def correlation(method: hg.InfluenceMethod) -> float:
        found = hg.influence_scores(problem, w, hparams, method=method)
        return torch.corrcoef(torch.stack([found.flatten(), exact.flatten()]))[0, 1].item()

    identity = hg.ImplicitInfluence(linsolve=hg.Dense(), damping=1e4)
    kfac, ekfac = (hg.ImplicitInfluence(linsolve=solver(damping=0.0), **BLOCKS) for solver in (hg.KFAC, hg.EKFAC))
    found = [correlation(method) for method in (identity, kfac, ekfac)]
    assert found[0] < 0.7
    assert 0.9 < found[1] < found[2]
    assert found[2] > 0.95


class Largest(TorchDispatchMode):
    """The entries of the largest tensor that is made within the context, but for the scores of all of train."""

    def __init__(self, num: int) -> None:
        super().__init__()
        self.num, self.entries = num, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.shape[-1:] != (self.num,) and made._base is None:
            self.entries = max(self.entries, made.numel())
        return made


def test_the_memory_does_not_grow_with_train():
    torch.manual_seed(0)
    X, y = torch.randn(101, 3), torch.randint(2, (101,))
    sizes = {}
    for num in (48, 96):
        problem = hg.Supervised(
            model=nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)),
            loss=cross_entropy,
            train=(X[:num], y[:num]),
            dev=(X[96:], y[96:]),
            hyperparameters={"l2": hg.L2(init=0.02)},
        )
        method = hg.ImplicitInfluence(linsolve=hg.CG(tol=0.1), damping=1.0, dev_block=5, train_block=16)
        with Largest(num) as largest:
            hg.influence_scores(problem, problem.init_params(), problem.init_hparams(), method=method)
        sizes[num] = largest.entries
    assert sizes[96] == sizes[48] < 16 * 5 * 26


@NEEDS_CURVLINOPS
@pytest.mark.parametrize("tied", [False, True], ids=["by layers", "by derivatives"])
def test_layers_alone_are_what_freezing_the_others_gives(tied):
    def scores(frozen: bool, layers_only: bool) -> torch.Tensor:
        torch.manual_seed(1)
        norm = nn.LayerNorm(4)
        model = nn.Sequential(nn.Linear(3, 4), norm, nn.Tanh(), norm if tied else nn.Tanh(), nn.Linear(4, 2))
        norm.requires_grad_(not frozen)
        problem = network(model=model)
        method = hg.ImplicitInfluence(linsolve=hg.EKFAC(), layers_only=layers_only, **BLOCKS)
        return hg.influence_scores(problem, problem.init_params(), problem.init_hparams(), method=method)

    with pytest.warns(UserWarning, match="EKFAC leaves out 8 of 34 parameters, in 2 tensors .* layers_only=False"):
        layers = scores(frozen=False, layers_only=True)
    torch.testing.assert_close(layers, scores(frozen=True, layers_only=False), rtol=0, atol=1e-14)
    assert not torch.allclose(layers, scores(frozen=False, layers_only=False), rtol=0.1)


@NEEDS_CURVLINOPS
def test_a_loss_or_a_layer_without_factors_is_refused_with_a_remedy():
    method = hg.ImplicitInfluence(linsolve=hg.EKFAC())
    target = torch.randn(80, generator=torch.Generator().manual_seed(0))
    X = torch.randn(80, 3, generator=torch.Generator().manual_seed(1))
    data: Any = {"train": (X[:60], target[:60]), "dev": (X[60:], target[60:]), "hyperparameters": {}}
    huber = hg.Supervised(model=nn.Linear(3, 1), loss=nn.HuberLoss(), **data)
    with pytest.raises(
        ValueError, match="EKFAC cannot serve this problem: its loss, HuberLoss, is none of .* Use hg.CG"
    ):
        hg.influence_scores(huber, huber.init_params(), {}, method=method)
    bilinear = network(model=nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 2, 3), nn.Flatten()))
    with pytest.raises(ValueError, match="no linear or convolutional layer .* Use hg.CG"):
        hg.influence_scores(bilinear, bilinear.init_params(), bilinear.init_hparams(), method=method)


def test_systems_that_are_not_solved_are_warned_of(at_the_optimum):
    problem, w = at_the_optimum
    method = hg.ImplicitInfluence(linsolve=hg.CG(max_iter=2))
    with pytest.warns(hg.NotConvergedWarning, match=r"CG left the systems of 1 gradients .* \(max_iter\)"):
        hg.influence_scores(problem, w, problem.init_hparams(), method=method, mean=True)


def test_negative_curvature_is_an_error_that_says_how_to_damp():
    problem = network()
    w = {name: 3 * p for name, p in problem.init_params().items()}
    with pytest.raises(hg.IndefiniteError, match="add damping larger than") as met:
        hg.influence_scores(problem, w, problem.init_hparams(), method=hg.ImplicitInfluence(linsolve=hg.CG()))
    assert "influence.damping=…" in met.value.__notes__[0]
    method = hg.ImplicitInfluence(linsolve=hg.CG(), product=hg.GaussNewton())
    assert hg.influence_scores(problem, w, problem.init_hparams(), method=method, mean=True).isfinite().all()
