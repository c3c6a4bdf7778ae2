"""SOBA and MA-SOBA against loops written by hand, and at the solution."""

import pytest
import torch

import hypergrad as hg
from hypergrad.core.autodiff import flatten


@pytest.fixture
def problem():
    return hg.Quadratic().double()


def test_at_the_solution_the_direction_is_the_hypergradient(problem):
    hparams = problem.init_hparams()
    params = problem.solution(hparams)
    w = {name: x.clone().requires_grad_() for name, x in params.items()}
    df_dw = torch.cat(torch.autograd.grad(problem.outer_loss(w, hparams, None), list(w.values())))
    H = problem._hessian(hparams)
    v = -torch.linalg.solve(H, df_dw)
    found = hg.SingleLoop(method=hg.SOBA(solver=hg.GradientDescent(lr=0.1))).estimate(
        problem, hparams, params, carry={"t": 0, "memory": {"v": v, "solver": {}}}
    )
    torch.testing.assert_close(found.grad, problem.hypergradient(hparams), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.params, params, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.carry["memory"]["v"], v, rtol=0, atol=1e-12)


@pytest.mark.parametrize("averaging", [1.0, 0.3])
def test_equals_a_loop_by_hand(problem, averaging):
    lr, lr_v, lr_hp, steps = 0.2, 0.15, 0.01, 50
    A, penalty, shift = problem.A, problem.init_hparams()["penalty"], problem.init_hparams()["shift"]
    w, v, u = flatten(problem.init_params()), torch.zeros(10).double(), penalty.log()
    h = torch.zeros(4).double()
    for t in range(steps):
        penalty = u.exp()
        H = A + penalty * torch.eye(10)
        df_dw = problem.M @ (w - problem.target) + problem.D.T @ shift
        D_w, D_v = H @ w - problem.c - problem.C @ shift, H @ v + df_dw
        D_hp = torch.cat([(v @ w + 2 * penalty).reshape(1), -problem.C.T @ v + problem.D @ w + shift])
        h = (1 - averaging) * h + averaging * D_hp
        w, v = w - lr * D_w, v - lr_v * D_v
        if t < steps - 1:
            u, shift = u - lr_hp * penalty * h[0], shift - lr_hp * h[1:]
    solver = hg.GradientDescent(lr=lr)
    method = hg.SOBA(solver=solver, adjoint_lr=lr_v)
    if averaging < 1:
        method = hg.MASOBA(solver=solver, adjoint_lr=lr_v, averaging=averaging)
    result = hg.Trainer(
        problem=problem,
        estimator=hg.SingleLoop(method=method),
        optimizer=lambda u: torch.optim.SGD(u, lr=lr_hp),
        outer_steps=steps - 1,
    ).fit()
    torch.testing.assert_close(flatten(result.last.params), w, rtol=0, atol=1e-12)
    torch.testing.assert_close(result.last.hparams["penalty"], u.exp(), rtol=0, atol=1e-12)
    torch.testing.assert_close(result.last.hparams["shift"], shift, rtol=0, atol=1e-12)
