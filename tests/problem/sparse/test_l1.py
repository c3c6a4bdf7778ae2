"""Problems with an L1 penalty against closed forms, scikit-learn and what is refused."""

from typing import Any

import pytest
import sklearn
import torch
from scipy import sparse
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression
from slow_cases import mostly_slow
from sparse_tables import PROBLEMS, few, made_sparse, solved, uneven

import hypergrad as hg
from hypergrad.core.autodiff import flatten
from hypergrad.problem.sparse.design import Design, as_matrix
from hypergrad.problem.sparse.l1 import soft_threshold


def orthogonal(n: int = 12, p: int = 5) -> hg.Splits:
    generator = torch.Generator().manual_seed(7)

    def split() -> hg.Split:
        X = torch.linalg.qr(torch.randn(n, p, generator=generator)).Q * n**0.5
        return hg.Split(X, torch.randn(n, generator=generator))

    return hg.Splits(split(), split(), split())


@pytest.mark.parametrize("l1", [0.15, 0.5])
def test_an_orthogonal_design_has_the_closed_form(l1):
    """With XᵀX = n I: w = soft(Xᵀy/n, l1/2) and dF/dl1 = −½ sign(w)·∂f/∂w."""
    problem = hg.Lasso(orthogonal())
    hparams = {"l1": torch.tensor(l1)}
    w = soft_threshold(problem.X.X.T @ problem.y / len(problem.y), hparams["l1"] / 2)
    assert 0 < int((w != 0).sum()) < len(w)
    found = hg.Implicit(solver=hg.ProximalGradient(), inner_tol=1e-13, linsolve=hg.CG(tol=1e-13)).estimate(
        problem, hparams, problem.init_params()
    )
    X_dev = problem.X_dev.X
    df_dw = 2 * X_dev.T @ (X_dev @ w - problem.y_dev) / len(problem.y_dev)
    assert torch.allclose(found.params["weight"], w, rtol=1e-12)
    assert torch.equal(found.params["weight"] == 0, w == 0)
    assert found.grad["l1"].item() == pytest.approx((-w.sign() @ df_dw / 2).item(), rel=1e-10)


def test_the_solutions_are_those_of_scikit_learn():
    data, l1, l2 = hg.diabetes(seed=4), 0.07, 0.03
    X, y = (part.numpy() for part in data.train)
    hparams = {"l1": torch.tensor(l1), "l2": torch.tensor(l2)}
    settings = {"fit_intercept": False, "tol": 1e-14, "max_iter": 100_000}
    alpha = l1 / 2 + l2
    theirs = ElasticNet(alpha, l1_ratio=l1 / 2 / alpha, **settings).fit(X, y).coef_
    ours = solved(hg.ElasticNet(data), hparams)["weight"]
    assert torch.allclose(ours, torch.tensor(theirs), rtol=1e-6, atol=1e-9)
    theirs = Lasso(l1 / 2, **settings).fit(X, y).coef_
    assert torch.allclose(solved(hg.Lasso(data), hparams)["weight"], torch.tensor(theirs), rtol=1e-6, atol=1e-9)


def test_the_logistic_solution_is_that_of_scikit_learn():
    data = hg.breast_cancer(seed=1)
    X, y = (part.numpy() for part in data.train)
    before = tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8)
    l1: Any = {"penalty": "l1"} if before else {"l1_ratio": 1.0}
    model = LogisticRegression(
        C=1 / (len(y) * 0.02), solver="saga", fit_intercept=False, tol=1e-10, max_iter=50_000, **l1
    )
    theirs = torch.tensor(model.fit(X, y).coef_[0])
    ours = solved(hg.SparseLogistic(data), {"l1": torch.tensor(0.02)})["weight"]
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", mostly_slow(PROBLEMS, PROBLEMS.keys() - {"logistic-sparse-X"}))
def test_the_optimality_condition_vanishes_at_the_solution_only(make):
    problem = make()
    hparams = uneven(problem)
    w = solved(problem, hparams)
    start = flatten(problem.optimality(problem.init_params(), hparams, None)).norm()
    assert flatten(problem.optimality(w, hparams, None)).norm() <= 1e-12 * start
    # a zero that is off by as little as rounding has the wrong subgradient
    zero = int((w["weight"] == 0).nonzero()[0])
    nearly = {"weight": w["weight"].clone()}
    nearly["weight"][zero] = 1e-16
    assert flatten(problem.optimality(nearly, hparams, None)).norm() > 1e-6 * start


@pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)
def test_from_l1_max_on_all_weights_are_zero(make):
    problem = make()
    for factor, is_zero in ((1.001, True), (0.98, False)):
        hparams = {k: torch.full_like(v, factor * problem.l1_max) for k, v in problem.init_hparams().items()}
        assert bool((solved(problem, hparams)["weight"] == 0).all()) == is_zero


def test_the_bound_of_the_curvature_holds_and_is_near():
    for make in PROBLEMS.values():
        problem = make()
        hparams = problem.init_hparams()
        hessian = torch.autograd.functional.hessian(
            lambda w, p=problem, hp=hparams: p.smooth_loss({"weight": w}, hp, None), problem.init_params()["weight"]
        )
        largest = torch.linalg.eigvalsh(hessian)[-1]
        assert largest <= problem.smoothness(hparams) <= 1.1 * largest


@pytest.mark.parametrize("layout", ["scipy", "csr", "coo"])
def test_a_sparse_design_multiplies_and_gives_columns_as_a_dense_one(layout):
    generator = torch.Generator().manual_seed(3)
    dense = torch.randn(9, 14, generator=generator)
    dense[dense.abs() < 0.8] = 0
    given = {"scipy": sparse.csc_array(dense.numpy()), "csr": as_matrix(sparse.csr_array(dense.numpy()), dense.dtype)}
    X = Design(as_matrix(given.get(layout, dense.to_sparse_coo()), dense.dtype))
    index = torch.tensor([0, 3, 4, 13])
    for ours, theirs in ((X, dense), (X.columns(index), dense[:, index]), (X.columns(index[:0]), dense[:, :0])):
        w = torch.randn(theirs.shape[1], generator=generator)
        assert ours.shape == tuple(theirs.shape)
        assert torch.allclose(ours(w), theirs @ w)
        assert torch.autograd.gradcheck(ours, w.clone().requires_grad_())
        assert torch.autograd.gradgradcheck(lambda w, X=ours: X(w) ** 3, w.clone().requires_grad_())
        assert torch.equal(torch.tensor(ours.to_scipy().toarray()), theirs)
    assert X.largest_singular_value == pytest.approx(torch.linalg.matrix_norm(dense, 2).item(), rel=0.05)


def test_a_sparse_problem_moves_with_its_module():
    problem = hg.Lasso(made_sparse(few())).float()
    estimator = hg.Implicit(
        solver=hg.ProximalGradient(), inner_steps=5000, inner_tol=1e-5, linsolve=hg.CG(tol=1e-4), error_bar=False
    )
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert found.grad["l1"].dtype == torch.float32
    exact = estimator.estimate(problem.double(), problem.init_hparams(), problem.init_params())
    assert torch.allclose(found.grad["l1"].double(), exact.grad["l1"], rtol=1e-2)


REFUSED = {
    "a list": (
        lambda d: hg.Lasso(d._replace(dev=hg.Split(d.dev.X.tolist(), d.dev.y))),
        TypeError,
        "X must be a tensor or a scipy.sparse matrix, but it is a list",
    ),
    "other features": (
        lambda d: hg.Lasso(d._replace(dev=hg.Split(d.dev.X[:, :3], d.dev.y))),
        ValueError,
        r"The dev part needs X of shape \(n, 70\).*X is \(20, 3\)",
    ),
    "nan in sparse X": (
        lambda d: hg.Lasso(made_sparse(d._replace(test=hg.Split(d.test.X / 0, d.test.y)))),
        ValueError,
        "The test part holds 1400 values that are NaN or infinite",
    ),
    "y is zero": (
        lambda d: hg.Lasso(d._replace(train=hg.Split(d.train.X, 0 * d.train.y))),
        ValueError,
        "w = 0 is the solution for every l1",
    ),
    "targets": (
        hg.SparseLogistic,
        ValueError,
        "must have targets of 0 and 1, but 40 of 40 are different",
    ),
}


@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make(few())


def test_a_negative_penalty_is_refused():
    problem = hg.Lasso(few())
    with pytest.raises(ValueError, match="The L1 penalty of 'weight' must be at least 0, but its smallest is -0.1"):
        hg.Implicit(solver=hg.ProximalGradient()).estimate(problem, {"l1": torch.tensor(-0.1)}, problem.init_params())
