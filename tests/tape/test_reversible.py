"""Training on integers, run backwards: bit for bit, and with the gradient of the very run that was made."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from runs import STEPS, Network, case, problems
from slow_cases import mostly_slow
from tables import PROBLEMS, relative_error, synthetic

import hypergrad as hg
from hypergrad.core.autodiff import leaves
from hypergrad.tape.base import Trajectory
from hypergrad.tape.quantised import rational
from hypergrad.training.dynamics import Dynamics


@dataclass(frozen=True, kw_only=True)
class StoredQuantised(hg.Tape):
    """Keeps every state of the quantised run, and linearizes the steps of `Momentum` there."""

    reversible: hg.Reversible = hg.Reversible()

    def record(self, dynamics, state, steps):
        run, states = self.reversible.start(dynamics, state), []
        for t in steps:
            states.append(run.state())
            run.step(t)
        return Trajectory(run.state(), (dynamics.linearize(states.pop(), t) for t in reversed(steps)))

    def cost(self, dynamics, footprint, steps):
        return None


COARSE = hg.Reversible(fraction_bits=20, max_denominator=50)


@pytest.mark.parametrize("reversible", [hg.Reversible(), COARSE], ids=["fine", "coarse"])
@pytest.mark.parametrize("problem", problems())
def test_is_the_stored_gradient_of_the_same_quantised_run(problem, reversible):
    problem, solver, hparams, start = case(problem, "momentum")
    estimator = hg.Unrolled(solver=solver, tape=reversible, inner_steps=STEPS)
    found = estimator.estimate(problem, hparams, start)
    stored = replace(estimator, tape=StoredQuantised(reversible=reversible)).estimate(problem, hparams, start)
    exact = replace(estimator, tape=hg.Store()).estimate(problem, hparams, start)
    assert relative_error(found.grad, stored.grad) <= 1e-10
    assert found.start is not None
    assert stored.start is not None
    for group in found.start:  # dF/dw₀ and dF/dv₀
        assert relative_error(found.start[group], stored.start[group]) <= 1e-10
    # half a unit at each rounding, some of which add up
    quantum = 2.0**-reversible.fraction_bits
    assert relative_error(found.grad, exact.grad) <= 1e4 * quantum
    # coarse enough to tell the quantised run from the other one
    assert (relative_error(found.grad, exact.grad) > 1e-9) == (reversible is COARSE)


class Scheduled(Network):
    """A momentum that is tuned step by step."""

    def hyperparameters(self):
        schedule = torch.linspace(0.501, 0.897, STEPS)
        return super().hyperparameters() | {"beta": hg.Hyperparameter(schedule)}


def test_a_decay_that_changes_by_the_step():
    problem, (_, solver, _, start) = Scheduled(), case("network", "momentum")
    hparams = problem.init_hparams()
    estimator = hg.Unrolled(solver=solver, tape=hg.Reversible(), inner_steps=STEPS)
    found = estimator.estimate(problem, hparams, start)
    assert relative_error(found.grad, replace(estimator, tape=hg.Store()).estimate(problem, hparams, start).grad) < 1e-8
    stored = replace(estimator, tape=StoredQuantised()).estimate(problem, hparams, start)
    assert relative_error(found.grad, stored.grad) <= 1e-10


@pytest.mark.parametrize("rows", [1, STEPS])
def test_coefficients_that_differ_by_tensor(rows):
    class ByTensor(Network):
        def hyperparameters(self):
            ramp = torch.linspace(0, 1, 3 * rows).reshape(rows, 3)
            more = {"lr": hg.Hyperparameter(0.02 + 0.07 * ramp), "beta": hg.Hyperparameter(0.5 + 0.4 * ramp)}
            return super().hyperparameters() | more

    problem, (_, solver, _, start) = ByTensor(), case("network", "momentum")
    estimator = hg.Unrolled(solver=solver, inner_steps=STEPS)
    coarse, stored, fine, exact = (
        replace(estimator, tape=tape).estimate(problem, problem.init_hparams(), start).grad
        for tape in (COARSE, StoredQuantised(reversible=COARSE), hg.Reversible(), hg.Store())
    )
    assert relative_error(coarse, stored) <= 1e-10
    assert relative_error(fine, exact) < 1e-8


def test_schedules():
    problem = PROBLEMS["quadratic"]
    start = {name: w + 0.3 for name, w in problem.init_params().items()}
    solver = hg.Momentum(
        lr=hg.Warmup(base=hg.Cosine(base=0.05, steps=STEPS), steps=4),
        momentum=hg.StepDecay(base=0.9, every=5, ratio=0.8),
    )
    estimator = hg.Unrolled(solver=solver, tape=hg.Reversible(), inner_steps=STEPS)
    exact = replace(estimator, tape=hg.Store()).estimate(problem, problem.init_hparams(), start)
    found = estimator.estimate(problem, problem.init_hparams(), start)
    assert relative_error(found.grad, exact.grad) <= 1e-10
    assert relative_error(found.params, exact.params) <= 1e-12


def there_and_back(beta, num_steps):
    problem = PROBLEMS["quadratic-stiff"]
    dynamics = Dynamics(problem, hg.Momentum(lr=0.02, momentum=beta), leaves(problem.init_hparams()))
    state = dynamics.solver.init({name: w + 1 / 3 for name, w in problem.init_params().items()})
    run = hg.Reversible().start(dynamics, state)
    begun = [dict(run.w), dict(run.v)]
    for t in range(num_steps):
        run.step(t)
    bits = {r.bits for r in run.remainders.values()}
    for t in reversed(range(num_steps)):
        run.back(t)
    for before, after in zip(begun, (run.w, run.v), strict=True):
        assert all(torch.equal(q, after[name]) for name, q in before.items())
    assert not any(r.words or r.x.any() for r in run.remainders.values())
    return bits


@pytest.mark.parametrize("problem", problems())
def test_checks_that_wait_change_no_bit(problem):
    problem, solver, hparams, start = case(problem, "momentum")
    dynamics = Dynamics(problem, solver, leaves(hparams))
    run, checked = (hg.Reversible().start(dynamics, solver.init(start)) for _ in range(2))
    for t in range(STEPS):
        run.step(t)
        checked._advance(t)
        for found, wanted in ((run.w, checked.w), (run.v, checked.v)):
            assert all(torch.equal(q, wanted[name]) for name, q in found.items())


@pytest.mark.parametrize("beta", mostly_slow([0.5, 0.9, 0.98, 0.99], [0.5, 0.9]))
def test_comes_back_bit_for_bit_within_the_bits_that_are_lost(beta):
    (bits,) = there_and_back(beta, 1000)
    assert bits <= 1.05 * 1000 * math.log2(1 / beta) + 64


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.5, 0.9, 0.98, 0.99])
def test_comes_back_bit_for_bit_from_far(beta):
    (bits,) = there_and_back(beta, 10_000)
    assert bits <= 1.05 * 10_000 * math.log2(1 / beta) + 64


def test_float32_too():
    problem = hg.Ridge(synthetic(0), l2=0.3).float()
    estimator = hg.Unrolled(solver=hg.Momentum(lr=0.02), tape=hg.Reversible(), inner_steps=300)
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert found.params["weight"].dtype == found.grad["l2"].dtype == torch.float32
    exact = replace(estimator, tape=hg.Store()).estimate(problem, problem.init_hparams(), problem.init_params())
    assert relative_error(found.grad, exact.grad) < 1e-4


def test_a_decay_becomes_the_ratio_next_to_it():
    assert [str(rational(beta, 2**16)) for beta in (0.5, 0.9, 0.98, 0.99)] == ["1/2", "9/10", "49/50", "99/100"]
    assert abs(float(rational(math.exp(-0.3), 2**16)) - math.exp(-0.3)) < 2**-31


# --- what is refused


def estimate(problem, **settings):
    settings = {"lr": 0.02, "momentum": 0.9, "inner_steps": 20, "tape": hg.Reversible()} | settings
    solver = hg.Momentum(lr=settings.pop("lr"), momentum=settings.pop("momentum"))
    estimator = hg.Unrolled(solver=solver, **settings)
    return estimator.estimate(problem, problem.init_hparams(), problem.init_params())


def test_another_solver_is_refused_by_name():
    problem = PROBLEMS["ridge"]
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.05), tape=hg.Reversible())
    with pytest.raises(ValueError, match=r"the solver is GradientDescent. Use Momentum, or use a tape that serves"):
        estimator.estimate(problem, problem.init_hparams(), problem.init_params())


@pytest.mark.parametrize(
    ("solver", "met"),
    [
        (hg.Momentum(dampening=0.2), "dampening = 0.2"),
        (hg.Momentum(weight_decay=0.1), "weight_decay = 0.1"),
        (hg.Momentum(weight_decay="decay"), "weight_decay = 'decay'"),
        (hg.Momentum(nesterov=True), "nesterov = True"),
        (hg.Momentum(dampening=0.2, weight_decay=0.1), "dampening = 0.2 and weight_decay = 0.1"),
    ],
    ids=["dampening", "weight decay", "tuned weight decay", "nesterov", "two"],
)
def test_what_the_integers_do_not_know_is_refused(solver, met):
    problem = hg.LearningToLearn(PROBLEMS["ridge"], {"decay": hg.Hyperparameter(0.1)})
    estimator = hg.Unrolled(solver=solver, tape=hg.Reversible())
    with pytest.raises(ValueError, match=f"but this Momentum has {met}. Leave that out .* such as Checkpoint"):
        estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert estimator.plan(problem).costs[repr(estimator.tape)] is None


class Tuned(hg.Ridge):
    """Ridge with a momentum to be tuned, outside what can be run backwards."""

    def hyperparameters(self):
        return super().hyperparameters() | {"beta": hg.Hyperparameter(0.0)}


def test_a_decay_of_0_is_refused():
    with pytest.raises(ValueError, match=r"above 0 and below 1, but it is 0\. Use a momentum such as 0.9"):
        estimate(Tuned(synthetic(0)), momentum="beta")


def test_a_decay_too_close_to_1_is_refused():
    with pytest.raises(ValueError, match="it is 0.999999, which is 1 as a ratio with denominators up to 65536"):
        estimate(PROBLEMS["ridge"], momentum=0.999999)


def test_a_step_that_leaves_the_fixed_point_is_refused_before_it_does():
    with pytest.raises(
        hg.FixedPointOverflowError,
        match=r"Inner step \d+ would give 'weight' or its velocity a value of .*room only below 1.64e\+04. Lower",
    ):
        estimate(PROBLEMS["ridge"], lr=1e3)


def test_a_gradient_that_is_not_a_number_is_refused():
    class Bad(hg.Ridge):
        def inner_loss(self, params, hparams, batch):
            return super().inner_loss(params, hparams, batch) * (torch.nan if batch == 3 else 1)

        def inner_batch(self, step):
            return step

    with pytest.raises(hg.NonFiniteError, match="gradient with respect to 'weight' is bad at step 3: 5 of 5 values"):
        estimate(Bad(synthetic(0)))


class Restless(hg.Ridge):
    """Ridge that is not the same when it is asked twice."""

    def __init__(self, what):
        super().__init__(synthetic(0))
        self.what, self.calls = what, 0
        self.generator = torch.Generator().manual_seed(0)

    def inner_batch(self, step):
        if self.what == "batch":
            return torch.randperm(len(self.y), generator=self.generator)[:20]
        return slice(None)

    def inner_loss(self, params, hparams, batch):
        w, self.calls = params["weight"], self.calls + 1
        if self.what == "noise":
            w = w + 1e-3 * torch.randn(w.shape, generator=self.generator)
        drift = 1e-3 if self.what == "drift" and self.calls > 25 else 0.0
        return (self.X[batch] @ w - self.y[batch]).square().mean() + hparams["l2"] * w.square().sum() + drift * w.sum()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("noise", "on the same batch of step 0, differ: the inner loss has a non-deterministic operation"),
        (
            "batch",
            r"inner_batch\(0\) returned a different batch when it was called again: make it a function of the step",
        ),
        ("drift", "are the same twice, so look for .* a counter or running statistics"),
    ],
)
def test_a_run_that_cannot_be_repeated_is_told_why(what, message):
    with pytest.raises(
        hg.ReversalError, match=f"must end where training started, but .* of 5 entries of w₀.*{message}"
    ):
        estimate(Restless(what))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"fraction_bits": 61}, ValueError, "Reversible.fraction_bits must be at most 60, but it is 61"),
        ({"fraction_bits": 4}, ValueError, "Reversible.fraction_bits must be at least 8, but it is 4"),
        (
            {"max_denominator": 2**21},
            ValueError,
            "max_denominator must be at most 1048576, but it is 2097152",
        ),
        ({"max_denominator": 1}, ValueError, "Reversible.max_denominator must be at least 2, but it is 1"),
        ({"fraction_bits": 48.0}, TypeError, "Reversible.fraction_bits must be an integer"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, error, message):
    with pytest.raises(error, match=message):
        hg.Reversible(**settings)
