"""Compiled steps: the hypergradient of eager ones, or eager ones with the reason why."""

import gc
import weakref
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pytest
import torch
from runs import SOLVERS, STEPS, Network, case
from slow_cases import mostly_slow
from tables import relative_error, synthetic
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.compile import inductor
from hypergrad.core.autodiff import leaves
from hypergrad.solver.base import InnerSolver
from hypergrad.training.compile_steps import compile_steps
from hypergrad.training.dynamics import Dynamics

COMPILED = f"compiled, {STEPS // 2} steps in a call"
TAPES = [
    hg.Graph(),
    hg.Store(),
    hg.Store(offload="disk"),
    hg.Checkpoint(),
    hg.Checkpoint(slots=1, offload="disk"),
    hg.AutoTape(),
]


@pytest.fixture
def traced(monkeypatch):
    """Leaves the compiler out, and with it its ten seconds: what is left is all that is ours."""
    monkeypatch.setattr(inductor, "compile_graph", lambda graph, _: lambda tensors: graph(*tensors))


def both(problem, hparams, start, inner_step=0, tape: hg.Tape | None = None, **settings: Any):
    """The remark on compiled steps, after a check that their numbers are those of eager ones, on one tape or all."""
    settings = {"inner_steps": STEPS} | settings
    eager = hg.Unrolled(**settings).estimate(problem, hparams, start, inner_step=inner_step)
    assert eager.stats["training_remark"] == ""
    remarks = set()
    for each in [tape] if tape else TAPES:
        estimator = hg.Unrolled(compile=True, tape=each, **settings)
        found = estimator.estimate(problem, hparams, start, inner_step=inner_step)
        assert relative_error(found.grad, eager.grad) <= 1e-10
        assert relative_error(found.params, eager.params) <= 1e-12
        assert found.outer_loss == pytest.approx(eager.outer_loss, rel=1e-12)
        if found.start is not None:
            assert eager.start is not None
            for group in found.start:
                assert relative_error(found.start[group], eager.start[group]) <= 1e-10
        remarks.add(str(found.stats["training_remark"]))
    (remark,) = remarks
    return remark


