"""A training step in parts gives the losses, hypergradients and reports of the whole step."""

from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, huber_loss, mse_loss

import hypergrad as hg
from benchmarks.peak import peak_bytes
from hypergrad.core.autodiff import flatten, leaves
from hypergrad.core.cost import Spent
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.parts import accumulated_outer_loss

N, DEV = 13, 7  # in parts of at most 5 and 3: the last ones are smaller
CLASSES = torch.tensor([0, 1, 2, 1, 0, 2, 2, 1, 0, 0, 1, 2, 1])
IGNORED = CLASSES.clone()
IGNORED[[0, 4, 5, 6, 7, 8, 9]] = -100  # none is left in the second part
WEIGHT = torch.tensor([0.5, 2.0, 1.3], dtype=torch.float64)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sum_of_squares(outputs, y):
    return (outputs - y).square().sum()


def mlp(width):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, width)).double()


l2 = {"l2": hg.L2(init=0.3)}
each = {"each": hg.ExampleWeights(), **l2}
SETTINGS = {
    "mean": (mse_loss, draw(N), l2, 1),
    "own sum": (sum_of_squares, draw(N), l2, 1),
    "sum": (partial(mse_loss, reduction="sum"), draw(N), l2, 1),
    "sum, example weights": (partial(huber_loss, reduction="sum"), draw(N), each, 1),
    "classes": (cross_entropy, CLASSES, each, 3),
    "class weights": (partial(cross_entropy, weight=WEIGHT), CLASSES, {"classes": hg.ClassWeights(), **l2}, 3),
    "ignored": (partial(cross_entropy, weight=WEIGHT), IGNORED, l2, 3),
    "ignored, smoothed, weighted": (cross_entropy, IGNORED, {"smooth": hg.LabelSmoothing(init=0.1), **each}, 3),
}


@cache
def make(setting, micro_batch=None, batch_size=None, model=None) -> Any:
    loss, y, effects, width = SETTINGS[setting]
    y_dev = y[:DEV] if y.is_floating_point() else CLASSES[:DEV]
    return hg.Supervised(
        model=model or mlp(width),
        loss=loss,
        train=(draw(N, 4, seed=1), y),
        dev=(draw(DEV, 4, seed=2), y_dev),
        hyperparameters=effects,
        batch_size=batch_size,
        micro_batch=micro_batch,
    )


solver = hg.Momentum(lr=0.02, momentum=0.5)
unrolled = partial(hg.Unrolled, solver=solver, inner_steps=6)
implicit = partial(hg.Implicit, solver=solver, inner_steps=6, damping=20.0)
ESTIMATORS = {
    "graph": unrolled(tape=hg.Graph()),
    "store": unrolled(tape=hg.Store()),
    "checkpoint": unrolled(tape=hg.Checkpoint(slots=2)),
    "reversible": unrolled(tape=hg.Reversible()),
    "adam": hg.Unrolled(solver=hg.Adam(lr=0.02), inner_steps=6),
    "forward": hg.Forward(solver=solver, inner_steps=6),
    "cg": implicit(linsolve=hg.CG(tol=1e-13)),
    "dense": implicit(linsolve=hg.Dense()),
    "neumann": implicit(linsolve=hg.Neumann(num_terms=5, scale=0.02)),
    "nystrom": implicit(linsolve=hg.Nystrom(rank=3)),
    "differences": implicit(linsolve=hg.CG(tol=1e-8), product=hg.CentredDifferences(), error_bar=False),
    "gauss-newton": implicit(linsolve=hg.Dense(), product=hg.GaussNewton(), error_bar=False),
    "forward over reverse": implicit(linsolve=hg.Dense(), product=hg.ForwardOverReverse()),
    "traced": implicit(linsolve=hg.CG(tol=1e-13), product=hg.Traced()),
    "newton": hg.Implicit(solver=hg.Newton(), inner_steps=3, damping=20.0, linsolve=hg.Dense()),
}


