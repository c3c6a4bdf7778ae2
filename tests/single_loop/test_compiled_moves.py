"""Compiled outer steps of single-loop methods: the numbers of eager ones, or eager ones with the reason why."""

import gc
import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from least_squares import LeastSquares
from slow_cases import mostly_slow
from synchronisations import Synchronisations
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

import hypergrad as hg
from hypergrad.compile import inductor
from hypergrad.core.autodiff import flatten

COMPILED = "compiled, up to 100 steps in a call"
DESCENT = hg.GradientDescent(lr=0.1)
FALLING = hg.InverseRoot(base=0.1)
SOBA = hg.SOBA(solver=DESCENT)


@pytest.fixture
def traced(monkeypatch):
    """Leaves the compiler out, and with it its seconds: what is left is all that is ours."""
    monkeypatch.setattr(inductor, "compile_graph", lambda graph, _: lambda tensors: graph(*tensors))


def fit(method, compile: bool | str = True, problem: Any = LeastSquares, **settings: Any) -> hg.Result:
    usual = {"outer_steps": 40, "record_every": 20, "optimizer": partial(SGD, lr=0.02)}
    estimator = hg.SingleLoop(method=method, compile=compile)
    return hg.Trainer(
        problem=problem if isinstance(problem, hg.InnerProblem) else problem(), estimator=estimator, **usual | settings
    ).fit()


def numbers(result: hg.Result) -> torch.Tensor:
    """λ of all records, and w, dF/dλ and the costs of the last one."""
    record, paths = result.last, [x.flatten() for x in result.trajectory.values()]
    costs = torch.tensor([record.num_gradients, record.num_matvecs, record.num_inner_steps])
    return torch.cat([*paths, flatten(record.params), flatten(record.grad), costs])


def require_equal(method, **settings: Any) -> hg.Result:
    """The result of a compiled run, after a check that its numbers are those of an eager one."""
    eager, found = (fit(method, compile, **settings) for compile in (False, True))
    assert found.last.stats["training_remark"] == COMPILED
    torch.testing.assert_close(numbers(found), numbers(eager), rtol=1e-12, atol=1e-12)
    return found


METHODS = {
    "soba": SOBA,
    "soba with schedules": hg.SOBA(solver=hg.Momentum(lr=FALLING, momentum=0.5), adjoint_lr=FALLING),
    "saba with its own step": hg.SABA(),
    "masoba with adam": hg.MASOBA(solver=hg.Adam(lr=0.01), adjoint_lr=0.1),
    "f2sa": hg.F2SA(solver=hg.AdamW(lr=FALLING), inner_steps=2),
    "amigo": hg.AmIGO(solver=hg.Adam(lr=FALLING), adjoint_lr=0.1, inner_steps=2, adjoint_steps=1),
}


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("method", mostly_slow(METHODS, ["soba with schedules", "masoba with adam"]))
def test_methods(method):
    require_equal(method)


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    "method",
    [hg.MEHA(solver=DESCENT), hg.BOME(solver=DESCENT, inner_steps=2), hg.SAMA(solver=hg.Adam(lr=0.1))],
    ids=repr,
)
def test_other_methods(method):
    require_equal(method)


@pytest.mark.usefixtures("traced")
def test_many_steps():
    require_equal(SOBA, outer_steps=200, record_every=100)


OUTER: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": partial(SGD, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1)},
    "one cycle": {
        "optimizer": partial(AdamW, lr=0.01),
        "scheduler": partial(OneCycleLR, max_lr=0.05, total_steps=41),
    },
    "clipped": {"optimizer": partial(AdamW, lr=0.02, amsgrad=True), "max_grad_norm": 0.1},
}


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("outer", mostly_slow(OUTER, ["one cycle"]))
def test_optimisers_and_schedulers(outer):
    require_equal(SOBA, **outer)


