"""Cross-validation: the mean of what each fold gives alone, with every estimator."""

from functools import partial

import pytest
import torch
from scipy.sparse import csr_array
from tables import relative_error, synthetic
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.callback.state_file import read
from hypergrad.callback.state_saver import StateSaver
from hypergrad.core.autodiff import central_difference
from hypergrad.training.training import Training

K = 3
ADAM = partial(torch.optim.Adam, lr=0.1)


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def classes(seed, n, k=3):
    return drawn(seed, n, 5), torch.randint(0, k, (n,), generator=torch.Generator().manual_seed(seed))


def regression():
    return hg.k_fold(hg.Ridge(synthetic(0), l2=0.3, per_feature=True), K)


def supervised(*layers: nn.Module, **settings):
    torch.manual_seed(0)
    usual = {
        "model": nn.Sequential(*(layers or (nn.Linear(5, 3),))).double(),
        "loss": cross_entropy,
        "train": classes(1, 20),
        "dev": classes(2, 9),
        "test": classes(3, 12),
        "hyperparameters": {"l2": hg.L2(init=0.05, per="tensor"), "weights": hg.ExampleWeights(init=0.8)},
    }
    return hg.Supervised(**usual | settings)


def noisy_batches():
    effects = {
        "weights": hg.ExampleWeights(init=0.8),
        "init": hg.InitScale(init=1.2),
        "smooth": hg.LabelSmoothing(),
        "scale": hg.InputScale(init=1.1),
        "rate": hg.Hyperparameter(0.1, constraint=hg.positive, shape=(1, 4)),
    }
    torch.manual_seed(0)
    layers = nn.Linear(5, 4), nn.Tanh(), nn.Dropout(0.3), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 3)
    return supervised(*layers, hyperparameters=effects, batch_size=7)


EXACT = hg.Implicit(solver=hg.LBFGS(), linsolve=hg.CG(tol=1e-12, max_iter=500), inner_tol=1e-12, error_bar=False)
IMPLICIT = {
    "cg": EXACT,
    "neumann": hg.Implicit(
        solver=hg.LBFGS(), linsolve=hg.Neumann(num_terms=4000, scale=0.18, tol=1e-12), inner_tol=1e-12, error_bar=False
    ),
    "dense": hg.Implicit(solver=hg.Newton(), linsolve=hg.Dense(), inner_tol=1e-12, error_bar=False),
    "auto": hg.Implicit(solver=hg.LBFGS(), linsolve=hg.Auto(), inner_tol=1e-12),
    "differences": hg.Implicit(
        solver=hg.LBFGS(), linsolve=hg.CG(tol=1e-9), product=hg.CentredDifferences(), inner_tol=1e-12, error_bar=False
    ),
    "gauss-newton": hg.Implicit(
        solver=hg.LBFGS(), linsolve=hg.CG(tol=1e-12), product=hg.GaussNewton(), inner_tol=1e-12, error_bar=False
    ),
    "traced": hg.Implicit(
        solver=hg.LBFGS(), linsolve=hg.CG(tol=1e-12), product=hg.Traced(), inner_tol=1e-12, error_bar=False
    ),
}


CLOSED_FORM = [name for name in IMPLICIT if name != "gauss-newton"]  # Ridge has no `outputs`


@pytest.mark.parametrize("estimator", [IMPLICIT[name] for name in CLOSED_FORM], ids=CLOSED_FORM)
def test_implicit_estimators_give_the_mean_of_the_closed_forms(estimator):
    problem = regression()
    at = problem.init_hparams()
    truth = {"l2": torch.stack([fold.hypergradient(at)["l2"] for fold in problem.folds]).mean(0)}
    found = estimator.estimate(problem, at, problem.init_params())
    assert relative_error(found.grad, truth) <= (1e-6 if estimator is IMPLICIT["differences"] else 1e-8)
    assert found.outer_loss == pytest.approx(problem.outer_loss(problem.solution(at), at, None).item(), rel=1e-9)


