"""Suggested step sizes against dense matrices, and on a problem whose stable steps are known."""

import pytest
import torch
from single_loop.least_squares import LeastSquares

import hypergrad as hg
import hypergrad.single_loop.outer_curvature as outer_curvature_module
from hypergrad.core.autodiff import unflatten
from hypergrad.linsolve.spectrum import extreme_eigenvalues
from hypergrad.single_loop.mean_directions import MeanDirections
from hypergrad.single_loop.outer_curvature import outer_curvature


@pytest.mark.parametrize("num_iter", [7, 20])
def test_extreme_eigenvalues_are_exact_after_as_many_products_as_there_are_values(num_iter):
    A = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(0))).Q
    A = A @ torch.diag(torch.tensor([-2.0, -0.5, 0.1, 0.1, 1.0, 2.0, 3.0])) @ A.T
    assert extreme_eigenvalues(lambda v: A @ v, A[0], num_iter=num_iter) == pytest.approx((-2.0, 3.0), rel=1e-9)


def test_extreme_eigenvalues_lie_inside_the_spectrum():
    values = torch.linspace(0.01, 1.0, 200)
    least, largest = extreme_eigenvalues(lambda v: values * v, values, num_iter=12)
    assert 0.01 <= least < 0.05
    assert 0.95 < largest <= 1.0


def test_the_inner_step_is_that_of_the_steepest_batch():
    problem = LeastSquares()
    w, (penalty, shift) = torch.zeros(7), problem.init_hparams().values()
    H = [problem.inner_terms(step, w, penalty, shift)[1] for step in range(5)]
    steps = hg.step_sizes(problem, outer=False)
    assert 1 / steps.inner == steps.batch_curvature
    assert steps.batch_curvature == pytest.approx(max(torch.linalg.eigvalsh(x)[-1].item() for x in H), rel=1e-9)
    ends = torch.linalg.eigvalsh(sum(H) / 5)
    assert (steps.least_curvature, steps.largest_curvature) == pytest.approx(
        (ends[0].item(), ends[-1].item()), rel=1e-9
    )
    # The mean has 7 different eigenvalues, a batch of 5 examples has 6, and the last one of 2 examples has 3.
    assert (steps.outer_curvature, steps.num_gradients, steps.num_matvecs) == (None, 62, 5 * 7 + 4 * 6 + 3)


def _dense(problem, damping):
    """∇²F in u = (log penalty, shift) where the Hessian of g is H + damping, by blocks of the Lagrangian."""

    def losses(w, u):
        hparams = {"penalty": u[0].exp(), "shift": u[1:]}
        return (
            problem.inner_loss(unflatten(w, problem.init_params()), hparams, (problem.X, problem.y)),
            problem.outer_loss(unflatten(w, problem.init_params()), hparams, (problem.Z, problem.t)),
        )

    penalty, shift = problem.init_hparams().values()
    u = torch.cat([penalty.log().reshape(1), shift])
    H = problem.X.T @ problem.X / 22 + penalty * torch.eye(7)
    w = torch.linalg.solve(H, problem.X.T @ problem.y / 22 + problem.C @ shift)
    v = -torch.linalg.solve(H, torch.func.grad(lambda w: losses(w, u)[1])(w))

    def lagrangian(z):
        f = losses(z[:7], z[7:])[1]
        return f + v @ torch.func.grad(lambda w: losses(w, z[7:])[0])(z[:7])

    L = torch.func.hessian(lagrangian)(torch.cat([w, u]))
    cross = torch.func.jacrev(torch.func.grad(lambda w, u: losses(w, u)[0]), 1)(w, u)
    J = -torch.linalg.solve(H + damping * torch.eye(7), cross)
    return L[7:, 7:] + L[7:, :7] @ J + J.T @ L[:7, 7:] + J.T @ L[:7, :7] @ J


def _log_penalty_gradient(problem):
    """dF / d log penalty of the mean losses, through the closed form of w."""
    penalty, shift = problem.init_hparams().values()

    def outer(log_penalty):
        H = problem.X.T @ problem.X / 22 + log_penalty.exp() * torch.eye(7)
        w = torch.linalg.solve(H, problem.X.T @ problem.y / 22 + problem.C @ shift)
        hparams = {"penalty": log_penalty.exp(), "shift": shift}
        return problem.outer_loss(unflatten(w, problem.init_params()), hparams, (problem.Z, problem.t))

    return torch.func.grad(outer)(penalty.log()).item()


