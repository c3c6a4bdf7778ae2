"""ESTIMATORS × PROBLEMS × settings: closed forms as truth, finite differences as the independent witness."""

from dataclasses import replace

import pytest
import torch
from slow_cases import mostly_slow
from tables import PROBLEMS, as_matrix, grad_of, relative_error

import hypergrad as hg
from hypergrad.core.autodiff import central_difference, detach, flatten, unflatten
from hypergrad.estimator.dev_loss import train_and_evaluate
from hypergrad.tape.base import TapeCost
from hypergrad.training.training import Training

GD = hg.GradientDescent(lr=0.09)
HEAVY_BALL = hg.Momentum(lr=0.07, momentum=0.8)
CONVERGED = {"inner_steps": 40_000, "inner_tol": 1e-13}
ESTIMATORS: dict[str, hg.HypergradEstimator] = {
    "ift-cg": hg.Implicit(solver=GD, linsolve=hg.CG(max_iter=500, tol=1e-12), **CONVERGED),
    "ift-cg-momentum": hg.Implicit(solver=HEAVY_BALL, linsolve=hg.CG(max_iter=500, tol=1e-12), **CONVERGED),
    "ift-neumann": hg.Implicit(solver=HEAVY_BALL, linsolve=hg.Neumann(num_terms=20_000, tol=1e-12), **CONVERGED),
    "ift-dense": hg.Implicit(solver=HEAVY_BALL, linsolve=hg.Dense(), **CONVERGED),
    "unrolled": hg.Unrolled(solver=GD, inner_steps=2800),
    "unrolled-momentum": hg.Unrolled(solver=HEAVY_BALL, inner_steps=1200),
    "unrolled-truncated": hg.Unrolled(solver=HEAVY_BALL, inner_steps=1800, horizon=1200),
}
EVERY_PROBLEM = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
SCALES = {"as declared": 1.0, "half": 0.5}


def moved(problem, scale):
    return {name: scale * value for name, value in problem.init_hparams().items()}


def somewhere(problem, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(w.shape, generator=generator) for name, w in problem.init_params().items()}


@pytest.mark.parametrize("scale", mostly_slow(SCALES, ["half"]))
@EVERY_PROBLEM
@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_matches_the_closed_form(estimator, problem, scale):
    hparams = moved(problem, scale)
    found = estimator.estimate(problem, hparams, problem.init_params())
    assert relative_error(found.grad, problem.hypergradient(hparams)) <= 1e-8
    assert relative_error(found.params, problem.solution(hparams)) <= 1e-8
    assert found.outer_loss == pytest.approx(problem.outer_loss(problem.solution(hparams), hparams, None).item())


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@EVERY_PROBLEM
def test_the_closed_form_is_the_gradient_of_the_solution(problem, scale):
    hparams = moved(problem, scale)
    by_autograd = grad_of(lambda hp: problem.outer_loss(problem.solution(hp), hp, None), hparams)
    assert relative_error(problem.hypergradient(hparams), by_autograd) <= 1e-10


@pytest.mark.parametrize("name", ["ift-cg", "ift-dense", "unrolled-momentum"])
@EVERY_PROBLEM
def test_agrees_with_central_differences_through_retraining(problem, name):
    hparams, direction = problem.init_hparams(), somewhere_like(problem.init_hparams())
    estimator = ESTIMATORS[name]
    found = estimator.estimate(problem, hparams, problem.init_params())

    def retrained(hp):
        trained = Training(solver=HEAVY_BALL, steps=40_000, tol=1e-13).run(problem, hp, problem.init_params())
        return problem.outer_loss(trained.params, hp, None)

    witness = central_difference(retrained, hparams, direction, step=1e-5)
    assert flatten(found.grad) @ flatten(direction) == pytest.approx(witness.item(), rel=1e-6)


def somewhere_like(tensors):
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(value.shape, generator=generator) for name, value in tensors.items()}


# --- truncated and unconverged: against autograd through the very same iterations


