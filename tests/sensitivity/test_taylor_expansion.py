import math

import pytest
import torch
from optima import DELTA, HPAR0, OPTIMA, SEED, A, X, Y, logistic_objective, seed_objective
from tables import PROBLEMS
from torch.func import grad, hessian, jacfwd, jacrev
from torch.nn.functional import binary_cross_entropy_with_logits

import hypergrad as hg
from hypergrad.core.autodiff import flatten
from hypergrad.linsolve.dense import Factor

by_optimum = pytest.mark.parametrize(("objective", "solve", "hpar0", "delta"), OPTIMA.values(), ids=OPTIMA)


def slope(steps, errors) -> float:
    x, y = torch.tensor(steps).log(), torch.tensor(errors).log()
    return ((x - x.mean()) @ (y - y.mean()) / (x - x.mean()).square().sum()).item()


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_remainder_slopes_on_the_seed_problem(order):
    objective, solve, hpar0, delta = SEED
    expansion = hg.TaylorExpansion(order=order).at(objective, solve(hpar0), hpar0)
    steps = [0.15, 0.12, 0.1, 0.08, 0.06, 0.05]

    def error(step):
        return (expansion.predict(hpar0 + step * delta) - solve(hpar0 + step * delta)).norm().item()

    assert slope(steps, [error(s) + error(-s) for s in steps]) == pytest.approx(order + 1, abs=0.15)


def test_halving_the_step_divides_the_linear_error_by_four():
    objective, solve, hpar0, delta = SEED
    response = hg.LinearResponse().at(objective, solve(hpar0), hpar0)
    errors = [(response.predict(hpar0 + s * delta) - solve(hpar0 + s * delta)).norm() for s in (0.1, 0.05)]
    assert 3.6 < errors[0] / errors[1] < 4.4


@by_optimum
def test_derivatives_agree_with_nested_jvp_through_argmin(objective, solve, hpar0, delta):
    w0 = solve(hpar0)
    found = hg.TaylorExpansion(order=4).at(objective, w0, hpar0).derivatives(delta)
    function = hg.argmin(objective, w0, hpar0)
    for order in range(4):
        function = hg.append_jvp(function)
        torch.testing.assert_close(found[order], function(hpar0, *[delta] * (order + 1)), rtol=1e-8, atol=1e-12)


@by_optimum
def test_terms_sum_to_the_prediction(objective, solve, hpar0, delta):
    expansion = hg.TaylorExpansion(order=3).at(objective, solve(hpar0), hpar0)
    at = hpar0 + 0.1 * delta
    terms, derivatives = expansion.terms(at), expansion.derivatives(0.1 * delta)
    assert len(terms) == len(derivatives) == 3
    torch.testing.assert_close(solve(hpar0) + sum(terms), expansion.predict(at))
    for k, (term, derivative) in enumerate(zip(terms, derivatives, strict=True), start=1):
        torch.testing.assert_close(math.factorial(k) * term, derivative)


@by_optimum
def test_many_directions_at_once_are_each_alone(objective, solve, hpar0, delta):
    expansion = hg.TaylorExpansion(order=3).at(objective, solve(hpar0), hpar0)
    directions = torch.stack([delta, -2 * delta, delta.flip(0)])
    together = expansion.derivatives(directions)
    for i, direction in enumerate(directions):
        for k, alone in enumerate(expansion.derivatives(direction)):
            torch.testing.assert_close(together[k][i], alone, rtol=1e-9, atol=1e-14)