def relative(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


ON_ALL = ("store", "cg")
"""Estimators that see every setting; the others see one loss with, and one without a denominator of its own."""
CASES = [
    (name, setting)
    for name in ESTIMATORS
    for setting in (SETTINGS if name in ON_ALL else ("sum, example weights", "ignored, smoothed, weighted"))
]


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_hypergradients_are_those_of_the_whole_batch(name, setting):
    estimator, whole, parted = ESTIMATORS[name], make(setting), make(setting, micro_batch=5)
    assert len(parted.inner_parts(None)) == 3
    wanted, found = (
        estimator.estimate(problem, problem.init_hparams(), problem.init_params()) for problem in (whole, parted)
    )
    # Differences divide the rounding of two gradients by a small step.
    tol = 1e-7 if isinstance(getattr(estimator, "product", None), hg.CentredDifferences) else 1e-10
    assert relative(flatten(found.grad), flatten(wanted.grad)) < tol
    assert found.stats["inner_loss"] == pytest.approx(wanted.stats["inner_loss"], rel=1e-12)
    if isinstance(getattr(estimator, "product", None), hg.Traced):
        assert "computed in parts" in found.stats["adjoint_remark"]
    else:
        assert found.num_matvecs == wanted.num_matvecs
    if "error_estimate" in wanted.stats:
        assert found.stats["error_estimate"] == pytest.approx(wanted.stats["error_estimate"], rel=1e-4, nan_ok=True)


def test_mini_batches_are_divided_and_folds_too():
    whole, parted = make("classes", None, 7), make("classes", 3, 7)
    assert [len(part.rows) for part, _ in parted.inner_parts(parted.inner_batch(0))] == [3, 2, 2]
    assert torch.equal(
        torch.cat([part.rows for part, _ in parted.inner_parts(parted.inner_batch(0))]), whole.inner_batch(0).rows
    )
    for pair in ((whole, parted), (hg.k_fold(make("class weights"), 2), hg.k_fold(make("class weights", 4), 2))):
        wanted, found = (ESTIMATORS["store"].estimate(p, p.init_hparams(), p.init_params()) for p in pair)
        assert relative(flatten(found.grad), flatten(wanted.grad)) < 1e-10


def test_a_whole_gradient_counts_as_one_and_a_walk_back_as_one_more():
    one, spent = make("mean", 5), Spent()
    w = leaves(one.init_params())
    with spent.counting():
        _, grad = Oracle(one, one.init_hparams())(w)
    assert spent.gradients == 1
    with spent.counting():
        torch.autograd.grad(flatten(grad).sum(), tuple(w.values()))
    assert spent.gradients == 2


def test_statistics_of_the_batch_are_refused_by_the_name_of_the_layer():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1)).double()
    with pytest.raises(ValueError, match="micro_batch = 5 .* the layer '1', a BatchNorm1d, .* use .*GroupNorm|eval"):
        make("mean", 5, model=model)
    model[1].eval()  # running averages are constants
    make("mean", 5, model=model)

    class Centred(nn.Module):
        def forward(self, x):
            return x - x.mean(0)

    with pytest.raises(ValueError, match="do not make the loss of all"):
        make("mean", 5, model=nn.Sequential(nn.Linear(4, 1), Centred()).double())


def test_a_loss_of_pairs_is_refused():
    def pairs(z, y):
        return (z[:, None] - z[None]).square().mean() + (z - y).square().mean()

    data: Any = {"train": (draw(N, 4), draw(N)), "dev": (draw(N, 4, seed=1), draw(N, seed=1))}
    with pytest.raises(ValueError, match="micro_batch = 3 needs a loss that is a mean or a sum over examples"):
        hg.Supervised(model=mlp(1), loss=pairs, **data, hyperparameters=l2, micro_batch=3)


def test_dropout_draws_anew_in_each_part_and_the_same_at_each_call():
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(), nn.Linear(64, 1)).double()
    one = make("mean", 5, model=model)
    batch = one.inner_batch(3)
    draws = [part.draw for part, _ in one.inner_parts(batch)]
    assert len({*draws, batch.draw}) == 4
    assert draws == [part.draw for part, _ in one.inner_parts(one.inner_batch(3))]
    oracle, w = Oracle(one, one.init_hparams(), batch), one.init_params()
    assert torch.equal(flatten(oracle(w)[1]), flatten(oracle(leaves(w))[1]))


