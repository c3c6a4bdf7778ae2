"""What implicit estimators have to themselves: the adjoint's warm start, tightening, conditions of one's own."""

import pytest
import torch
from tables import PROBLEMS, relative_error

import hypergrad as hg

HEAVY_BALL = hg.Momentum(lr=0.07, momentum=0.8)


def test_the_adjoint_of_an_earlier_estimate_spares_products():
    problem = PROBLEMS["quadratic-stiff"]
    hparams, estimator = problem.init_hparams(), hg.Implicit(solver=HEAVY_BALL, inner_steps=2000, inner_tol=1e-10)
    first = estimator.estimate(problem, hparams, problem.init_params())
    assert first.carry is not None
    kept = first.carry.clone()
    near = {name: 1.0001 * value for name, value in hparams.items()}
    cold = estimator.estimate(problem, near, first.params)
    warm = estimator.estimate(problem, near, first.params, carry=first.carry)
    assert int(warm.stats["num_matvecs"]) < int(cold.stats["num_matvecs"])
    assert relative_error(warm.grad, cold.grad) <= 1e-4
    assert torch.equal(first.carry, kept)


@pytest.mark.parametrize(("kind", "at_the_fourth"), [("exponential", 0.9**3), ("quadratic", 1 / 16), ("cubic", 1 / 64)])
def test_both_tolerances_tighten_over_the_outer_steps(kind, at_the_fourth):
    problem = PROBLEMS["quadratic-stiff"]
    hparams, start = problem.init_hparams(), problem.init_params()
    loose = {"solver": HEAVY_BALL, "inner_steps": 5000}
    tightened = hg.Implicit(**loose, inner_tol=1e-3, linsolve=hg.CG(tol=1e-2), tighten=kind)
    by_hand = hg.Implicit(**loose, inner_tol=1e-3 * at_the_fourth, linsolve=hg.CG(tol=1e-2 * at_the_fourth))
    later = tightened.estimate(problem, hparams, start, outer_step=3)
    assert relative_error(later.grad, by_hand.estimate(problem, hparams, start, outer_step=3).grad) == 0
    first = tightened.estimate(problem, hparams, start, outer_step=0)
    assert int(first.stats["inner_steps"]) <= int(later.stats["inner_steps"])


@pytest.mark.parametrize("kind", [None, "exponential", "quadratic", "cubic"])
def test_the_first_outer_step_has_the_given_tolerances(kind):
    assert hg.Implicit(tighten=kind).looseness(0) == 1


def test_an_unknown_way_to_tighten_is_refused():
    with pytest.raises(ValueError, match="one of exponential, quadratic, cubic, but it is 'slowly'"):
        hg.Implicit(tighten="slowly")


class Root(hg.Quadratic):
    """K ∇g = 0 with a fixed nonsymmetric K: the same solution, and a Jacobian K H that is no Hessian."""

    def optimality(self, params, hparams, batch):
        from hypergrad.core.autodiff import flatten, unflatten

        n = len(self.c)
        K = torch.eye(n) + 0.4 * torch.randn(n, n, generator=torch.Generator().manual_seed(2)) / n**0.5
        return unflatten(K @ flatten(super().optimality(params, hparams, batch)), params)


@pytest.mark.parametrize("linsolve", [hg.GMRES(tol=1e-12), hg.Dense(definite=False)], ids=["gmres", "lu"])
def test_a_root_with_a_nonsymmetric_jacobian_has_the_hypergradient_of_its_solution(linsolve):
    problem = Root(size=8)
    hparams = problem.init_hparams()
    estimator = hg.Implicit(solver=HEAVY_BALL, inner_steps=5000, inner_tol=1e-13, linsolve=linsolve)
    found = estimator.estimate(problem, hparams, problem.init_params())
    assert relative_error(found.grad, problem.hypergradient(hparams)) <= 1e-8
    assert found.stats["error_status"] == "unknown: the optimality condition is not the gradient of the inner loss"


