"""Forward mode: the number that reverse mode finds, and the online form against dense Jacobians written out."""

from functools import partial
from itertools import product

import pytest
import torch
from runs import SOLVERS, STEPS, case, problems, slope
from tables import PROBLEMS, relative_error

import hypergrad as hg
from hypergrad.compile import inductor
from hypergrad.core.autodiff import flatten, jvp, unflatten
from hypergrad.solver.base import InnerSolver
from hypergrad.training.dynamics import Dynamics


@pytest.mark.parametrize("problem", problems())
@pytest.mark.parametrize("solver", SOLVERS)
def test_equals_unrolled(solver, problem):
    problem, solver, hparams, start = case(problem, solver)
    settings = {"solver": solver, "inner_steps": STEPS}
    found = hg.Forward(**settings).estimate(problem, hparams, start, outer_step=2, inner_step=24)
    reverse = hg.Unrolled(**settings).estimate(problem, hparams, start, outer_step=2, inner_step=24)
    assert relative_error(found.grad, reverse.grad) <= 1e-10
    assert relative_error(found.params, reverse.params) <= 1e-12
    assert found.outer_loss == pytest.approx(reverse.outer_loss)
    assert found.stats["inner_grad_norm"] == pytest.approx(reverse.stats["inner_grad_norm"])


@pytest.mark.parametrize("problem", problems())
@pytest.mark.parametrize("solver", SOLVERS)
def test_agrees_with_central_differences_through_retraining(solver, problem):
    problem, solver, hparams, start = case(problem, solver)
    found = hg.Forward(solver=solver, inner_steps=STEPS).estimate(problem, hparams, start)
    for name in hparams:
        direction, witness = slope(problem, solver, start, hparams, name)
        grads = {k: found.grad[k] if k == name else torch.zeros_like(v) for k, v in hparams.items()}
        assert flatten(grads) @ direction == pytest.approx(witness, rel=1e-6), name


def test_a_push_is_the_dense_jacobian_times_the_tangents():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, generator=generator, requires_grad=True)
    y = torch.randn((), generator=generator, requires_grad=True)
    idle = torch.ones(2, requires_grad=True)

    def function(x, y):
        return torch.sin(x.outer(x)) * y, (x * x).sum(), torch.ones(2)

    zs = [torch.randn(4, *t.shape, generator=generator) for t in (x, y, idle)]
    pushed, uses = jvp(function(x, y), (x, y, idle), zs)
    for k, found in enumerate(pushed):
        by_x, by_y = torch.autograd.functional.jacobian(lambda x, y, k=k: function(x, y)[k] + 0 * x[0], (x, y))
        truth = (by_x @ zs[0].T).movedim(-1, 0) + torch.einsum("p,...->p...", zs[1], by_y)
        assert torch.allclose(found, truth, rtol=1e-13, atol=1e-14)
    assert uses == [True, True, False]


# --- online: one training, λ moved every few steps


def by_jacobians(problem: hg.InnerProblem, solver: InnerSolver, lr: float, every: int, updates: int):
    """RTHO with dense Jacobians of the step: the values that λ comes to."""
    shapes = hparams = problem.init_hparams()
    state = solver.init(problem.init_params())
    names = [(g, k) for g, tensors in state.items() for k in tensors]
    like = {f"{g} {k}": state[g][k] for g, k in names}
    s = flatten(like)
    Z = torch.zeros(len(s), len(flatten(hparams)))
    for update in range(updates):
        for t in range(update * every, (update + 1) * every):

            def step(s, flat_hp, t=t):
                tensors = unflatten(s, like)
                before = {g: {k: tensors[f"{g} {k}"] for h, k in names if h == g} for g in state}
                after = Dynamics(problem, solver, unflatten(flat_hp, shapes)).transition(before, t)
                return flatten({f"{g} {k}": after[g][k] for g, k in names})

            by_s, by_hp = torch.autograd.functional.jacobian(step, (s, flatten(hparams)))
            Z = by_s @ Z + by_hp
            s = step(s.requires_grad_(), flatten(hparams)).detach()

        def dev_loss(s, flat_hp, update=update):
            tensors = unflatten(s, like)
            params = {k: tensors[f"params {k}"] for k in state["params"]}
            return problem.outer_loss(params, unflatten(flat_hp, shapes), problem.outer_batch(update))

        df_ds, direct = torch.autograd.functional.jacobian(dev_loss, (s, flatten(hparams)))
        hparams = unflatten(flatten(hparams) - lr * (direct + Z.T @ df_ds), hparams)
    return flatten(hparams)


class Free(hg.Quadratic):
    """Without constraints, so that a step of the optimiser is a step in λ; with the solver's coefficients."""

    def hyperparameters(self):
        free = {name: hg.Hyperparameter(h.init, shape=h.shape) for name, h in super().hyperparameters().items()}
        return free | {"lr": hg.Hyperparameter(0.05), "beta": hg.Hyperparameter(0.6)}


