"""LBFGS and Newton: how far they solve an inner problem, and what they refuse."""

import pytest
import torch
from tables import PROBLEMS, in_float64, relative_error
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.core.autodiff import flatten
from hypergrad.problem.oracle import Oracle
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.training import Training


class Softmax(hg.InnerProblem):
    """Softmax regression with intercept and one penalty for the weights."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.X = torch.randn(60, 5, generator=generator)
        self.y = (self.X @ torch.randn(5, 3, generator=generator)).argmax(1)

    def init_params(self):
        return {"W": self.X.new_zeros(5, 3), "b": self.X.new_zeros(3)}

    def hyperparameters(self):
        return {"l2": hg.Hyperparameter(1e-2, constraint=hg.positive)}

    def inner_loss(self, params, hparams, batch):
        penalty = hparams["l2"] * flatten(params).square().sum() / 2
        return cross_entropy(self.X @ params["W"] + params["b"], self.y) + penalty

    def outer_loss(self, params, hparams, batch):
        return cross_entropy(self.X[:20] @ params["W"] + params["b"], self.y[:20])


class Valley(hg.InnerProblem):
    """Rosenbrock's valley, minimal at a = b = `end`, where its Hessian at the start is indefinite."""

    def init_params(self):
        return {"a": torch.tensor(0.5), "b": torch.tensor(2.0)}

    def hyperparameters(self):
        return {"end": hg.Hyperparameter(1.0)}

    def inner_loss(self, params, hparams, batch):
        a, b = params["a"], params["b"]
        return (hparams["end"] - a) ** 2 + 100 * (b - a**2) ** 2

    def outer_loss(self, params, hparams, batch):
        return params["a"] * params["b"]


SOLVERS = {
    "lbfgs": hg.LBFGS(),
    "newton": hg.Newton(),
    "newton, dense": hg.Newton(linsolve=hg.Dense()),
}
EVERY_SOLVER = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
INNER = PROBLEMS | {
    "softmax": Softmax,
    "valley": Valley,
    "κ = 1e6": in_float64(lambda: hg.Quadratic(size=20, condition=1e6, penalty=1e-9)),
}
STEPS = {"lbfgs": 300, "newton": 40, "newton, dense": 40}


@pytest.mark.parametrize("problem", INNER.values(), ids=INNER)
@pytest.mark.parametrize("name", SOLVERS)
def test_the_gradient_falls_by_ten_orders_of_magnitude(name, problem):
    problem = problem if isinstance(problem, hg.InnerProblem) else problem()
    hparams, start = problem.init_hparams(), problem.init_params()
    found = Training(solver=SOLVERS[name], steps=STEPS[name], tol=1e-10).run(problem, hparams, start)
    assert found.report.status == "converged"
    assert all(not w.requires_grad for w in found.params.values())
    assert found.params.keys() == start.keys()


@EVERY_SOLVER
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_implicit_hypergradient_is_that_of_the_closed_form(name, solver):
    problem = PROBLEMS[name]
    hparams = problem.init_hparams()
    estimator = hg.Implicit(solver=solver, linsolve=hg.CG(max_iter=500, tol=1e-12), inner_tol=1e-12)
    found = estimator.estimate(problem, hparams, problem.init_params())
    assert found.stats["inner_status"] == "converged"
    assert relative_error(found.grad, problem.hypergradient(hparams)) <= 1e-8


@EVERY_SOLVER
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_where_rounding_allows_no_further_step_training_ends(solver, dtype):
    problem = Softmax().to(dtype)
    problem.X = problem.X.to(dtype)
    hparams, start = problem.init_hparams(), problem.init_params()
    found = Training(solver=solver, steps=500, tol=1e-30).run(problem, hparams, start)
    first = flatten(problem.inner_loss_and_gradient(start, hparams, None)[1]).norm().item()
    assert found.report.grad_norm <= 100 * torch.finfo(dtype).eps * first
    if isinstance(solver, hg.Newton):
        assert found.report.status == "stagnated"
        assert found.report.steps < 40