def by_hand(problem, hp, params, steps, horizon, lr, momentum):
    """Heavy-ball momentum as one would write it, cut off from λ before the horizon."""
    w, velocity = params, {name: torch.zeros_like(p) for name, p in params.items()}
    for t in range(steps):
        if t == steps - horizon:
            w, velocity = detach(w), detach(velocity)
        w = {name: p if p.requires_grad else p.requires_grad_() for name, p in w.items()}
        grads = torch.autograd.grad(problem.inner_loss(w, hp, None), tuple(w.values()), create_graph=True)
        velocity = {name: momentum * velocity[name] + g for name, g in zip(w, grads, strict=True)}
        w = {name: p - lr * velocity[name] for name, p in w.items()}
    return problem.outer_loss(w, hp, None)


@pytest.mark.parametrize(("steps", "horizon"), [(1, None), (6, None), (6, 6), (6, 4), (6, 1)])
@pytest.mark.parametrize("momentum", [0.0, 0.7])
@EVERY_PROBLEM
def test_unrolled_is_autograd_through_the_same_steps(problem, momentum, steps, horizon):
    hparams, start = problem.init_hparams(), somewhere(problem)
    solver = hg.Momentum(lr=0.05, momentum=momentum) if momentum else hg.GradientDescent(lr=0.05)
    found = hg.Unrolled(solver=solver, inner_steps=steps, horizon=horizon).estimate(problem, hparams, start)
    truth = grad_of(lambda hp: by_hand(problem, hp, detach(start), steps, horizon or steps, 0.05, momentum), hparams)
    assert relative_error(found.grad, truth) <= 1e-10


@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize("steps", [0, 3])
@EVERY_PROBLEM
def test_implicit_before_convergence_is_the_formula_where_training_stopped(problem, steps, damping):
    hparams, start = problem.init_hparams(), somewhere(problem)
    estimator = hg.Implicit(solver=GD, linsolve=hg.Dense(), inner_steps=steps, inner_tol=0.0, damping=damping)
    found = estimator.estimate(problem, hparams, start)
    H, df_dw, mixed = as_matrix(problem, found.params, hparams)
    v = torch.linalg.solve(H + damping * torch.eye(len(H)), df_dw)
    direct = torch.func.grad(lambda hp: problem.outer_loss(found.params, hp, None))(hparams)
    truth = {name: direct[name] - torch.tensordot(v, mixed[name], dims=1) for name in hparams}
    assert relative_error(found.grad, truth) <= 1e-10
    assert found.stats["inner_status"] == ("max_iter" if steps else "not_required")


@pytest.mark.parametrize("terms", [1, 5, 20])
@EVERY_PROBLEM
def test_neumann_terms_at_the_solution_are_unrolled_steps_there(problem, terms):
    hparams, lr = problem.init_hparams(), 0.06
    solution = problem.solution(hparams)
    neumann = hg.Implicit(linsolve=hg.Neumann(num_terms=terms, scale=lr, tol=0.0), inner_steps=0)
    unrolled = hg.Unrolled(solver=hg.GradientDescent(lr=lr), inner_steps=terms)
    found = neumann.estimate(problem, hparams, solution)
    assert relative_error(found.grad, unrolled.estimate(problem, hparams, solution).grad) <= 1e-10
    assert found.stats["num_matvecs"] == terms
    assert found.stats["adjoint_status"] == "max_iter"


# --- solver coefficients as hyperparameters


class WithCoefficients(hg.Quadratic):
    """The quadratic with a learning rate per step and a momentum to be tuned too."""

    def hyperparameters(self):
        schedule = torch.linspace(0.04, 0.11, 9)
        return super().hyperparameters() | {"lr": hg.Hyperparameter(schedule), "beta": hg.Hyperparameter(0.6)}


@pytest.mark.parametrize("horizon", [None, 9])
def test_learning_rate_schedule_and_momentum_agree_with_central_differences(horizon):
    problem = WithCoefficients(size=6)
    solver = hg.Momentum(lr="lr", momentum="beta")
    estimator = hg.Unrolled(solver=solver, inner_steps=9, horizon=horizon)
    hparams, start = problem.init_hparams(), somewhere(problem)
    found = estimator.estimate(problem, hparams, start)
    for name in hparams:
        direction = {k: torch.zeros_like(v) for k, v in hparams.items()} | {name: torch.ones_like(hparams[name])}
        if name == "lr":
            direction["lr"] = torch.linspace(-1, 1, 9)

        def trained(hp):
            end = Training(solver=solver, steps=9).run(problem, hp, start)
            return problem.outer_loss(end.params, hp, None)

        witness = central_difference(trained, hparams, direction, step=1e-5)
        assert flatten(found.grad) @ flatten(direction) == pytest.approx(witness.item(), rel=1e-6)