def test_online_updates_while_one_training_goes_on():
    problem, solver, rate = Free(size=5), hg.Momentum(lr="lr", momentum="beta"), 1e-5
    trainer = hg.Trainer(
        problem=problem,
        estimator=hg.Forward(solver=solver, inner_steps=4, online=True),
        optimizer=partial(torch.optim.SGD, lr=rate),
        outer_steps=6,
    )
    assert torch.allclose(
        flatten(trainer.fit().last.hparams), by_jacobians(problem, solver, rate, every=4, updates=6), rtol=1e-10
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_online_is_exact_as_long_as_the_hyperparameters_rest(solver):
    problem, solver, hparams, start = case("network", solver)
    online = hg.Forward(solver=solver, inner_steps=4, online=True)
    found = online.estimate(problem, hparams, start)
    for k in (1, 2):
        found = online.estimate(problem, hparams, found.params, inner_step=4 * k, carry=found.carry)
    whole = hg.Unrolled(solver=solver, inner_steps=12).estimate(problem, hparams, start)
    assert relative_error(found.grad, whole.grad) <= 1e-10


def test_online_does_not_mix_two_runs():
    problem, solver, hparams, start = case("quadratic", "momentum")
    online = hg.Forward(solver=solver, inner_steps=STEPS, online=True)
    carry = online.estimate(problem, hparams, start).carry
    message = "do not belong to the parameters that were given, whose state has 14 entries, and 17 hyperparameters"
    with pytest.raises(ValueError, match=message):
        online.estimate(problem, hparams, start, carry=carry)
    with pytest.raises(ValueError, match=message):
        online.estimate(problem, hparams, start, carry={"state": start})
    with pytest.raises(ValueError, match="this one is a tensor.* Continue that run with the version that began it"):
        online.estimate(problem, hparams, start, carry=torch.zeros(18, 15))


# --- what is refused


def test_what_nothing_depends_on_is_refused():
    problem = Free(size=5)
    with pytest.raises(hg.UnusedHyperparameterError, match="'lr': it enters neither the training steps nor the outer"):
        hg.Forward(solver=hg.Momentum(momentum="beta")).estimate(problem, problem.init_hparams(), problem.init_params())


def test_training_that_blows_up_is_refused():
    problem = PROBLEMS["quadratic"]
    with pytest.raises(hg.DivergenceError, match="The learning rate 7.00e-01 is above"):
        hg.Forward(solver=hg.GradientDescent(lr=0.7)).estimate(problem, problem.init_hparams(), problem.init_params())


def test_a_tuned_start_and_a_warm_start_exclude_each_other():
    problem, *_ = case("network", "momentum")
    with pytest.raises(ValueError, match="Network.initial defines where training starts.* use warm_start=False"):
        hg.Trainer(problem=problem, estimator=hg.Forward(), optimizer=partial(torch.optim.SGD, lr=0.1))


def test_bad_settings_are_refused_by_name():
    with pytest.raises(ValueError, match="Forward.inner_steps must be at least 1, but it is 0"):
        hg.Forward(inner_steps=0)
    with pytest.raises(TypeError, match="Forward.online must be a bool"):
        hg.Forward(online="yes")  # pyright: ignore[reportArgumentType]


# --- compiled steps


@pytest.fixture
def traced(monkeypatch):
    """Leaves the compiler out, and with it its ten seconds: what is left is all that is ours."""
    monkeypatch.setattr(inductor, "compile_graph", lambda graph, _: lambda tensors: graph(*tensors))


def compiled_and_not(problem, hparams, start, **settings):
    """The remark on compiled steps, after a check that their numbers are those of eager ones."""
    found, eager = (
        hg.Forward(compile=compile, **settings).estimate(problem, hparams, start, inner_step=24)
        for compile in (True, False)
    )
    assert eager.stats["training_remark"] == ""
    assert relative_error(found.grad, eager.grad) <= 1e-10
    assert relative_error(found.params, eager.params) <= 1e-12
    return str(found.stats["training_remark"])


IN_CI = [("adam", "network"), ("dampened", "network"), ("rmsprop", "ridge"), ("adagrad", "ridge")]


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("solver", "problem"),
    [
        pytest.param(*pair, marks=[] if pair in IN_CI else pytest.mark.slow)
        for pair in product(SOLVERS, ("network", "ridge"))
    ],
)
def test_compiled_steps_carry_the_same_derivatives(solver, problem):
    problem, solver, hparams, start = case(problem, solver)
    remark = compiled_and_not(problem, hparams, start, solver=solver, inner_steps=STEPS)
    scheduled = any(hparams[name].ndim for name in solver.coefficients().values() if isinstance(name, str))
    assert remark == (
        "not compiled: a coefficient that changes from step to step depends on a hyperparameter"
        if scheduled
        else "compiled, 10 steps in a call"
    )


@pytest.mark.usefixtures("traced")
def test_online_updates_go_on_in_compiled_steps():
    problem, estimator = hg.Ridge(hg.diabetes(seed=3)), partial(hg.Forward, inner_steps=7, online=True)
    sgd = partial(torch.optim.SGD, lr=0.5)
    ends = [
        hg.fit(problem, estimator(compile=compile), sgd, 4, progress=False).last.hparams for compile in (True, False)
    ]
    assert relative_error(*ends) <= 1e-10


@pytest.mark.usefixtures("traced")
def test_data_that_were_exchanged_are_noticed():
    problem = hg.Ridge(hg.diabetes(seed=3))
    settings = {"solver": hg.GradientDescent(lr=0.1), "inner_steps": 9}
    hparams, start = problem.init_hparams(), problem.init_params()
    assert compiled_and_not(problem, hparams, start, **settings) == "compiled, 8 steps in a call"
    problem.X = 1.5 * problem.X
    assert "has data of the problem changed" in compiled_and_not(problem, hparams, start, **settings)
    assert compiled_and_not(problem, hparams, start, solver=settings["solver"], inner_steps=2).endswith("too few steps")


@pytest.mark.slow
def test_the_compiler_itself():
    problem, solver, hparams, start = case("network", "momentum")
    assert compiled_and_not(problem, hparams, start, solver=solver, inner_steps=21).startswith("compiled")
