"""How near F2SA, MEHA and BOME come to the answer on a quadratic: as their theory says, 1 / multiplier or lr."""

import pytest
import torch

import hypergrad as hg
from hypergrad.core.autodiff import flatten

SOLVER = hg.GradientDescent(lr=0.3)


@pytest.fixture(scope="module")
def problem():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield hg.Quadratic(condition=3.0, penalty=1.0, seed=16)  # F(λ) has a minimum, at penalty 0.55
    torch.set_default_dtype(before)


def natural(u):
    return {"penalty": u[0].exp(), "shift": u[1:]}


def pulled_back(grad, u):
    """dF/du at λ = natural(u), shape (4,)."""
    return torch.cat([(grad["penalty"] * u[0].exp()).reshape(1), grad["shift"]])


def at_fixed_hparams(problem, method, moves):
    """The direction of λ after moves from w*(λ), and dF/dλ."""
    hparams, carry = problem.init_hparams(), None
    params, estimator = problem.solution(hparams), hg.SingleLoop(method=method)
    for _ in range(moves):
        found = estimator.estimate(problem, hparams, params, carry=carry)
        params, carry = found.params, found.carry
    return flatten(found.grad), flatten(problem.hypergradient(hparams))


def tuned(problem, method, u, *, lr, moves):
    """u and w after moves with gradient descent on u, from w*(λ)."""
    carry, estimator = None, hg.SingleLoop(method=method)
    params = problem.solution(natural(u))
    for _ in range(moves):
        found = estimator.estimate(problem, natural(u), params, carry=carry)
        params, carry, u = found.params, found.carry, u - lr * pulled_back(found.grad, u)
    return u, params


def slope(problem, u):
    """‖dF/du‖."""
    return float(pulled_back(problem.hypergradient(natural(u)), u).norm())


def start(problem):
    hparams = problem.init_hparams()
    return torch.cat([hparams["penalty"].log().reshape(1), hparams["shift"]])


FIXED = {
    "f2sa": lambda s: hg.F2SA(solver=SOLVER, multiplier=s, growth=0.0),
    "meha": lambda c: hg.MEHA(solver=SOLVER, multiplier=c, growth_power=0.0, smoothing=10.0),
}


@pytest.mark.parametrize("method", FIXED.values(), ids=FIXED)
def test_twice_the_multiplier_halves_the_bias(problem, method):
    biases = []
    for multiplier in (100.0, 200.0, 400.0):
        found, exact = at_fixed_hparams(problem, method(multiplier), moves=100)
        biases.append(float((found - exact).norm() / exact.norm()))
    assert biases[0] < 0.03
    for one, other in zip(biases, biases[1:], strict=False):
        assert 1.8 < one / other < 2.2


def test_the_direction_of_f2sa_is_that_at_the_minima_of_both_losses(problem):
    s, hparams = 5.0, problem.init_hparams()
    penalty, shift = hparams.values()
    H, r = problem.A + penalty * torch.eye(10), problem.c + problem.C @ shift
    z = torch.linalg.solve(H, r)
    y = torch.linalg.solve(s * H + problem.M, s * r + problem.M @ problem.target - problem.D.T @ shift)
    difference = torch.cat([((y @ y - z @ z) / 2).reshape(1), -problem.C.T @ (y - z)])
    expected = torch.cat([(2 * penalty).reshape(1), problem.D @ y + shift]) + s * difference
    found, _ = at_fixed_hparams(problem, FIXED["f2sa"](s), moves=100)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["f2sa", pytest.param("meha", marks=pytest.mark.slow)])
def test_twice_the_multiplier_halves_the_slope_where_the_run_ends(problem, name):
    slopes = []
    for multiplier in (20.0, 40.0):
        step = 0.05 if name == "f2sa" else 0.1 / multiplier
        u, _ = tuned(problem, FIXED[name](multiplier), start(problem), lr=step, moves=int(10 / step))
        slopes.append(slope(problem, u))
    assert slopes[0] < 0.1 * slope(problem, start(problem))
    assert 1.8 < slopes[0] / slopes[1] < 2.2


def test_a_growing_multiplier_reaches_the_minimum(problem):
    u, _ = tuned(problem, hg.F2SA(solver=SOLVER, multiplier=20, growth=5), start(problem), lr=0.05, moves=400)
    assert slope(problem, u) < 1e-3 * slope(problem, start(problem))


def test_half_the_lr_of_bome_halves_the_distance_to_the_solution(problem):
    best = start(problem)
    for _ in range(300):
        best = best - 0.1 * pulled_back(problem.hypergradient(natural(best)), best)
    assert slope(problem, best) < 1e-10
    distances = []
    for lr in (0.01, 0.005):
        method = hg.BOME(solver=hg.GradientDescent(lr=lr), inner_steps=3, inner_lr=0.3)
        u, params = tuned(problem, method, best, lr=lr, moves=150)
        distances.append(float((flatten(params) - flatten(problem.solution(natural(u)))).norm()))
    assert distances[0] < 0.2
    assert 1.8 < distances[0] / distances[1] < 2.2