class WrongShape(hg.Quadratic):
    def optimality(self, params, hparams, batch):
        return {"a": super().optimality(params, hparams, batch)["a"]}


def test_an_optimality_condition_of_the_wrong_shape_is_refused():
    problem = WrongShape(size=4)
    with pytest.raises(ValueError, match=r"WrongShape.optimality must return tensors shaped as the parameters, .*'b'"):
        hg.Implicit(inner_steps=5).estimate(problem, problem.init_hparams(), problem.init_params())


class Saddle(hg.Quadratic):
    """Its Hessian has one negative eigenvalue, and its stationary point a derivative all the same."""

    def inner_loss(self, params, hparams, batch):
        return super().inner_loss(params, hparams, batch) - 2 * self.A[0, 0] * params["a"][0] ** 2


def test_an_indefinite_hessian_is_refused_solved_or_damped_as_asked():
    problem = Saddle(size=6)
    hparams, start = problem.init_hparams(), problem.init_params()
    with pytest.raises(hg.IndefiniteError, match="curvature"):
        hg.Implicit(inner_steps=0).estimate(problem, hparams, start)
    solved = hg.Implicit(inner_steps=0, linsolve=hg.MINRES(tol=1e-12)).estimate(problem, hparams, start)
    direct = hg.Implicit(inner_steps=0, linsolve=hg.Dense(definite=False)).estimate(problem, hparams, start)
    assert relative_error(solved.grad, direct.grad) <= 1e-9
    damped = hg.Implicit(inner_steps=0, damping=10.0).estimate(problem, hparams, start)
    assert damped.stats["adjoint_status"] == "converged"
    assert relative_error(damped.grad, direct.grad) > 0.01


class FirstOrder(hg.Quadratic):
    """Without second derivatives, so that products are differences of gradients."""

    @property
    def has_second_derivatives(self):
        return False


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"error_bar": True}, "The error bar of Implicit needs second derivatives, which FirstOrder has not"),
        ({"compile": True}, "Training steps of FirstOrder are not compiled"),
        ({"solver": hg.LBFGS()}, "FirstOrder trains by solvers that are a rule .* but LBFGS is none"),
        ({"linsolve": hg.Dense()}, "but linsolve has Dense. Use one of these two"),
        ({"linsolve": hg.CG(preconditioner=hg.Jacobi())}, "but linsolve has a preconditioner. Use one of these two"),
    ],
    ids=["error bar", "compile", "solver", "dense", "preconditioner"],
)
def test_without_second_derivatives_only_differences_of_gradients_serve(settings, message):
    problem = FirstOrder()
    estimator = hg.Implicit(**{"product": hg.CentredDifferences(), "error_bar": False} | settings)
    with pytest.raises(ValueError, match=message):
        estimator.estimate(problem, problem.init_hparams(), problem.init_params())


@pytest.mark.parametrize("size", [3, 12])
def test_an_adjoint_of_another_size_is_not_a_start(size):
    problem = PROBLEMS["quadratic"]
    estimator = hg.Implicit(solver=HEAVY_BALL, inner_steps=50)
    found, alone = (
        estimator.estimate(problem, problem.init_hparams(), problem.init_params(), carry=carry)
        for carry in (torch.ones(size, dtype=torch.float64), None)
    )
    assert all(torch.equal(found.grad[name], g) for name, g in alone.grad.items())


@pytest.mark.parametrize("linsolve", [hg.CG(tol=1e-6), hg.Neumann(num_terms=500, tol=1e-8)], ids=["cg", "neumann"])
def test_without_second_derivatives_it_is_the_closed_form_to_the_error_of_differences(linsolve):
    problem = FirstOrder()
    estimator = hg.Implicit(
        solver=hg.Momentum(lr=0.2), product=hg.CentredDifferences(), linsolve=linsolve, error_bar=False, inner_tol=1e-9
    )
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert relative_error(found.grad, problem.hypergradient(problem.init_hparams())) < 1e-4