@pytest.mark.parametrize("estimator", IMPLICIT.values(), ids=IMPLICIT)
def test_implicit_estimators_agree_with_differences_through_retraining(estimator):
    problem = hg.k_fold(supervised(), K)
    at = problem.init_hparams()
    found = estimator.estimate(problem, at, problem.init_params())

    def dev_loss(hparams):
        end = Training(solver=hg.LBFGS(), steps=1000, tol=1e-12).run(problem, hparams, problem.init_params())
        return problem.outer_loss(end.params, hparams, None)

    direction = {name: drawn(4, *value.shape) for name, value in at.items()}
    slope = central_difference(dev_loss, at, direction, 1e-4).item()
    ours = sum((found.grad[name] * direction[name]).sum().item() for name in at)
    assert ours == pytest.approx(slope, rel=1e-5)


MOMENTUM = hg.Momentum(lr="rate")
THROUGH_TRAINING = {
    "graph": hg.Unrolled(solver=MOMENTUM, inner_steps=7),
    "store": hg.Unrolled(solver=MOMENTUM, inner_steps=7, tape=hg.Store()),
    "checkpoint": hg.Unrolled(solver=MOMENTUM, inner_steps=7, tape=hg.Checkpoint()),
    "reversible": hg.Unrolled(solver=MOMENTUM, inner_steps=7, tape=hg.Reversible()),
    "forward": hg.Forward(solver=MOMENTUM, inner_steps=7),
}


@pytest.mark.parametrize("estimator", THROUGH_TRAINING.values(), ids=THROUGH_TRAINING)
def test_estimators_through_training_give_the_mean_of_the_folds_alone(estimator):
    """With mini-batches, dropout, scaled initial weights, example weights, and a learning rate for each tensor."""
    problem = hg.k_fold(noisy_batches(), K)
    at = problem.init_hparams()
    found = estimator.estimate(problem, at, problem.init_params())
    alone = [estimator.estimate(fold, at, fold.init_params()) for fold in problem.folds]
    truth = {name: torch.stack([each.grad[name] for each in alone]).mean(0) for name in at}
    assert relative_error(found.grad, truth) <= (1e-6 if estimator is THROUGH_TRAINING["reversible"] else 1e-10)
    assert found.outer_loss == pytest.approx(sum(each.outer_loss for each in alone) / K, rel=1e-9)

    def dev_loss(hparams):
        return torch.tensor(estimator.estimate(problem, hparams, problem.init_params()).outer_loss)

    if estimator is THROUGH_TRAINING["graph"]:
        for name in at:
            direction = {key: drawn(4, *x.shape) if key == name else torch.zeros_like(x) for key, x in at.items()}
            slope = central_difference(dev_loss, at, direction, 1e-5).item()
            assert (found.grad[name] * direction[name]).sum().item() == pytest.approx(slope, rel=1e-5), name


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_a_lasso_is_differentiated_on_the_supports_of_its_folds(sparse):
    data = synthetic(0, n=20, p=8)
    if sparse:
        data = hg.Splits(*(hg.Split(csr_array((X * (X > 0)).numpy()), y) for X, y in data))  # pyright: ignore
    problem = hg.k_fold(hg.Lasso(data, l1=0.9), K)
    at = problem.init_hparams()
    estimator = hg.Implicit(solver=hg.ProximalGradient(), linsolve=hg.CG(tol=1e-12), inner_tol=1e-12, inner_steps=5000)
    found = estimator.estimate(problem, at, problem.init_params())
    alone = [
        hg.Implicit(solver=hg.CoordinateDescent(), linsolve=hg.CG(tol=1e-12), inner_tol=1e-12).estimate(
            fold, at, fold.init_params()
        )
        for fold in problem.folds
    ]
    truth = {"l1": torch.stack([each.grad["l1"] for each in alone]).mean(0)}
    assert relative_error(found.grad, truth) <= 1e-8
    assert found.stats["support_size"] == sum(int(each.stats["support_size"]) for each in alone) < 8 * K
    assert found.stats["error_status"] == "estimated"
    with pytest.raises(ValueError, match="trains a Lasso or an ElasticNet, but the problem is a L1KFold. Use Proximal"):
        hg.Implicit(solver=hg.CoordinateDescent()).estimate(problem, at, problem.init_params())