def supervised(dropout: float = 0.0, **settings: Any) -> hg.Supervised:
    torch.manual_seed(0)
    train, dev = ((torch.randn(n, 4), torch.arange(n) % 3) for n in (21, 18))
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), *([nn.Dropout(dropout)] if dropout else []), nn.Linear(5, 3))
    usual: dict[str, Any] = {"loss": cross_entropy, "hyperparameters": {"l2": hg.L2(init=0.1, per="tensor")}}
    return hg.Supervised(model=model, train=train, dev=dev, **usual | settings)


@pytest.mark.usefixtures("traced")
def test_a_network_on_batches():
    require_equal(SOBA, problem=supervised(batch_size=6, dev_sample=5))


@pytest.mark.slow
def test_with_the_compiler():
    require_equal(METHODS["soba with schedules"], optimizer=partial(Adam, lr=0.01))


@dataclass(frozen=True)
class Killed(hg.Callback):
    """Ends the run as a signal would, before the step after a record."""

    step: int

    def on_step(self, record):
        if record.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.usefixtures("traced")
def test_resumed_runs_continue_to_the_same_bits(tmp_path):
    problem = LeastSquares()
    settings: dict[str, Any] = {
        "problem": problem,
        "outer_steps": 40,
        "record_every": 5,
        "optimizer": partial(Adam, lr=0.01),
        "scheduler": partial(CosineAnnealingLR, T_max=40),
    }
    whole = fit(SOBA, **settings)
    assert whole.last.stats["training_remark"] == COMPILED
    for step in (5, 20):
        saver = hg.StateSaver(tmp_path / str(step))
        with pytest.raises(KeyboardInterrupt):
            fit(SOBA, callbacks=[saver, Killed(step)], **settings)
        trainer = hg.Trainer(estimator=hg.SingleLoop(method=SOBA, compile=True), callbacks=[saver], **settings)
        assert torch.equal(numbers(trainer.fit(resume=tmp_path / str(step))), numbers(whole))


@pytest.mark.usefixtures("traced")
def test_the_host_waits_once_for_each_record():
    """Not once for each step: as often in 40 steps between two records as in 20."""
    counts = []
    problem = hg.Quadratic()
    for every in (10, 20, 40):
        with Synchronisations() as met:
            fit(SOBA, problem=problem, outer_steps=2 * every, record_every=every)
        counts.append(len(met.operations))
    assert counts[1] == counts[2]  # the first run tries what is tried once


# --- falling back


