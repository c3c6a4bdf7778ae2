"""Estimators, and what two estimates of each send on two processes."""

from functools import partial

import torch

import hypergrad as hg
from hypergrad.core.collectives import Traffic
from hypergrad.core.flops import FlopCounter

HEAVY_BALL = hg.Momentum(lr=0.2)
STEPS = 12


def implicit(linsolve=None, product=None, **settings):
    given = {"solver": HEAVY_BALL, "inner_steps": STEPS, "inner_tol": 0.0, "error_bar": False} | settings
    linsolve = hg.CG(max_iter=6, tol=0.0) if linsolve is None else linsolve
    return hg.Implicit(linsolve=linsolve, product=hg.Reverse() if product is None else product, damping=0.1, **given)


def unrolled(tape, **settings):
    return hg.Unrolled(**{"solver": HEAVY_BALL, "tape": tape, "inner_steps": STEPS} | settings)


CASES = {
    "cg": implicit(),
    "cg to a tolerance": implicit(hg.CG(tol=1e-8)),
    "cg, jacobi": implicit(hg.CG(max_iter=6, tol=0.0, preconditioner=hg.Jacobi(num_probes=3))),
    "cg, nystrom": implicit(hg.CG(max_iter=6, tol=0.0, preconditioner=hg.Nystrom(rank=5))),
    "minres": implicit(hg.MINRES(max_iter=6, tol=0.0)),
    "gmres": implicit(hg.GMRES(max_iter=6, tol=0.0)),
    "neumann": implicit(hg.Neumann(num_terms=5, tol=0.0)),
    "neumann, scale": implicit(hg.Neumann(num_terms=5, scale=0.1, tol=0.0)),
    "no term": implicit(hg.Neumann(num_terms=0)),
    "nystrom": implicit(hg.Nystrom(rank=5, rho=0.1)),
    "dense": implicit(hg.Dense(chunk=20)),
    "auto": implicit(hg.Auto()),
    "differences": implicit(product=hg.CentredDifferences()),
    "gauss_newton": implicit(product=hg.GaussNewton()),
    "forward over reverse": implicit(product=hg.ForwardOverReverse()),
    "training to a tolerance": implicit(inner_steps=200, inner_tol=1e-3),
    "a tolerance never reached": implicit(inner_steps=45, inner_tol=1e-30),
    "adam": implicit(solver=hg.Adam(lr=0.01)),
    "lbfgs": implicit(solver=hg.LBFGS()),
    "given parameters": implicit(inner_steps=0),
    "error bar": implicit(error_bar=True),
    "graph": unrolled(hg.Graph()),
    "store": unrolled(hg.Store()),
    "store, adam": unrolled(hg.Store(), solver=hg.Adam(lr=0.01)),
    "checkpoint": unrolled(hg.Checkpoint(slots=2)),
    "reversible": unrolled(hg.Reversible()),
    "auto tape": unrolled(hg.AutoTape(budget=1e8)),
    "horizon": unrolled(hg.Store(), horizon=4),
    "forward": hg.Forward(solver=HEAVY_BALL, inner_steps=STEPS),
    "soba": hg.SingleLoop(method=hg.SOBA(solver=hg.GradientDescent(lr=0.1))),
    "soba, steps found": hg.SingleLoop(),
    "masoba": hg.SingleLoop(method=hg.MASOBA(solver=hg.GradientDescent(lr=0.1))),
    "saba": hg.SingleLoop(method=hg.SABA(solver=hg.GradientDescent(lr=0.1))),
    "amigo": hg.SingleLoop(method=hg.AmIGO(solver=hg.GradientDescent(lr=0.1), inner_steps=2, adjoint_steps=3)),
    "f2sa": hg.SingleLoop(method=hg.F2SA(solver=hg.GradientDescent(lr=0.1), inner_steps=2)),
    "meha": hg.SingleLoop(method=hg.MEHA(solver=hg.GradientDescent(lr=0.1))),
    "bome": hg.SingleLoop(method=hg.BOME(solver=hg.GradientDescent(lr=0.01), inner_steps=3)),
    "srba": hg.SingleLoop(method=hg.SRBA(solver=hg.GradientDescent(lr=0.1), period=2)),
}
BOUNDED = {"cg to a tolerance", "dense", "auto", "training to a tolerance", "lbfgs", "error bar"}
"""Cases that stop by themselves, so that a plan has the most or an estimate."""
OWN_ALGEBRA = {"gmres", "cg, nystrom", "nystrom"}
"""Cases in which a linear solver multiplies matrices of its own, which a plan does not count."""
QUICK = ["cg", "cg to a tolerance", "differences", "graph", "store", "checkpoint", "forward", "soba", "f2sa"]
"""The cases that always run."""


def make(estimator):
    """Logistic regression, on mini-batches unless the estimator is implicit; its penalties are λ."""
    torch.manual_seed(0)
    X, y = torch.randn(31, 4, dtype=torch.float64), torch.randint(2, (31,))
    return hg.Supervised(
        model=torch.nn.Linear(4, 3).double(),
        loss=torch.nn.functional.cross_entropy,
        train=(X[:20], y[:20]),
        dev=(X[20:], y[20:]),
        hyperparameters={"l2": hg.L2(init=0.1, per="tensor")},
        batch_size=None if isinstance(estimator, hg.Implicit) else 10,
        fixed_batches=not isinstance(estimator, hg.Implicit),
    )


def counted(estimator, problem=None):
    """Calls and numbers of the first and the second estimate, and the flops and products of the second."""
    problem = hg.DataParallel(make(estimator)) if problem is None else problem
    params, hparams = problem.init_params(), problem.init_hparams()

    def estimate(k, carry):
        with Traffic().counting() as met, FlopCounter() as flops:
            found = estimator.estimate(problem, hparams, params, outer_step=k, inner_step=k, carry=carry)
        return found, [met.calls, met.numbers], flops.total

    found, first, _ = estimate(0, None)
    found, later, flops = estimate(1, found.carry if isinstance(estimator, hg.SingleLoop) else None)
    products = found.adjoint_system.num_matvecs if found.adjoint_system else 0
    return {"efforts": [first, later], "products": products, "flops": flops}


def cases():
    """For `ranks.run`."""
    return {name: partial(counted, CASES[name]) for name in QUICK}


def slow():
    """All of them."""
    return {name: partial(counted, estimator) for name, estimator in CASES.items()}
