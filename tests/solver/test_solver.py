"""SOLVERS × options against torch.optim, and what every step promises."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from tables import PROBLEMS, relative_error

import hypergrad as hg
from hypergrad.core.autodiff import flatten
from hypergrad.problem.precision import InPrecision
from hypergrad.solver.coefficient import Coefficient, ranged
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.training import Training

SGD, TAU = torch.optim.SGD, 2 / 3
ADAGRAD: Any = {"lr": 0.2, "lr_decay": 0.1, "weight_decay": 0.4, "initial_accumulator_value": TAU, "eps": 1e-3}
UPDATES = {
    "gradient descent": (hg.GradientDescent(lr=0.03), partial(SGD, lr=0.03)),
    "gradient descent, decay": (hg.GradientDescent(lr=0.03, weight_decay=0.4), partial(SGD, lr=0.03, weight_decay=0.4)),
    "momentum": (hg.Momentum(lr=0.02, momentum=0.8), partial(SGD, lr=0.02, momentum=0.8)),
    "momentum, dampening": (
        hg.Momentum(lr=0.02, momentum=0.8, dampening=0.3),
        partial(SGD, lr=0.02, momentum=0.8, dampening=0.3),
    ),
    "momentum, decay": (
        hg.Momentum(lr=0.02, momentum=0.8, weight_decay=0.4),
        partial(SGD, lr=0.02, momentum=0.8, weight_decay=0.4),
    ),
    "nesterov": (
        hg.Momentum(lr=0.02, momentum=0.8, nesterov=True),
        partial(SGD, lr=0.02, momentum=0.8, nesterov=True),
    ),
    "nesterov, decay": (
        hg.Momentum(lr=0.02, momentum=0.8, nesterov=True, weight_decay=0.4),
        partial(SGD, lr=0.02, momentum=0.8, nesterov=True, weight_decay=0.4),
    ),
    "adam": (hg.Adam(lr=0.02), partial(torch.optim.Adam, lr=0.02)),
    "adam, all options": (
        hg.Adam(lr=0.02, beta1=0.7, beta2=0.9, eps=1e-3, weight_decay=0.4),
        partial(torch.optim.Adam, lr=0.02, betas=(0.7, 0.9), eps=1e-3, weight_decay=0.4),
    ),
    "adamw": (hg.AdamW(lr=0.02), partial(torch.optim.AdamW, lr=0.02)),
    "adamw, all options": (
        hg.AdamW(lr=0.02, beta1=0.7, beta2=0.9, eps=1e-3, weight_decay=0.4),
        partial(torch.optim.AdamW, lr=0.02, betas=(0.7, 0.9), eps=1e-3, weight_decay=0.4),
    ),
    "adagrad": (hg.Adagrad(lr=0.2), partial(torch.optim.Adagrad, lr=0.2)),
    "adagrad, all options": (hg.Adagrad(**ADAGRAD), partial(torch.optim.Adagrad, **ADAGRAD)),
    "rmsprop": (hg.RMSprop(lr=0.02), partial(torch.optim.RMSprop, lr=0.02)),
    "rmsprop, centred": (hg.RMSprop(lr=0.02, centered=True), partial(torch.optim.RMSprop, lr=0.02, centered=True)),
    "rmsprop, momentum": (hg.RMSprop(lr=0.01, momentum=0.6), partial(torch.optim.RMSprop, lr=0.01, momentum=0.6)),
    "rmsprop, all options": (
        hg.RMSprop(lr=0.01, alpha=TAU, eps=1e-3, momentum=0.6, weight_decay=0.4, centered=True),
        partial(torch.optim.RMSprop, lr=0.01, alpha=TAU, eps=1e-3, momentum=0.6, weight_decay=0.4, centered=True),
    ),
}
EVERY_SOLVER = pytest.mark.parametrize("solver", [solver for solver, _ in UPDATES.values()], ids=UPDATES)


class MiniBatches(hg.Quadratic):
    """The quadratic with a linear term that is another one at every step, as mini-batches make it."""

    def inner_batch(self, step):
        return torch.randn(len(self.c), generator=torch.Generator().manual_seed(step))

    def inner_loss(self, params, hparams, batch):
        return super().inner_loss(params, hparams, None) + 0.3 * batch @ flatten(params)


def problem():
    return MiniBatches(size=7)


@pytest.mark.parametrize(("solver", "theirs"), UPDATES.values(), ids=UPDATES)
def test_the_update_is_that_of_torch_optim(solver, theirs):
    batches, first = problem(), 11
    hparams = batches.init_hparams()
    dynamics, state = Dynamics(batches, solver, hparams, first), solver.init(batches.init_params())
    reference = {name: w.clone().requires_grad_() for name, w in batches.init_params().items()}
    optimizer = theirs(list(reference.values()))
    for t in range(100):
        state = dynamics.step(state, t)
        optimizer.zero_grad()
        batches.inner_loss(reference, hparams, batches.inner_batch(first + t)).backward()
        optimizer.step()
    for name, w in solver.params(state).items():
        assert torch.allclose(w, reference[name].detach(), rtol=1e-10, atol=1e-12)


@EVERY_SOLVER
def test_no_graph_is_kept_without_grad_mode_and_no_argument_is_changed(solver):
    hparams = {name: value.requires_grad_() for name, value in problem().init_hparams().items()}
    dynamics = Dynamics(problem(), solver, hparams)
    with torch.no_grad():
        state = dynamics.transition(solver.init(problem().init_params()), 0)
        before = {part: {name: x.clone() for name, x in tensors.items()} for part, tensors in state.items()}
        after = dynamics.transition(state, 1)
    assert after.keys() == state.keys()
    for part, tensors in state.items():
        for name, x in tensors.items():
            assert torch.equal(x, before[part][name])
            assert not after[part][name].requires_grad
            assert after[part][name].shape == problem().init_params()[name].shape


@EVERY_SOLVER
def test_a_warm_started_run_counts_its_steps_from_its_own_start(solver):
    """Bias corrections, the first step of dampening, and schedules: only the batches go on."""
    quadratic = PROBLEMS["quadratic"]
    hparams, start = quadratic.init_hparams(), quadratic.init_params()
    estimator = hg.Unrolled(solver=solver, inner_steps=5)
    first, later = (estimator.estimate(quadratic, hparams, start, inner_step=step) for step in (0, 7))
    for name, grad in first.grad.items():
        assert torch.equal(grad, later.grad[name])


@pytest.mark.parametrize(
    "solver",
    [
        hg.GradientDescent(weight_decay=0.7),
        hg.Momentum(momentum=0.6, weight_decay=0.7),
        hg.Momentum(momentum=0.6, dampening=0.4),
        hg.Momentum(momentum=0.6, nesterov=True),
    ],
    ids=str,
)
def test_the_largest_learning_rate_is_where_a_quadratic_turns_unstable(solver):
    curvature = 2.5
    bound = solver.largest_lr(curvature, solver.values_at({}, 1))

    def spectral_radius(lr):
        def after(s):
            names = list(solver.init({"w": s[0]}))
            state = {name: {"w": x} for name, x in zip(names, s, strict=False)}
            at = replace(solver, lr=lr)
            new = at.update(state, {"w": curvature * s[0]}, at.coefficients_at({}, 1, {"w": s[0]}), 1)
            return torch.stack([new[name]["w"] for name in names])

        size = len(solver.init({"w": torch.zeros(())}))
        return torch.linalg.eigvals(torch.func.jacrev(after)(torch.ones(size))).abs().max()

    assert spectral_radius(0.999 * bound) < 1 < spectral_radius(1.001 * bound)


def test_training_stops_at_its_tolerance_relative_to_the_initial_parameters():
    ridge = PROBLEMS["ridge"]
    hparams, start = ridge.init_hparams(), ridge.init_params()
    first_norm = torch.cat(list(ridge.optimality(start, hparams, None).values())).norm().item()
    training = Training(solver=hg.GradientDescent(lr=0.1), steps=5000, tol=1e-6)
    trained = replace(training, check_every=1).run(ridge, hparams, start)
    assert trained.report.status == "converged"
    assert trained.report.grad_norm <= 1e-6 * first_norm
    # one step less would not have been enough, and a start at the solution takes none, whatever its own gradient
    before = replace(training, steps=trained.report.steps - 1).run(ridge, hparams, start)
    assert before.report.status == "max_iter"
    again = training.run(ridge, hparams, trained.params)
    assert again.report.steps == 0


REFUSED: dict[str, tuple[type, dict[str, Any], str]] = {
    "lr": (hg.Adam, {"lr": 0.0}, "Adam.lr must be greater than 0, but it is 0"),
    "decay": (hg.Momentum, {"momentum": 1.0}, "Momentum.momentum must be below 1, but it is 1"),
    "beta2": (hg.AdamW, {"beta2": -0.1}, "AdamW.beta2 must be at least 0, but it is -0.1"),
    "no number": (hg.RMSprop, {"alpha": None}, "RMSprop.alpha must be a number, but it is None"),
    "not finite": (hg.GradientDescent, {"lr": float("nan")}, "GradientDescent.lr must be finite, but it is nan"),
    "a schedule": (
        hg.Momentum,
        {"momentum": hg.Warmup(base=1.5, steps=3)},
        r"Momentum.momentum must be ≥ 0 and < 1, but the base of Warmup\(base=1.5, steps=3\) is 1.5",
    ),
    "dampening": (hg.Momentum, {"nesterov": True, "dampening": 0.1}, "has no dampening, but it is 0.1"),
    "nesterov": (hg.Momentum, {"nesterov": 1}, "Momentum.nesterov must be a bool, but it is 1"),
    "centered": (hg.RMSprop, {"centered": "yes"}, "RMSprop.centered must be a bool, but it is 'yes'"),
    "amsgrad": (hg.Adam, {"amsgrad": True}, "Adam has no option amsgrad: .* leave it out"),
    "maximize": (hg.RMSprop, {"maximize": True}, "RMSprop has no option maximize: .* change the sign"),
    "betas": (hg.Adam, {"betas": (0.9, 0.99)}, "Adam has no option betas: .* give them as beta1 and beta2"),
    "groups": (hg.Adam, {"groups": "*"}, r"Adam.groups must be a list of patterns, or .entry., but it is '\*'"),
    "memory": (hg.LBFGS, {"memory": 0}, "LBFGS.memory must be at least 1, but it is 0"),
    "linsolve": (hg.Newton, {"linsolve": "cg"}, "Newton.linsolve must be a LinearSolver, but it is 'cg'"),
}


@pytest.mark.parametrize(("kind", "setting", "message"), REFUSED.values(), ids=REFUSED)
def test_a_setting_out_of_range_is_refused(kind, setting, message):
    with pytest.raises((TypeError, ValueError), match=message):
        kind(**setting)


def test_an_implicit_estimator_refuses_a_solver_that_ends_elsewhere():
    for solver in (hg.AdamW(), hg.Momentum(weight_decay=0.1), hg.GradientDescent(weight_decay="penalty")):
        with pytest.raises(ValueError, match="the weight_decay of .* leads elsewhere. Set it to 0"):
            hg.Implicit(solver=solver)
    hg.Implicit(solver=hg.AdamW(weight_decay=0.0))


@dataclass(frozen=True, kw_only=True)
class Descent(hg.InnerSolver):
    """The solver in the docstring of `InnerSolver`."""

    lr: Coefficient = ranged(0.1, above=0)

    def update(self, state, grad, coefficients, t):
        return {"params": {k: w - coefficients["lr"][k] * grad[k] for k, w in state["params"].items()}}


@dataclass(frozen=True, kw_only=True)
class Rooting(hg.InnerSolver):
    """The same by a step of its own, which asks for the condition φ = ∇g."""

    lr: Coefficient = ranged(0.1, above=0)

    def step(self, oracle, state, coefficients, t):
        assert oracle.problem.is_minimisation
        phi = oracle.optimality(state["params"])
        return {"params": {k: w - coefficients["lr"][k] * phi[k] for k, w in state["params"].items()}}


@pytest.mark.parametrize("kind", [Descent, Rooting])
@pytest.mark.parametrize("estimator", [hg.Unrolled, hg.Forward])
@pytest.mark.parametrize("shape", [(), (9,), (1, 2)], ids=["one", "per step", "per tensor"])
def test_a_solver_of_ones_own_is_differentiated_through(kind, estimator, shape):
    class Tuned(hg.Quadratic):
        def hyperparameters(self):
            return super().hyperparameters() | {"rate": hg.Hyperparameter(0.02 * torch.ones(shape))}

    problem = Tuned(size=7)
    hparams, start = problem.init_hparams(), problem.init_params()
    own, ours = (
        estimator(solver=solver(lr="rate"), inner_steps=9).estimate(problem, hparams, start)
        for solver in (kind, hg.GradientDescent)
    )
    assert relative_error(own.grad, ours.grad) <= 1e-12
    assert relative_error(own.params, ours.params) <= 1e-12


@pytest.mark.parametrize("kind", [Descent, Rooting])
def test_a_solver_of_ones_own_trains_to_the_closed_form(kind):
    ridge = PROBLEMS["ridge"]
    hparams = ridge.init_hparams()
    estimator = hg.Implicit(solver=kind(lr=0.1), linsolve=hg.Dense(), inner_steps=5000, inner_tol=1e-12)
    found = estimator.estimate(ridge, hparams, ridge.init_params())
    assert relative_error(found.grad, ridge.hypergradient(hparams)) <= 1e-8


def test_a_coefficient_of_a_solver_of_ones_own_is_checked():
    with pytest.raises(ValueError, match="Descent.lr must be greater than 0, but it is -1"):
        Descent(lr=-1.0)


def test_a_solver_for_an_earlier_contract_is_refused_with_the_new_one():
    with pytest.raises(
        TypeError, match=r"Old.update has a parameter 'hparams', .* update\(self, state, grad, coef.*ranged"
    ):

        class Old(hg.InnerSolver):
            def update(self, state, grad, hparams, t):  # pyright: ignore[reportIncompatibleMethodOverride]
                return state

    with pytest.raises(TypeError, match=r"Older.step has a parameter '.*step\(self, oracle, state, coefficients, t\)"):

        class Older(hg.InnerSolver):
            @torch.no_grad()
            def step(self, problem, state, hparams, t, first_step=0):  # pyright: ignore[reportIncompatibleMethodOverride]
                return state

    with pytest.raises(TypeError, match=r"Bounded.largest_lr has .*largest_lr\(self, curvature, values\)"):

        class Bounded(hg.Momentum):
            def largest_lr(self, curvature, hparams, t):  # pyright: ignore[reportIncompatibleMethodOverride]
                return None


def test_a_solver_without_a_dynamics_says_so():
    class Empty(hg.InnerSolver):
        pass

    with pytest.raises(NotImplementedError, match="Empty defines neither update nor step"):
        Training(solver=Empty(), steps=1).run(problem(), problem().init_hparams(), problem().init_params())


def regression():
    torch.manual_seed(0)
    train, dev = ((torch.randn(12, 3), torch.randn(12, 1)) for _ in range(2))
    model, loss = torch.nn.Linear(3, 1), torch.nn.MSELoss()
    return hg.Supervised(model=model, loss=loss, train=train, dev=dev, hyperparameters={"l2": hg.L2(per="tensor")})


PENALISED = {
    "supervised": regression,
    "folds": lambda: hg.k_fold(regression(), 3),
    "tied": lambda: hg.Tied(regression(), name="l2", groups=1),
    "precision": lambda: InPrecision(regression(), "bf16-mixed"),
    "ridge": lambda: PROBLEMS["ridge"],
}


@pytest.mark.parametrize("make", PENALISED.values(), ids=PENALISED)
@pytest.mark.parametrize("estimator", [hg.Unrolled, hg.Forward])
def test_a_penalty_of_the_loss_is_not_a_weight_decay_too(make, estimator):
    made = make()
    how = estimator(solver=hg.Momentum(lr=0.1, weight_decay="l2"), inner_steps=3)
    with pytest.raises(ValueError, match="Momentum.weight_decay = 'l2' .* already acts .* twice. Declare it"):
        how.estimate(made, made.init_hparams(), made.init_params())


def test_a_coefficient_may_have_the_name_of_a_penalty_that_is_fixed():
    made = hg.LearningToLearn(regression(), {"l2": hg.Hyperparameter(0.01)})
    how = hg.Unrolled(solver=hg.Momentum(lr=0.1, weight_decay="l2"), inner_steps=3)
    assert how.estimate(made, made.init_hparams(), made.init_params()).grad["l2"].isfinite()