def test_a_coefficient_is_refused_by_name_where_it_cannot_be_seen_or_fit():
    problem = WithCoefficients(size=6)
    start, hparams = problem.init_params(), problem.init_hparams()
    # Before a step is made, which would be one of NaN, or end where the system has no solution.
    poisoned = {name: x * float("nan") if name == "lr" else x for name, x in hparams.items()}
    with pytest.raises(hg.UnusedHyperparameterError, match="'lr'.*An implicit estimator cannot tune a coefficient"):
        hg.Implicit(solver=hg.Momentum(lr="lr", momentum="beta"), inner_steps=9).estimate(problem, poisoned, start)
    with pytest.raises(hg.UnusedHyperparameterError, match="hyperparameter 'beta'.*neither the last 9 training steps"):
        hg.Unrolled(solver=hg.GradientDescent(lr="lr"), inner_steps=9).estimate(problem, hparams, start)
    with pytest.raises(
        ValueError, match="GradientDescent.lr = 'rate' is neither a number nor the name .* the problem has beta, lr"
    ):
        hg.Unrolled(solver=hg.GradientDescent(lr="rate")).estimate(problem, hparams, start)
    with pytest.raises(ValueError, match=r"has shape \(9,\), but .* shape \(10,\)"):
        hg.Unrolled(solver=hg.GradientDescent(lr="lr"), inner_steps=10).estimate(problem, hparams, start)


# --- an estimate is a pure function, and says what it stands on


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_arguments_stay_untouched_and_estimates_repeat(estimator):
    problem = PROBLEMS["quadratic"]
    if isinstance(estimator, hg.Unrolled):
        estimator = replace(estimator, inner_steps=90, horizon=estimator.horizon and 60)
    hparams = {name: value.requires_grad_() for name, value in problem.init_hparams().items()}
    start = {name: value.requires_grad_() for name, value in somewhere(problem).items()}
    before = {name: value.detach().clone() for name, value in (hparams | start).items()}
    with torch.no_grad():
        first = estimator.estimate(problem, hparams, start)
    second = estimator.estimate(problem, hparams, start)
    for name, value in (hparams | start).items():
        assert torch.equal(value.detach(), before[name])
        assert value.grad is None
    assert all(torch.equal(first.grad[name], second.grad[name]) for name in hparams)
    assert not any(value.requires_grad for value in (first.grad | first.params).values())


def test_not_converged_is_a_status():
    problem = PROBLEMS["quadratic-stiff"]
    estimator = hg.Implicit(linsolve=hg.CG(max_iter=2, tol=1e-8), inner_steps=7, inner_tol=1e-8)
    stats = estimator.estimate(problem, problem.init_hparams(), problem.init_params()).stats
    assert stats["inner_status"] == stats["adjoint_status"] == "max_iter"
    assert stats["inner_steps"] == 7
    assert stats["num_matvecs"] == 2
    assert float(stats["adjoint_residual"]) > 1e-8


class MiniBatches(hg.Ridge):
    """Ridge on batches that are a function of the step."""

    def inner_batch(self, step):
        return torch.randperm(len(self.y), generator=torch.Generator().manual_seed(step))[:8]

    def outer_batch(self, step):
        return torch.randperm(len(self.y_dev), generator=torch.Generator().manual_seed(step))[:20]

    def inner_loss(self, params, hparams, batch):
        residual = self.X[batch] @ params["weight"] - self.y[batch]
        return residual.square().mean() + (hparams["l2"] * params["weight"] ** 2).sum()

    def outer_loss(self, params, hparams, batch):
        return (self.X_dev[batch] @ params["weight"] - self.y_dev[batch]).square().mean()


def test_batches_follow_the_inner_and_outer_step():
    from tables import synthetic

    problem = MiniBatches(synthetic(2))
    hparams, start = problem.init_hparams(), somewhere(problem)
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.02), inner_steps=5)
    found = estimator.estimate(problem, hparams, start, outer_step=3, inner_step=15)

    def by_hand(hp):
        w = detach(start)["weight"].requires_grad_()
        for t in range(15, 20):
            (g,) = torch.autograd.grad(
                problem.inner_loss({"weight": w}, hp, problem.inner_batch(t)), w, create_graph=True
            )
            w = w - 0.02 * g
        return problem.outer_loss({"weight": w}, hp, problem.outer_batch(3))

    assert relative_error(found.grad, grad_of(by_hand, hparams)) <= 1e-12
    other = estimator.estimate(problem, hparams, start, outer_step=3, inner_step=0)
    assert relative_error(other.grad, found.grad) > 1e-3