class Odd(LeastSquares):
    """Least squares with a peculiarity."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def inner_batch(self, step):
        batch = super().inner_batch(0)
        return {"sets": {step}, "numbers": (*batch, step)}.get(self.what, batch)

    def inner_place(self, step):
        return hg.BatchPlace(0, 5, 1.0, is_fixed=True)

    def inner_loss(self, params, hparams, batch):
        loss = super().inner_loss(params, hparams, LeastSquares.inner_batch(self, 0))
        if self.what == "noise":
            with torch.random.fork_rng():
                torch.manual_seed(0)
                loss = loss + 1e-3 * (torch.randn(3) * params["a"]).sum()
        if self.what == "branch" and loss > 0:
            loss = 2 * loss
        return loss


@dataclass(frozen=True, kw_only=True)
class Counting(hg.SOBA):
    """Keeps a number that changes as a number."""

    def move(self, terms, params, hparams, memory, t):
        found = super().move(terms, params, hparams, memory, t)
        found.memory["count"] = memory.get("count", 0) + 1
        return found


@dataclass(frozen=True, kw_only=True)
class Impatient(hg.GradientDescent):
    """Its steps depend on their number in a way that no tensor shows."""

    def update(self, state, grad, coefficients, t):
        return super().update(state, grad, {**coefficients, "lr": coefficients["lr"]} if t % 2 else coefficients, t)


RMSPROP = partial(torch.optim.RMSprop, lr=0.01)
REFUSED: dict[str, tuple[Any, dict[str, Any]]] = {
    "a batch holds something other than tensors, numbers and strings": (SOBA, {"problem": partial(Odd, "sets")}),
    "the batches of the steps differ in more than the values of tensors": (SOBA, {"problem": partial(Odd, "numbers")}),
    "it draws random numbers by aten.randn.default": (SOBA, {"problem": partial(Odd, "noise")}),
    "RuntimeError: ": (SOBA, {"problem": partial(Odd, "branch")}),
    "a move changes its memory in more than the values of tensors": (Counting(solver=DESCENT), {}),
    "RuntimeError: .*": (hg.SOBA(solver=Impatient(lr=0.1)), {}),
    "the optimiser is RMSprop, and compiled ones are SGD, Adam, AdamW": (SOBA, {"optimizer": RMSPROP}),
    "the batches of the steps differ in more than the values of tensors, as with dropout": (
        SOBA,
        {"problem": partial(supervised, dropout=0.5)},
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_compiled_runs_as_it_is_and_says_so(reason):
    method, peculiar = REFUSED[reason]
    settings: dict[str, Any] = {"outer_steps": 6, "record_every": 3} | peculiar
    with pytest.warns(hg.NotCompiledWarning, match=f"The steps of .* are not compiled, and run as they are: {reason}"):
        found = fit(method, **settings)
    assert str(found.last.stats["training_remark"]).startswith("not compiled: ")
    assert torch.equal(numbers(found), numbers(fit(method, compile=False, **settings)))


def test_large_tables_are_not_compiled(monkeypatch):
    monkeypatch.setattr("hypergrad.single_loop.saba._COPIED", 2**10)
    with pytest.warns(hg.NotCompiledWarning, match="would copy tables of 0.00111 MiB, and more than 0.000977"):
        fit(hg.SABA(solver=DESCENT), outer_steps=6, record_every=3)


def test_a_compiler_that_is_wrong_is_found_out(monkeypatch):
    monkeypatch.setattr(inductor, "compile_graph", lambda graph, _: lambda args: [1.01 * x for x in graph(*args)])
    with pytest.warns(hg.NotCompiledWarning, match="its first result was off by 1.0e-02"):
        fit(SOBA, outer_steps=6, record_every=3)


@pytest.mark.usefixtures("traced")
def test_data_that_changed_are_found_out():
    problem = LeastSquares()
    settings: dict[str, Any] = {"problem": problem, "outer_steps": 6, "record_every": 3}
    require_equal(SOBA, **settings)
    problem.get_buffer("C").mul_(0.9)  # in place, as the compiled function sees it
    require_equal(SOBA, **settings)
    problem.C = 1.1 * problem.get_buffer("C")
    with pytest.warns(hg.NotCompiledWarning, match="has data of the problem changed"):
        fit(SOBA, **settings)


def test_nothing_is_compiled_if_all_steps_have_records():
    with pytest.warns(hg.NotCompiledWarning, match="with record_every = 1 there are none: set record_every to 100"):
        fit(SOBA, outer_steps=2, record_every=1)


@pytest.mark.usefixtures("traced")
def test_auto_compiles_once_it_pays(monkeypatch):
    eager = fit(SOBA, compile="auto", outer_steps=10, record_every=5)
    assert str(eager.last.stats["training_remark"]).startswith("not compiled yet: eager steps come to ")
    monkeypatch.setattr("hypergrad.training.compile_choice.FIRST_GUESS", 0.0)
    monkeypatch.setattr("hypergrad.training.compile_choice._LONGEST", {})
    found = fit(SOBA, compile="auto", outer_steps=10, record_every=5)
    assert found.last.stats["training_remark"] == COMPILED
    torch.testing.assert_close(numbers(found), numbers(eager), rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("traced")
def test_a_program_goes_with_its_problem():
    problem = LeastSquares()
    fit(SOBA, problem=problem, outer_steps=6, record_every=3)
    gone = weakref.ref(problem)
    del problem
    gc.collect()
    assert gone() is None


def test_compile_is_true_false_or_auto():
    settings: dict[str, Any] = {"compile": 3}
    with pytest.raises(TypeError, match='SingleLoop.compile must be true, false or "auto", but it is 3'):
        hg.SingleLoop(**settings)