def test_every_example_judges_once_and_each_fold_has_its_share_of_each_class():
    problem = hg.k_fold(supervised(), 4)
    X, y = (torch.cat(parts) for parts in zip(classes(1, 20), classes(2, 9), strict=True))
    judges = torch.cat([fold.X_dev for fold in problem.folds])
    assert sorted(map(tuple, judges.tolist())) == sorted(map(tuple, X.tolist()))
    assert sorted(len(fold.X_dev) for fold in problem.folds) == [7, 7, 7, 8]
    for fold in problem.folds:
        assert not set(map(tuple, fold.X.tolist())) & set(map(tuple, fold.X_dev.tolist()))
        assert torch.equal(fold.X, X[fold.examples])
        for k in range(3):
            assert abs(int((fold.y_dev == k).sum()) - int((y == k).sum()) / 4) < 1
    assert problem.init_hparams()["weights"].shape == (29,)
    same, other = hg.k_fold(supervised(), 4), hg.k_fold(supervised(), 4, seed=1)
    assert torch.equal(same.folds[0].examples, problem.folds[0].examples)
    assert not torch.equal(other.folds[0].examples, problem.folds[0].examples)


@pytest.mark.parametrize("folds", [1, 30, 2.5, True])
def test_folds_out_of_range_are_refused(folds):
    with pytest.raises(ValueError, match=f"from 2 to the 29 examples, but it is {folds}"):
        hg.k_fold(supervised(), folds)


def test_a_problem_that_cannot_be_parted_is_named():
    with pytest.raises(NotImplementedError, match="Quadratic does not define `pooled_targets`, which folds"):
        hg.k_fold(hg.Quadratic())
    with pytest.raises(ValueError, match="already on some examples of another"):
        hg.k_fold(hg.k_fold(supervised(), K).folds[0])


def test_a_run_is_tuned_resumed_and_retrained(tmp_path):
    def trainer(folder, steps):
        problem = hg.k_fold(noisy_batches(), K)
        estimator = hg.Unrolled(solver=MOMENTUM, inner_steps=7)
        return hg.Trainer(
            problem=problem,
            estimator=estimator,
            optimizer=ADAM,
            outer_steps=steps,
            warm_start=False,
            callbacks=[StateSaver(folder)],
        )

    whole = trainer(tmp_path / "whole", 4).fit()
    trainer(tmp_path / "cut", 2).fit()
    rest = trainer(tmp_path / "cut", 4).fit(resume=tmp_path / "cut")
    assert whole.last.outer_loss == rest.last.outer_loss < whole.first.outer_loss
    assert all(torch.equal(whole.hparams[name], rest.hparams[name]) for name in whole.hparams)
    assert read(tmp_path / "cut")["params"]["0.weight"].shape == (K, 4, 5)

    problem = regression()
    result = hg.fit(problem, EXACT, ADAM, 5, progress=False, retrain=True)
    assert result.last.outer_loss < result.first.outer_loss
    pool, best = problem.pool, result.best.hparams
    assert len(pool.pooled_targets()) == 120  # it is trained and judged on all 60
    assert result.retrained is not None
    truth = float(pool.metrics(pool.solution(best), best)["test_loss"])
    assert result.retrained["test_loss"] == pytest.approx(truth)
    by_fold = [fold.metrics(fold.solution(best), best)["test_loss"].item() for fold in problem.folds]
    assert result.best.metrics["test_loss"] == pytest.approx(sum(by_fold) / K)


def test_a_check_and_a_search_take_it_as_any_problem():
    problem = regression()
    assert hg.check_hypergradient(problem, estimators={"cg": EXACT}).ok
    found = hg.search(problem, EXACT, hg.RandomSearch(width=2.0), hg.Budget(trials=3))
    assert found.best.outer_loss <= found.first.outer_loss