# --- what is refused


class Broken(hg.Quadratic):
    def __init__(self, what):
        super().__init__(size=5)
        self.what = what

    def hyperparameters(self):
        more = {"idle": hg.Hyperparameter(1.0)} if self.what == "idle" else {}
        return super().hyperparameters() | more

    def inner_loss(self, params, hparams, batch):
        loss = super().inner_loss(params, hparams, batch)
        if self.what == "nan inner":
            return loss * float("nan")
        return -loss if self.what == "concave" else loss

    def outer_loss(self, params, hparams, batch):
        if self.what == "ignores w":
            return hparams["penalty"] * 2
        loss = super().outer_loss(params, hparams, batch)
        if self.what == "root":
            loss = loss + (hparams["penalty"] - hparams["penalty"].detach()).sqrt()
        return loss * float("nan") if self.what == "nan outer" else loss.detach() if self.what == "constant" else loss


BOTH = {"implicit": hg.Implicit(inner_steps=50), "unrolled": hg.Unrolled(inner_steps=50)}


@pytest.mark.parametrize("estimator", BOTH.values(), ids=BOTH)
@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("idle", hg.UnusedHyperparameterError, "Nothing depends on the hyperparameter 'idle'"),
        ("nan inner", hg.NonFiniteError, "Before any training the inner loss is nan"),
        ("nan outer", hg.NonFiniteError, "The outer loss is nan"),
        ("root", hg.NonFiniteError, "with respect to 'penalty' holds NaN or infinite values although the losses are"),
        ("ignores w", ValueError, "depends on none of the parameters"),
        ("constant", ValueError, "depends on none of the parameters"),
    ],
)
def test_meaningless_numbers_are_refused(what, error, message, estimator):
    problem = Broken(what)
    with pytest.raises(error, match=message):
        estimator.estimate(problem, problem.init_hparams(), problem.init_params())


def test_cg_at_a_point_of_negative_curvature_is_refused():
    problem = Broken("concave")
    with pytest.raises(hg.IndefiniteError, match="CG needs a positive definite matrix.*damping larger than"):
        hg.Implicit(inner_steps=0).estimate(problem, problem.init_hparams(), problem.init_params())


@pytest.mark.parametrize("steps", [30, 60_000], ids=["still finite", "infinite"])
@pytest.mark.parametrize("kind", ["implicit", "unrolled"])
def test_training_that_blows_up_names_step_loss_rate_and_bound(kind, steps):
    problem = hg.Quadratic(size=5, curvature=4.0, penalty=0.1)
    if kind == "unrolled":
        steps = min(steps, 2000)
    solver = hg.GradientDescent(lr=0.7)
    estimator = (
        hg.Unrolled(solver=solver, inner_steps=steps)
        if kind == "unrolled"
        else hg.Implicit(solver=solver, inner_steps=steps)
    )
    with pytest.raises(hg.DivergenceError) as caught:
        estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    message = str(caught.value)
    assert "after inner step" in message
    assert "The learning rate 7.00e-01 is above 4.88e-01" in message  # 2 / (4 + 0.1)


class Rates(hg.Quadratic):
    """With a learning rate for each of the two tensors."""

    def hyperparameters(self):
        return super().hyperparameters() | {"rate": hg.Hyperparameter(torch.tensor([[9.0, 0.1]]))}


@pytest.mark.parametrize("solver", [hg.GradientDescent(lr="rate"), hg.Momentum(lr=0.1, momentum="rate")], ids=repr)
def test_where_coefficients_differ_by_tensor_no_bound_is_named(solver):
    problem = Rates(size=5)
    hparams = problem.init_hparams() | ({"rate": torch.tensor([[0.99, 0.9]])} if solver.lr == 0.1 else {})
    problem.A.mul_(1e3)
    with pytest.raises(
        hg.DivergenceError, match=r"The (largest of the learning rates was 9|learning rate was 1.00e-01)"
    ):
        hg.Unrolled(solver=solver, inner_steps=500).estimate(problem, hparams, problem.init_params())