@by_optimum
def test_response_is_the_formula_in_both_modes(objective, solve, hpar0, delta):
    w0 = solve(hpar0)
    truth = -torch.linalg.solve(hessian(objective)(w0, hpar0), jacfwd(grad(objective), argnums=1)(w0, hpar0))
    response = hg.LinearResponse().at(objective, w0, hpar0)
    torch.testing.assert_close(response.jacobian(), truth, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(response.jvp(delta), truth @ delta, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(response.vjp(w0 + 1), truth.T @ (w0 + 1), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("linsolve", [hg.Auto(), hg.Dense(), hg.CG(tol=1e-12, max_iter=500)], ids=repr)
def test_inner_problems_with_known_solutions(problem, linsolve):
    hparams = problem.init_hparams()
    expansion = hg.TaylorExpansion(order=4, linsolve=linsolve).at(problem, problem.solution(hparams), hparams)
    away = {name: 1.02 * value + 0.01 for name, value in hparams.items()}
    error = flatten(expansion.predict(away)) - flatten(problem.solution(away))
    last = flatten(expansion.terms(away)[-1]).norm()
    assert error.norm() < last
    jacobian = hg.LinearResponse(linsolve=linsolve).at(problem, problem.solution(hparams), hparams).jacobian()
    truth = jacrev(problem.solution)(hparams)
    rows = [[b.reshape(-1, hparams[name].numel()) for name, b in a.items()] for a in truth.values()]
    truth = torch.cat([torch.cat(row, dim=1) for row in rows])
    torch.testing.assert_close(jacobian, truth, rtol=1e-7, atol=1e-9)


def test_one_factorisation_and_order_k_costs_k_solves(monkeypatch):
    objective, solve, hpar0, delta = OPTIMA["logistic"]
    counts = {"factors": 0, "solves": 0}
    factorise, apply = hg.Dense._factorize, Factor.apply

    def counted_factorize(self, A, b):
        counts["factors"] += 1
        return factorise(self, A, b)

    def counted_apply(self, columns):
        counts["solves"] += columns.shape[1]
        return apply(self, columns)

    monkeypatch.setattr(hg.Dense, "_factorize", counted_factorize)
    monkeypatch.setattr(Factor, "apply", counted_apply)
    expansion = hg.TaylorExpansion(order=4).at(objective, solve(hpar0), hpar0)
    expansion.derivatives(delta)
    assert counts == {"factors": 1, "solves": 4}
    expansion.predict(hpar0 + 0.01 * delta)
    assert counts == {"factors": 1, "solves": 8}


def test_one_preconditioner_for_all_orders(monkeypatch):
    objective, solve, hpar0, delta = OPTIMA["logistic"]
    prepared, prepare = [], hg.Jacobi.prepare

    def counted(self, A, like):
        prepared.append(1)
        return prepare(self, A, like)

    monkeypatch.setattr(hg.Jacobi, "prepare", counted)
    cg = hg.CG(tol=1e-10, max_iter=200, preconditioner=hg.Jacobi(num_probes=5))
    expansion = hg.TaylorExpansion(order=4, linsolve=cg).at(objective, solve(hpar0), hpar0)
    expansion.derivatives(delta)
    expansion.derivatives(-delta)
    assert len(prepared) == 1


def test_a_term_without_the_parameters_is_no_reason_to_stop():
    """Coefficient 2 of (w − λ)² along the path does not depend on w₀ at all."""

    def objective(w, hp):
        return ((w - 2 * hp) ** 2).sum()

    expansion = hg.TaylorExpansion(order=3).at(objective, torch.zeros(2), torch.zeros(2))
    first, second, third = expansion.derivatives(torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(first, torch.tensor([2.0, 6.0]))
    assert not second.any()
    assert not third.any()


def test_matrix_free_is_the_dense_one():
    objective, solve, hpar0, delta = OPTIMA["logistic"]
    cg = hg.CG(tol=1e-13, max_iter=200, preconditioner=hg.Jacobi(num_probes=5))
    found = hg.TaylorExpansion(order=3, linsolve=cg).at(objective, solve(hpar0), hpar0).derivatives(delta)
    truth = hg.TaylorExpansion(order=3).at(objective, solve(hpar0), hpar0).derivatives(delta)
    for a, b in zip(found, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_a_root_with_a_nonsymmetric_jacobian():
    B = A + torch.tensor([[0.0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, -1], [1, 0, 0, 0]])

    def phi(w, hp):
        return B @ w + torch.tanh(w) * hp.sum() - hp.sum() - w**2 * hp[0]

    def solve(hp):
        w = torch.zeros(4)
        for _ in range(30):
            w = w - torch.linalg.solve(jacrev(phi)(w, hp), phi(w, hp))
        return w

    hp0 = torch.tensor([0.3, 0.2, 0.1])
    expansion = hg.TaylorExpansion(order=4).at(hg.Root(phi), solve(hp0), hp0)
    errors = [(expansion.predict(hp0 + s * DELTA) - solve(hp0 + s * DELTA)).norm().item() for s in (0.1, 0.07, 0.05)]
    assert slope([0.1, 0.07, 0.05], errors) == pytest.approx(5, abs=0.3)
    for linsolve in (hg.Auto(tol=1e-12), hg.GMRES(tol=1e-12)):
        response = hg.LinearResponse(linsolve=linsolve).at(hg.Root(phi), solve(hp0), hp0)
        J = -torch.linalg.solve(jacrev(phi)(solve(hp0), hp0), jacrev(phi, argnums=1)(solve(hp0), hp0))
        torch.testing.assert_close(response.jvp(DELTA), J @ DELTA, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(response.vjp(torch.ones(4)), J.T @ torch.ones(4), rtol=1e-9, atol=1e-10)


def test_an_inner_problem_that_no_polynomial_passes_through():
    objective, solve, hpar0, delta = SEED

    def in_place(w, hp):
        total = torch.zeros(())
        total = total + objective(w, hp)
        total += 0.0 * w.sum()
        return total

    truth = hg.TaylorExpansion(order=3).at(objective, solve(hpar0), hpar0).derivatives(delta)
    with pytest.warns(hg.NoTaylorRuleWarning, match="__iadd__|add_"):
        found = hg.TaylorExpansion(order=3).at(in_place, solve(hpar0), hpar0).derivatives(delta)
    for a, b in zip(found, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-14)


def test_outside_the_radius_of_trust_it_warns():
    def geometric(w, hp):  # w* = 1 / (1 − hp), whose series converges for |hp| < 1
        return (1 - hp) * w**2 / 2 - w

    expansion = hg.TaylorExpansion(order=4).at(geometric, torch.tensor(1.0), torch.tensor(0.0))
    assert expansion.radius(torch.tensor(2.0)) == pytest.approx(0.5)
    assert expansion.predict(torch.tensor(0.5)).item() == pytest.approx(1 + 0.5 + 0.25 + 0.125 + 0.0625)
    with pytest.warns(hg.ExtrapolationWarning, match="λ is 3 times as far away"):
        expansion.predict(torch.tensor(3.0))


def test_a_point_that_is_no_optimum_is_refused():
    with pytest.raises(hg.NotOptimalError, match=r"‖φ\(w, λ\)‖ = \d.*tolerance is .*Train further"):
        hg.TaylorExpansion().at(seed_objective, torch.ones(4), HPAR0)


def test_a_singular_hessian_is_refused():
    with pytest.raises(hg.IndefiniteError, match="smallest eigenvalue"):
        hg.TaylorExpansion().at(lambda w, hp: (w[0] - hp) ** 2 + 0 * w[1], torch.zeros(2), torch.tensor(0.0)).terms(
            torch.tensor(0.1)
        )


@pytest.mark.parametrize("wrong", [torch.zeros(4), torch.zeros(2, 2), torch.zeros(2, 2, 3)], ids=str)
def test_a_direction_of_another_shape_is_refused(wrong):
    objective, solve, hpar0, _ = SEED
    with pytest.raises(ValueError, match="the shapes of the hyperparameters"):
        hg.TaylorExpansion().at(objective, solve(hpar0), hpar0).derivatives(wrong)


def test_a_million_parameters_matrix_free():
    scale = torch.linspace(1, 2, 10**6)

    def objective(w, hp):
        return ((w - hp) ** 2 * scale).sum() / 2 + (w**4).sum() / 4

    w0 = torch.zeros(10**6)
    expansion = hg.TaylorExpansion(order=3).at(objective, w0, torch.tensor(0.0))
    first, second, third = expansion.derivatives(torch.tensor(1.0))
    torch.testing.assert_close(first, torch.ones(10**6))  # s (w − t) + w³ = 0: w = t − t³/s + …
    assert second.abs().max() < 1e-8
    torch.testing.assert_close(third, -6 / scale, rtol=1e-8, atol=0.0)


def test_data_weights_by_a_loss_of_torch():
    def objective(w, weights):
        return (weights * binary_cross_entropy_with_logits(X @ w, Y, reduction="none")).sum() + w @ w

    _, solve, ones, delta = OPTIMA["logistic"]
    found = hg.TaylorExpansion(order=3).at(objective, solve(ones), ones).derivatives(delta)
    truth = hg.TaylorExpansion(order=3).at(logistic_objective, solve(ones), ones).derivatives(delta)
    for a, b in zip(found, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_no_directions_at_all_are_refused():
    expansion = hg.TaylorExpansion().at(lambda w, hp: (w - hp).square().sum(), torch.ones(2), torch.ones(()))
    with pytest.raises(ValueError, match="A direction must have the shapes"):
        expansion.derivatives(torch.ones(0))


def test_directions_that_do_not_fit_are_refused():
    x, half = torch.ones(3), torch.ones(3, dtype=torch.int64)
    derivative = hg.append_jvp(torch.sum)
    with pytest.raises(TypeError, match="needs 2 arguments and 2 directions, but it met 1 arguments"):
        hg.append_jvp(torch.dot, 2)(x, x, x)
    with pytest.raises(TypeError, match="it met torch.int64"):
        derivative(x, half)
    with pytest.raises(TypeError, match="it met float"):
        derivative(x, 1.0)
    with pytest.raises(ValueError, match=r"a direction of shape \(3,\), as its argument, but it met \(2,\)"):
        derivative(x, x[:2])
