"""Implicit estimates by every product, linear solver and trainer on another device give the numbers of the CPU."""

import pytest
from moved import PROBLEMS, agree, drawn, supervised
from torch.nn.functional import mse_loss

import hypergrad as hg

pytestmark = pytest.mark.filterwarnings("ignore::hypergrad.NotConvergedWarning")
GD = hg.GradientDescent(lr=0.05)
FIXED = {"inner_steps": 4, "inner_tol": 0.0}
PRODUCTS: dict[str, hg.Product] = {
    "reverse": hg.Reverse(),
    "forward over reverse": hg.ForwardOverReverse(),
    "differences": hg.CentredDifferences(),
    "traced": hg.Traced(precision="float64"),
    "traced float32": hg.Traced(precision="float32"),
}
LINSOLVES: dict[str, hg.LinearSolver] = {
    "cg": hg.CG(),
    "cg jacobi": hg.CG(preconditioner=hg.Jacobi(num_probes=2)),
    "cg nystrom": hg.CG(preconditioner=hg.Nystrom(rank=3)),
    "minres": hg.MINRES(),
    "gmres": hg.GMRES(),
    "neumann": hg.Neumann(num_terms=8),
    "dense": hg.Dense(),
    "dense lu": hg.Dense(definite=False),
    "auto": hg.Auto(),
}
TRAINERS: dict[str, hg.InnerSolver] = {
    "newton": hg.Newton(),
    "lbfgs": hg.LBFGS(),
    "adam with a schedule": hg.Adam(lr=hg.Cosine(base=0.1, steps=4)),
}


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
def test_products(device, product):
    rtol = 1e-6 if "32" in repr(product) or isinstance(product, hg.CentredDifferences) else 1e-9
    estimator = hg.Implicit(solver=GD, product=product, linsolve=hg.CG(max_iter=5), damping=1.0, **FIXED)
    agree(supervised(), estimator, device, rtol=rtol)


def test_gauss_newton(device):
    train, dev, test = ((drawn(seed, 6, 4), drawn(seed + 5, 6, 3)) for seed in range(3))
    problem = supervised(loss=mse_loss, train=train, dev=dev, test=test)
    agree(problem, hg.Implicit(solver=GD, product=hg.GaussNewton(), linsolve=hg.CG(max_iter=5), **FIXED), device)


@pytest.mark.parametrize("error_bar", [True, False])
@pytest.mark.parametrize("linsolve", LINSOLVES.values(), ids=LINSOLVES)
def test_linear_solvers_and_error_bars(device, linsolve, error_bar):
    estimator = hg.Implicit(solver=GD, linsolve=linsolve, error_bar=error_bar, **FIXED)
    agree(PROBLEMS["ridge"](), estimator, device)


@pytest.mark.parametrize("linsolve", [hg.CG(), hg.Dense(), hg.Auto()], ids=["cg", "dense", "auto"])
def test_linear_solvers_of_folds(device, linsolve):
    agree(PROBLEMS["folds"](), hg.Implicit(solver=GD, linsolve=linsolve, **FIXED), device)


@pytest.mark.parametrize("solver", TRAINERS.values(), ids=TRAINERS)
def test_trainers(device, solver):
    agree(PROBLEMS["ridge"](), hg.Implicit(solver=solver, **FIXED), device)