def test_momentum_has_the_wider_bound():
    problem = hg.Quadratic(size=5, curvature=4.0, penalty=0.1)
    estimator = hg.Unrolled(solver=hg.Momentum(lr=1.0, momentum=0.5), inner_steps=300)
    with pytest.raises(hg.DivergenceError, match="1.00e\\+00 is above 7.32e-01"):
        estimator.estimate(problem, problem.init_hparams(), problem.init_params())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: hg.Unrolled(inner_steps=0), ValueError, "Unrolled.inner_steps must be at least 1, but it is 0"),
        (lambda: hg.Unrolled(inner_steps=5, horizon=6), ValueError, "at most inner_steps = 5, but it is 6"),
        (lambda: hg.Unrolled(horizon=-1), ValueError, "horizon must be at least 0"),
        (lambda: hg.Implicit(damping=-1.0), ValueError, "damping must be at least 0"),
        (lambda: hg.Implicit(solver="sgd"), TypeError, "Implicit.solver must be an InnerSolver"),  # pyright: ignore
        (lambda: hg.Unrolled(solver=torch.optim.AdamW), TypeError, r"it is AdamW of torch\.optim.* such as hg\.AdamW"),  # pyright: ignore
        (lambda: hg.GradientDescent(lr=0.0), ValueError, "lr must be greater than 0"),
        (lambda: hg.GradientDescent(lr=float("nan")), ValueError, "lr must be finite"),
        (lambda: hg.Momentum(momentum=1.0), ValueError, "momentum must be below 1"),
    ],
)
def test_bad_settings_are_refused_by_name(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_unflatten_is_the_inverse_of_flatten():
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7.0), "c": torch.arange(2.0)}
    back = unflatten(flatten(tensors), tensors)
    assert all(torch.equal(back[name], value) for name, value in tensors.items())


def test_no_horizon_at_all_leaves_the_start_and_nothing_else():
    problem = PROBLEMS["quadratic"]
    estimator = hg.Unrolled(solver=HEAVY_BALL, inner_steps=7, horizon=0)
    with pytest.raises(
        hg.UnusedHyperparameterError,
        match="start of training does not depend on .* Use a horizon of 1",
    ):
        estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    plan = estimator.plan(problem)
    assert plan.horizon == 0
    assert plan.costs["no tape"] == TapeCost(memory=0, gradients=7)


# --- the training of an estimator


class Constant(hg.HypergradEstimator):
    """An estimator of one's own, which says nothing about training."""

    inner_steps = 0

    def estimate(self, problem, hparams, params, **_):
        return hg.Hypergradient(grad=hparams, params=params, outer_loss=0.0)


@pytest.mark.parametrize("kind", [hg.Implicit, hg.Unrolled, hg.Forward])
def test_an_estimator_evaluates_where_its_own_training_ends(kind):
    problem, estimator = PROBLEMS["ridge"], kind(solver=HEAVY_BALL, inner_steps=30)
    hparams, start = problem.init_hparams(), problem.init_params()
    found = estimator.estimate(problem, hparams, start)
    alone = train_and_evaluate(problem, estimator, hparams)
    assert alone.outer_loss == found.outer_loss
    assert relative_error(alone.params, found.params) == 0
    assert (
        alone.training.status == found.stats["inner_status"] == ("max_iter" if kind is hg.Implicit else "not_required")
    )
    assert alone.training.steps == found.stats["inner_steps"] == 30


def test_an_estimator_without_a_training_is_named():
    problem = PROBLEMS["ridge"]
    assert Constant().training is None
    with pytest.raises(TypeError, match="but Constant.training is None; let it return an hg.Training"):
        train_and_evaluate(problem, Constant(), problem.init_hparams())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": -1}, "Training.steps must be at least 0, but it is -1"),
        ({"tol": -0.1}, "Training.tol must be at least 0, but it is -0.1"),
        ({"check_every": 0}, "Training.check_every must be at least 1, but it is 0"),
        ({"solver": "adam"}, "Training.solver must be a.* InnerSolver, but it is 'adam'"),
    ],
)
def test_a_training_out_of_range_is_refused(settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Training(**{"solver": HEAVY_BALL, "steps": 3} | settings)