class Own(hg.InnerProblem):
    """½ ‖w − λ c‖² over the rows of c, in parts that its batches name."""

    shares = (0.25, 0.75)

    def __init__(self):
        super().__init__()
        self.c = draw(4, 3)

    def init_params(self):
        return {"w": torch.zeros(3)}

    def hyperparameters(self):
        return {"scale": hg.Hyperparameter(0.7)}

    def inner_loss(self, params, hparams, batch):
        c = self.c if batch is None else batch
        return (params["w"] - hparams["scale"] * c).square().sum(1).mean() / 2

    def outer_loss(self, params, hparams, batch):
        return (params["w"] - 1).square().sum()


class Parted(Own):
    def inner_parts(self, batch):
        return list(zip((self.c[:1], self.c[1:]), self.shares, strict=True))


def test_a_problem_of_ones_own_says_what_its_parts_are():
    estimator = hg.Implicit(solver=hg.GradientDescent(lr=0.5), inner_steps=3, linsolve=hg.Dense())
    wanted, found = (estimator.estimate(p, p.init_hparams(), p.init_params()) for p in (Own(), Parted()))
    assert relative(found.grad["scale"], wanted.grad["scale"]) < 1e-12
    wrong = Parted()
    wrong.shares = (0.5, 0.75)
    with pytest.raises(ValueError, match="Parted.inner_parts must return parts whose shares .* 2 with the sum 1.25"):
        estimator.estimate(wrong, wrong.init_hparams(), wrong.init_params())

    class Rooted(Parted):
        def optimality(self, params, hparams, batch):
            return {"w": params["w"]}

    with pytest.raises(ValueError, match="has an optimality condition of its own"):
        estimator.estimate(Rooted(), Own().init_hparams(), Own().init_params())


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_dev_loss_in_batches_is_exact(setting):
    loss, y, effects, width = SETTINGS[setting]
    problems: Any = [
        hg.Supervised(
            model=mlp(width),
            loss=loss,
            train=(draw(N, 4, seed=1), y),
            dev=(draw(N, 4, seed=2), y),
            test=(draw(N, 4, seed=3), y),
            hyperparameters={"scale": hg.InputScale(), **effects},
            dev_batch_size=size,
        )
        for size in (None, 5)
    ]
    whole, batched = problems
    assert [share for _, share in batched.outer_parts(None)] == [5 / N, 4 / N, 4 / N]
    for estimator in (ESTIMATORS["store"], ESTIMATORS["cg"]):
        wanted, found = (estimator.estimate(p, p.init_hparams(), p.init_params()) for p in (whole, batched))
        assert relative(flatten(found.grad), flatten(wanted.grad)) < 1e-10
        assert found.outer_loss == pytest.approx(wanted.outer_loss, rel=1e-12)
    metrics = [
        {k: float(x) for k, x in p.metrics(wanted.params, whole.init_hparams()).items()} for p in (whole, batched)
    ]
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-12)
    each = [p.test_losses(wanted.params, whole.init_hparams()) for p in (whole, batched)]
    assert each[0] is each[1] is None or relative(each[1], each[0]) < 1e-12


def images(train, dev, **settings: Any):
    torch.manual_seed(0)
    return hg.Supervised(
        model=nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 3)).double(),
        loss=cross_entropy,
        train=(draw(train, 16), torch.arange(train) % 3),
        dev=(draw(dev, 16, seed=1), torch.arange(dev) % 3),
        hyperparameters=l2,
        **settings,
    )


def test_the_peak_memory_is_that_of_one_part():
    def dev(problem):
        w = leaves(problem.init_params())
        loss = accumulated_outer_loss(problem, w, problem.init_hparams(), None)
        return torch.autograd.grad(loss, tuple(w.values()))

    def products(problem):
        here = hg.Reverse().linearize(Oracle(problem, problem.init_hparams()), problem.init_params())
        v = torch.ones_like(here.phi)
        return here.product(v), here.mixed(v)

    for work, parts, whole in (
        (dev, images(9, 4000, dev_batch_size=200), images(9, 4000)),
        (products, images(4000, 9, micro_batch=200), images(4000, 9)),
    ):
        one = peak_bytes(lambda work=work: work(images(200, 200)))
        assert peak_bytes(lambda work=work, parts=parts: work(parts)) < 1.2 * one
        assert peak_bytes(lambda work=work, whole=whole: work(whole)) > 5 * one
