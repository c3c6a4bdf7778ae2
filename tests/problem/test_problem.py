import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from tables import PROBLEMS, synthetic

import hypergrad as hg
from hypergrad.core.autodiff import flatten


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_the_inner_gradient_vanishes_at_the_solution_only(problem):
    hparams = problem.init_hparams()
    at_start = flatten(problem.optimality(problem.init_params(), hparams, None)).norm()
    at_solution = flatten(problem.optimality(problem.solution(hparams), hparams, None)).norm()
    assert at_solution <= 1e-11 * at_start


def test_ridge_has_the_solution_of_scikit_learn():
    data = hg.diabetes(seed=4)
    X, y = data.train
    weights = hg.Ridge(data).solution({"l2": torch.tensor(0.07)})["weight"]
    theirs = SklearnRidge(alpha=0.07 * len(y), fit_intercept=False).fit(X.numpy(), y.numpy()).coef_
    assert torch.allclose(weights, torch.tensor(theirs), rtol=1e-9)


def test_diabetes_is_split_by_its_seed_into_disjoint_standardised_parts():
    first, again, other = hg.diabetes(seed=0), hg.diabetes(seed=0), hg.diabetes(seed=1)
    assert [len(part.y) for part in first] == [222, 110, 110]
    assert all(torch.equal(a.X, b.X) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.train.X, other.train.X)
    assert torch.allclose(first.train.X.mean(0), torch.zeros(10), atol=1e-12)
    assert torch.allclose(first.train.y.std(), torch.tensor(1.0))
    rows = torch.cat([part.X for part in first])
    assert len(torch.unique(rows, dim=0)) == 442


@pytest.mark.parametrize(("dev", "test"), [(0.0, 0.2), (0.5, 0.5), (0.8, 0.4), (-0.1, 0.2)])
def test_an_empty_part_is_refused(dev, test):
    with pytest.raises(ValueError, match=r"The (train|dev|test) part would hold -?\d+ of 442 examples"):
        hg.diabetes(dev=dev, test=test)


@pytest.mark.parametrize("condition", [1.0, 10.0, 1e6])
def test_quadratic_has_the_condition_number_asked_for(condition):
    problem = hg.Quadratic(size=9, condition=condition, curvature=2.0)
    assert torch.linalg.cond(problem.A).item() == pytest.approx(condition, rel=1e-6)
    assert torch.linalg.eigvalsh(problem.A)[-1].item() == pytest.approx(2.0)
    coupling = problem.A[:4, 4:]
    assert condition == 1.0 or coupling.norm() > 0.1


def test_a_quadratic_made_in_single_precision_is_symmetric_in_double():
    torch.set_default_dtype(torch.float32)  # the fixture of all tests resets it
    problem = hg.Quadratic(size=20, condition=1e8).double()
    assert torch.equal(problem.A, problem.A.T)  # else the closed form has another A than products with the Hessian
    assert torch.equal(problem.M, problem.M.T)


def test_ridge_names_the_part_that_does_not_fit():
    good = synthetic(0)
    bad_shape = good._replace(dev=hg.Split(good.dev.X[:, :3], good.dev.y))
    with pytest.raises(ValueError, match=r"The dev part needs X of shape \(n, 5\).*X is \(30, 3\)"):
        hg.Ridge(bad_shape)
    X = good.test.X.clone()
    X[2, 1] = float("nan")
    with pytest.raises(ValueError, match="The test part holds 1 values that are NaN or infinite"):
        hg.Ridge(good._replace(test=hg.Split(X, good.test.y)))


def test_data_moves_with_the_module():
    problem = hg.Ridge(synthetic(0)).float()
    assert problem.init_params()["weight"].dtype == torch.float32
    assert problem.init_hparams()["l2"].dtype == torch.float32
    found = hg.Implicit(inner_tol=1e-4, linsolve=hg.CG(tol=1e-4)).estimate(
        problem, problem.init_hparams(), problem.init_params()
    )
    truth = problem.hypergradient(problem.init_hparams())
    assert torch.allclose(found.grad["l2"], truth["l2"], rtol=1e-3)