@EVERY_SOLVER
def test_a_step_where_the_gradient_is_zero_is_none(solver):
    problem = hg.Quadratic(size=7)
    problem.c.zero_()
    hparams = {name: value * (name == "penalty") for name, value in problem.init_hparams().items()}
    state = solver.init(problem.init_params())
    assert Dynamics(problem, solver, hparams).step(state, 0) is state


@EVERY_SOLVER
def test_unrolling_is_refused_with_the_reason(solver):
    with pytest.raises(ValueError, match="Unrolled differentiates .* found by a search. Use Implicit .* or a solver"):
        hg.Unrolled(solver=solver)


class MiniBatches(Softmax):
    def inner_batch(self, step):
        return {"X": self.X[step % 3 :: 3], "y": self.y[step % 3 :: 3]}


class SameBatches(Softmax):
    def inner_batch(self, step):
        return {"X": self.X.clone(), "y": self.y.clone(), "weight": 1.0}


@EVERY_SOLVER
def test_a_batch_that_is_the_same_at_every_step_is_no_mini_batch(solver):
    problem, same = Softmax(), SameBatches()
    ends = [Training(solver=solver, steps=3).run(p, p.init_hparams(), p.init_params()).report for p in (problem, same)]
    assert ends[0] == ends[1]


@EVERY_SOLVER
def test_mini_batches_are_refused(solver):
    problem = MiniBatches()
    estimator = hg.Implicit(solver=solver)
    with pytest.raises(ValueError, match=r"MiniBatches.inner_batch\(0\) and inner_batch\(1\) differ. Return all"):
        estimator.estimate(problem, problem.init_hparams(), problem.init_params())


def test_a_group_of_nothing_is_refused():
    problem = Softmax()
    with pytest.raises(ValueError, match="LBFGS.groups is set, but no coefficient differs by group"):
        hg.Implicit(solver=hg.LBFGS(groups=("W", "b"))).estimate(problem, problem.init_hparams(), problem.init_params())


def two_loops(grad, s, y):
    """B ∇g by the recursion over the pairs, newest first and back."""
    q, alphas = grad.clone(), []
    for si, yi in zip(reversed(s), reversed(y), strict=True):
        alphas.append(si @ q / (si @ yi))
        q -= alphas[-1] * yi
    q *= s[-1] @ y[-1] / (y[-1] @ y[-1])
    for si, yi, alpha in zip(s, y, reversed(alphas), strict=True):
        q += (alpha - yi @ q / (si @ yi)) * si
    return q


@pytest.mark.parametrize("memory", [1, 4, 50])
def test_the_compact_representation_is_the_recursion(memory):
    from hypergrad.solver.lbfgs import _inverse_times

    problem, solver = Softmax(), hg.LBFGS(memory=memory)
    state = solver.init(problem.init_params())
    for t in range(12):
        state = Dynamics(problem, solver, problem.init_hparams()).step(state, t)
    s, y, grad = state["history"]["s"], state["history"]["y"], state["point"]["grad"]
    assert len(s) == min(memory, 12)
    truth = two_loops(grad, s, y)
    assert (_inverse_times(grad, state["history"]) - truth).norm() <= 1e-9 * truth.norm()


@EVERY_SOLVER
def test_what_a_solver_knows_of_its_state_is_true(solver):
    problem = Softmax()
    hparams, state = problem.init_hparams(), solver.init(problem.init_params())
    assert solver.known(state) is None
    for t in range(3):
        state = Dynamics(problem, solver, hparams).step(state, t)
        point = Oracle(problem, hparams, problem.inner_batch(t)).evaluate(solver.params(state))
        assert solver.known(state) == pytest.approx((point.loss, point.grad_norm), rel=1e-9)


def test_newton_refuses_a_condition_that_is_not_a_gradient():
    class Shifted(hg.Quadratic):
        def optimality(self, params, hparams, batch):
            return {name: w - 1 for name, w in params.items()}

    problem = Shifted()
    with pytest.raises(ValueError, match="Newton minimises the inner loss, but Shifted has a condition of its own"):
        hg.Implicit(solver=hg.Newton()).estimate(problem, problem.init_hparams(), problem.init_params())