@pytest.mark.usefixtures("traced")
def test_a_model_is_tried_for_second_derivatives_outside_the_trace():
    """The first gradient that is differentiated may be one of a traced step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    train, dev = ((torch.randn(6, 4), torch.arange(6) % 3) for _ in range(2))
    made = partial(hg.Supervised, model=model, loss=cross_entropy, train=train, dev=dev)
    for probe in (True, False):
        problem = made(hyperparameters={"l2": hg.L2(init=0.3)}, probe=probe)
        estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.1), inner_steps=3, compile=True)
        found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
        assert found.stats["training_remark"] == "compiled, 3 steps in a call"


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("solver", "problem"),
    [
        *(pytest.param(name, "network", marks=[] if name == "adam" else pytest.mark.slow) for name in SOLVERS),
        ("dampened", "ridge"),
        ("momentum", "quadratic"),
    ],
)
def test_all_solvers_and_tapes(solver, problem):
    problem, solver, hparams, start = case(problem, solver)
    assert both(problem, hparams, start, solver=solver, inner_step=24) == COMPILED


@cache
def compiled_once() -> tuple[hg.Quadratic, hg.Momentum]:
    """One problem and solver for many lengths, because their steps are compiled only once."""
    return hg.Quadratic(size=7, condition=20.0), hg.Momentum(lr=0.05)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(("steps", "horizon"), [(2, None), (7, None), (23, None), (23, 17), (40, 16), (9, 8)])
def test_steps_that_do_not_come_out_even(steps, horizon):
    problem, solver = compiled_once()
    start = {name: torch.linspace(-1, 1, w.numel()).view_as(w) for name, w in problem.init_params().items()}
    both(problem, problem.init_hparams(), start, solver=solver, inner_steps=steps, horizon=horizon)


@pytest.mark.usefixtures("traced")
def test_the_truncation_bias_is_about_the_same():
    problem = hg.Quadratic(size=7)
    found, eager = (
        hg.Unrolled(solver=hg.GradientDescent(lr=0.02), inner_steps=80, horizon=40, compile=compile).estimate(
            problem, problem.init_hparams(), problem.init_params()
        )
        for compile in (True, False)
    )
    assert found.stats["training_remark"] == "compiled, 10 steps in a call"
    assert found.stats["truncation_bias"] == pytest.approx(eager.stats["truncation_bias"], rel=0.2)


class ByTensor(Network):
    """A rate for each step and tensor, and a decay for each tensor."""

    def hyperparameters(self):
        ramp = torch.linspace(0, 1, 3 * STEPS).reshape(STEPS, 3)
        more = {"lr": hg.Hyperparameter(0.02 + 0.07 * ramp), "beta": hg.Hyperparameter(0.5 + 0.4 * ramp[-1:])}
        return super().hyperparameters() | more


@pytest.mark.usefixtures("traced")
def test_coefficients_by_step_and_tensor():
    problem = ByTensor()
    solver = hg.Momentum(lr="lr", momentum=hg.StepDecay(base="beta", every=5, ratio=0.8))
    both(problem, problem.init_hparams(), problem.init_params(), solver=solver)


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_a_schedule_over_a_number():
    problem, _, hparams, start = case("network", "adam")
    hparams = {name: x for name, x in hparams.items() if name not in ("lr", "beta")}
    solver = hg.AdamW(lr=hg.Warmup(base=hg.Cosine(base=0.05, steps=STEPS), steps=4), weight_decay=0.1)
    both(problem, hparams, start, solver=solver)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(("tuned", "kept"), [(False, []), (True, ["W", "b", "v"])])
def test_what_the_pull_back_does_not_read_is_not_kept(tuned, kept):
    problem, solver, hparams, start = case("network", "momentum")
    if not tuned:
        solver, hparams = hg.Momentum(lr=0.05), {k: x for k, x in hparams.items() if k not in ("lr", "beta")}
    dynamics, state = Dynamics(problem, solver, leaves(hparams)), solver.init(start)
    ready, _ = compile_steps(dynamics, state, range(STEPS))
    passage: Any = ready.passage(state, range(STEPS // 2))[1]
    names = [(group, name) for group, names in passage.dynamics.forward.names.items() for name in names]
    read = [names[k] for k in passage.program.reads]
    assert sorted(name for group, name in read if group == "params") == ["W", "b", "v"]
    assert sorted(name for group, name in read if group == "velocity") == kept
    assert [len(x) for x in passage.read] == [STEPS // 2] * len(read)


# --- batches, and what modules hold


def supervised(*layers, **settings: Any) -> hg.Supervised:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)

    def part(n):
        return torch.randn(n, 5, generator=generator), torch.randint(0, 3, (n,), generator=generator)

    usual: dict[str, Any] = {"loss": cross_entropy, "train": part(26), "dev": part(20)}
    return hg.Supervised(
        model=nn.Sequential(*(layer() for layer in layers)),
        hyperparameters={"l2": hg.L2(init=0.05, per="tensor"), "rate": hg.Hyperparameter(0.1)},
        **usual | settings,
    )


DENSE = (partial(nn.Linear, 5, 4), nn.Tanh, partial(nn.Linear, 4, 3))
NORMED = (partial(nn.Linear, 5, 4, bias=False), partial(nn.BatchNorm1d, 4), nn.Tanh, partial(nn.Linear, 4, 3))
DROPPED = (partial(nn.Linear, 5, 4), nn.Tanh, partial(nn.Dropout, 0.5), partial(nn.Linear, 4, 3))
RATE = hg.Momentum(lr="rate")


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("batch_size", mostly_slow([None, 6, 13, 4], [None]))
def test_batches_of_a_data_set(batch_size):
    """26 examples in batches of 13, of 6 and a last one of 2, and of 4 and a last one of 2."""
    problem = supervised(*DENSE, batch_size=batch_size)
    start = problem.init_params()
    remark = both(problem, problem.init_hparams(), start, solver=RATE, inner_step=3, inner_steps=20)
    length = {None: 10, 13: 10, 6: 4, 4: 6}[batch_size]
    assert remark == f"compiled, {length} steps in a call"


@pytest.mark.usefixtures("traced")
def test_batch_normalisation_is_compiled():
    problem = supervised(*NORMED, batch_size=13)
    assert both(problem, problem.init_hparams(), problem.init_params(), solver=RATE) == COMPILED


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(1, 4)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.out = nn.Linear(4, 3)

    def forward(self, X):
        X = self.embed(X[..., None])
        return self.out(self.attend(X, X, X, need_weights=False)[0].mean(1))


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_attention_is_compiled():
    problem = supervised(Attention)
    assert both(problem, problem.init_hparams(), problem.init_params(), solver=RATE) == COMPILED


def test_dropout_is_not_compiled_and_says_so():
    problem = supervised(*DROPPED)
    assert both(problem, problem.init_hparams(), problem.init_params(), solver=RATE) == (
        "not compiled: the batches of consecutive steps differ in more than the values of tensors, as with dropout"
    )


# --- falling back


class Odd(hg.Ridge):
    """Ridge with a peculiarity."""

    def __init__(self, what):
        super().__init__(synthetic(0))
        self.what = what

    def inner_batch(self, step):
        return {"sets": {step}, "numbers": step, "lengths": self.y[: 10 + step % 5]}.get(self.what)

    def inner_loss(self, params, hparams, batch):
        loss = super().inner_loss(params, hparams, None)
        if self.what == "noise":
            with torch.random.fork_rng():
                torch.manual_seed(0)
                loss = loss + 1e-3 * (torch.randn(5) * params["weight"]).sum()
        if self.what == "branch" and loss > 0:
            loss = 2 * loss
        return loss


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("sets", "inner_batch returns something other than tensors, numbers and strings"),
        ("numbers", "the batches of consecutive steps differ in more than the values of tensors"),
        ("lengths", "the batches of consecutive steps differ in more than the values of tensors"),
        ("noise", "it draws random numbers by aten.randn.default"),
        ("branch", "RuntimeError: "),
    ],
)
def test_what_cannot_be_compiled_runs_as_it_is_and_says_so(what, reason):
    problem = Odd(what)
    remark = both(problem, problem.init_hparams(), problem.init_params(), solver=hg.Momentum(lr=0.02))
    assert remark.startswith(f"not compiled: {reason}")


def test_without_a_compiler(monkeypatch):
    def fails(graph, arguments):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(inductor, "compile_graph", fails)
    problem, solver, hparams, start = case("network", "momentum")
    assert both(problem, hparams, start, solver=solver) == "not compiled: RuntimeError: no compiler"


def test_a_compiler_that_is_wrong_is_found_out(monkeypatch):
    monkeypatch.setattr(inductor, "compile_graph", lambda graph, _: lambda args: [1.01 * x for x in graph(*args)])
    problem, solver, hparams, start = case("network", "momentum")
    assert both(problem, hparams, start, solver=solver) == "not compiled: its first result was off by 1.0e-02"


@pytest.mark.usefixtures("traced")
def test_data_that_changed_are_found_out():
    problem, solver = hg.Ridge(synthetic(0), l2=0.3), hg.Momentum(lr=0.02)
    hparams, start = problem.init_hparams(), problem.init_params()
    assert both(problem, hparams, start, solver=solver) == COMPILED
    problem.X *= 0.9  # in place, as the compiled function sees it
    assert both(problem, hparams, start, solver=solver) == COMPILED
    problem.X = 1.1 * problem.X
    remark = both(problem, hparams, start, solver=solver)
    assert "has data of the problem changed?" in remark


@dataclass(frozen=True, kw_only=True)
class Impatient(InnerSolver):
    """Its steps depend on their number in a way that no tensor shows."""

    def update(self, state, grad, coefficients, t):
        lr = [0.05, 0.02][t % 2]
        return {"params": {name: w - lr * grad[name] for name, w in state["params"].items()}}


def test_a_step_that_branches_on_its_number_is_not_compiled():
    problem = hg.Ridge(synthetic(0), l2=0.3)
    remark = both(problem, problem.init_hparams(), problem.init_params(), solver=Impatient())
    assert remark.startswith("not compiled: ")


def test_the_reversible_tape_takes_its_own_steps():
    problem, solver, hparams, start = case("network", "momentum")
    assert (
        both(problem, hparams, start, solver=solver, tape=hg.Reversible())
        == "not compiled: Reversible uses steps of its own"
    )


@pytest.mark.usefixtures("traced")
def test_training_for_the_implicit_function_theorem():
    problem = hg.Ridge(synthetic(0), l2=0.3)
    settings = {"solver": hg.Momentum(lr=0.05), "inner_tol": 1e-12, "inner_steps": 5000}
    found, eager = (
        hg.Implicit(compile=compile, **settings).estimate(problem, problem.init_hparams(), problem.init_params())
        for compile in (True, False)
    )
    assert found.stats["training_remark"] == "compiled, 10 steps in a call"
    assert found.stats["inner_steps"] == eager.stats["inner_steps"]
    assert found.stats["inner_status"] == "converged"
    assert relative_error(found.grad, eager.grad) <= 1e-10


# --- nothing outlives its use


@pytest.mark.usefixtures("traced")
def test_no_graph_outlives_its_outer_step():
    problem, solver, hparams, start = case("network", "momentum")
    estimator = hg.Unrolled(solver=solver, tape=hg.Store(), inner_steps=4, compile=True)

    def tensors_alive(outer_steps):
        params = start
        for k in range(outer_steps):
            params = estimator.estimate(problem, hparams, params, inner_step=4 * k).params
        return sum(issubclass(type(x), torch.Tensor) for x in gc.get_objects())

    tensors_alive(2)
    gc.collect()
    gc.disable()
    try:
        few = tensors_alive(2)
        assert tensors_alive(30) == few
    finally:
        gc.enable()


@pytest.mark.usefixtures("traced")
def test_what_was_compiled_goes_with_its_problem():
    problem = hg.Ridge(synthetic(0), l2=0.3)
    estimator = hg.Unrolled(solver=hg.Momentum(lr=0.02), inner_steps=4, compile=True)
    estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    gone = weakref.ref(problem)
    del problem
    gc.collect()
    assert gone() is None


# --- through the compiler, which takes its time


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_compiled_for_good(solver):
    problem, solver, hparams, start = case("network", solver)
    assert both(problem, hparams, start, solver=solver, inner_step=24) == COMPILED


@pytest.mark.slow
def test_a_data_set_compiled_for_good():
    problem = supervised(*DENSE, batch_size=13)
    assert both(problem, problem.init_hparams(), problem.init_params(), solver=RATE) == COMPILED