def test_the_curvature_and_the_lag_are_those_of_dense_matrices(monkeypatch):
    monkeypatch.setattr(outer_curvature_module, "_SOLVER", hg.CG(max_iter=100, tol=1e-10))
    problem = LeastSquares()
    hparams, params = problem.init_hparams(), problem.init_params()
    u = {"penalty": hparams["penalty"].log(), "shift": hparams["shift"]}
    found = outer_curvature(MeanDirections.of(problem, 16, 0, 0), params, u, hparams, num_iter=20)
    values, vectors = torch.linalg.eigh(_dense(problem, 0.0))
    top = values.abs().argmax()
    assert found.curvature == pytest.approx(values[top].abs().item(), rel=1e-5)
    d, eps = vectors[:, top], 1e-5
    lag = -(d @ (_dense(problem, eps) - _dense(problem, -eps)) @ d / (2 * eps)).item()
    assert found.lag == pytest.approx(lag, rel=1e-4)
    assert found.drift == pytest.approx(abs(_log_penalty_gradient(problem)), rel=1e-7)


class Slow(hg.InnerProblem):
    """g = ½ h w₁² + ½ w₂² − λ w₁ and f = ½ w₁² − w₁, so that ∇²F = h⁻² and the joint steps are stable below 2 ρ h³."""

    h = 0.05

    def init_params(self):
        return {"w": torch.zeros(2)}

    def hyperparameters(self):
        return {"hp": hg.Hyperparameter(0.3)}

    def inner_loss(self, params, hparams, batch):
        w = params["w"]
        return self.h * w[0] ** 2 / 2 + w[1] ** 2 / 2 - hparams["hp"] * w[0]

    def outer_loss(self, params, hparams, batch):
        return params["w"][0] ** 2 / 2 - params["w"][0] + 0 * hparams["hp"]


def test_a_slow_inner_problem_gets_a_smaller_outer_step():
    problem = Slow()
    steps = hg.step_sizes(problem)
    assert steps.inner == pytest.approx(1.0, rel=1e-9)
    assert steps.outer_curvature is not None
    assert steps.outer_curvature.curvature == pytest.approx(problem.h**-2, rel=1e-5)
    assert steps.outer == pytest.approx(problem.h**3, rel=1e-4)

    def distance(lr):
        result = hg.Trainer(
            problem=problem,
            estimator=hg.SingleLoop(method=hg.SOBA(solver=hg.GradientDescent(lr=steps.inner))),
            optimizer=lambda u: torch.optim.SGD(u, lr=lr),
            outer_steps=600,
        ).fit()
        return abs(result.last.hparams["hp"].item() - problem.h)

    assert distance(steps.outer) < 0.02
    assert distance(3 * steps.outer) > 0.25  # the distance at the start: below 1 / (3 L_F), but not stable
    assert 3 * steps.outer < 1 / (3 * steps.outer_curvature.curvature)


def test_a_constrained_hyperparameter_moves_no_faster_than_the_parameters_follow():
    """F = − log λ / 100 is nearly flat in u = log λ, so that its curvature alone would allow any step."""

    class Drifting(Slow):
        def hyperparameters(self):
            return {"hp": hg.Hyperparameter(0.3, constraint=hg.positive)}

        def outer_loss(self, params, hparams, batch):
            return 1e-9 * params["w"][0] ** 2 - hparams["hp"].log() / 100

    steps = hg.step_sizes(Drifting())
    assert steps.outer == pytest.approx(steps.inner * Drifting.h / 0.01, rel=1e-3)


def test_settings_that_give_no_steps_are_refused():
    with pytest.raises(ValueError, match="needs num_batches ≥ 1, but it is 0"):
        hg.step_sizes(LeastSquares(), num_batches=0)

    class Concave(Slow):
        def inner_loss(self, params, hparams, batch):
            return -(params["w"] ** 2).sum() - hparams["hp"] * params["w"][0]

    with pytest.raises(ValueError, match="largest is -2 at the start; give the steps"):
        hg.step_sizes(Concave(), outer=False)

    class Linear(Slow):
        def outer_loss(self, params, hparams, batch):
            return params["w"].sum() + hparams["hp"]

    with pytest.raises(ValueError, match="F seems to be linear in the hyperparameters"):
        _ = hg.step_sizes(Linear()).outer
    with pytest.raises(ValueError, match="The outer step was not estimated: leave outer=False out"):
        _ = hg.step_sizes(Linear(), outer=False).outer

    class Saddle(Slow):
        h = -0.05

    with pytest.raises(hg.IndefiniteError, match="cannot suggest an outer step where the inner loss is not convex"):
        hg.step_sizes(Saddle())


def test_the_numbers_are_shown():
    text = repr(hg.step_sizes(LeastSquares()))
    assert all(number in text for number in ("inner step 0.", "outer step 0.", " products"))
