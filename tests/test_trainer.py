import math
from functools import partial

import pytest
import torch
from tables import PROBLEMS, relative_error

import hypergrad as hg
from hypergrad.callback.base import Callback

SGD = partial(torch.optim.SGD, lr=0.1)
EXACT = hg.Implicit(solver=hg.Momentum(lr=0.05), linsolve=hg.Dense(), inner_steps=20_000, inner_tol=1e-12)


def test_two_steps_are_what_they_are_by_hand():
    problem = PROBLEMS["quadratic"]
    result = hg.Trainer(
        problem=problem, estimator=EXACT, optimizer=partial(torch.optim.SGD, lr=1e-3), outer_steps=2
    ).fit()
    hparams = problem.init_hparams()
    u, shift = hparams["penalty"].log(), hparams["shift"]
    for _ in range(2):
        grad = problem.hypergradient({"penalty": u.exp(), "shift": shift})
        u, shift = u - 1e-3 * grad["penalty"] * u.exp(), shift - 1e-3 * grad["shift"]
    assert relative_error(result.hparams, {"penalty": u.exp(), "shift": shift}) <= 1e-9
    assert [row["step"] for row in result.history] == [0, 1, 2]
    assert result.first.step == 0
    assert relative_error(result.last.params, problem.solution(result.hparams)) <= 1e-9


OPTIMIZERS = [
    "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "ASGD", "LBFGS", "NAdam", "RAdam", "RMSprop",
    "Rprop", "SGD",
]  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_torch_optimiser_lowers_the_dev_loss(name):
    problem = PROBLEMS["ridge"]
    optimizer = getattr(torch.optim, name)
    result = hg.Trainer(problem=problem, estimator=EXACT, optimizer=optimizer, outer_steps=4).fit()
    assert result.last.outer_loss < result.first.outer_loss
    assert result.hparams["l2"] > 0


def test_a_line_search_sees_the_loss_and_gradient_of_where_it_stands():
    problem = PROBLEMS["ridge"]
    lbfgs = partial(torch.optim.LBFGS, line_search_fn="strong_wolfe", max_iter=10, tolerance_change=1e-14)
    result = hg.Trainer(problem=problem, estimator=EXACT, optimizer=lbfgs, outer_steps=3).fit()
    assert (
        problem.hypergradient(result.hparams)["l2"].abs()
        <= 1e-5 * problem.hypergradient(problem.init_hparams())["l2"].abs()
    )


@pytest.mark.parametrize("warm_start", [True, False])
def test_warm_start_changes_the_cost_and_not_the_result(warm_start):
    problem = PROBLEMS["quadratic"]
    small_steps = partial(torch.optim.SGD, lr=1e-6)
    result = hg.Trainer(
        problem=problem, estimator=EXACT, optimizer=small_steps, outer_steps=1, warm_start=warm_start
    ).fit()
    assert relative_error(result.last.grad, problem.hypergradient(result.hparams)) <= 1e-8
    ratio = float(result.last.stats["inner_steps"]) / float(result.first.stats["inner_steps"])
    assert ratio < 0.8 if warm_start else ratio == pytest.approx(1, abs=0.1)


class Watch(Callback):
    def __init__(self):
        self.told = []

    def on_start(self, run):
        self.told.append("start")

    def on_step(self, record):
        self.told.append(record.step)

    def on_end(self, result):
        self.told.append("end")

    def on_error(self, error, last):
        self.told.append((type(error).__name__, last and last.step))


def test_callbacks_are_told_in_order():
    watch = Watch()
    hg.Trainer(problem=PROBLEMS["ridge"], estimator=EXACT, optimizer=SGD, outer_steps=2, callbacks=[watch]).fit()
    assert watch.told == ["start", 0, 1, 2, "end"]


class BreaksLater(hg.Ridge):
    def outer_loss(self, params, hparams, batch):
        loss = super().outer_loss(params, hparams, batch)
        return loss if hparams["l2"] > 0.999 else loss * math.nan


def test_an_error_reaches_the_callbacks_with_the_last_good_record():
    watch, problem = Watch(), BreaksLater(hg.diabetes(), l2=1.0)
    trainer = hg.Trainer(problem=problem, estimator=EXACT, optimizer=SGD, outer_steps=5, callbacks=[watch])
    with pytest.raises(hg.NonFiniteError, match="outer loss is nan"):
        trainer.fit()
    assert watch.told == ["start", 0, ("NonFiniteError", 0)]


def test_a_step_to_infinity_is_refused():
    huge = partial(torch.optim.SGD, lr=float("1e308"))
    problem = hg.Quadratic(size=4)
    with pytest.raises(hg.NonFiniteError, match=r"Outer step 0 moved .*shift.* to NaN or infinity.*lower the lr"):
        hg.Trainer(problem=problem, estimator=EXACT, optimizer=huge, outer_steps=3).fit()


def test_not_converged_is_said_once_and_recorded_every_time():
    problem = PROBLEMS["quadratic-stiff"]
    rough = hg.Implicit(linsolve=hg.CG(max_iter=2), inner_steps=5)
    with pytest.warns(hg.NotConvergedWarning) as caught:
        result = hg.Trainer(
            problem=problem, estimator=rough, optimizer=partial(torch.optim.SGD, lr=1e-9), outer_steps=3
        ).fit()
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 2
    assert any("gradient norm is" in m and "Raise inner_steps" in m for m in messages)
    assert any("relative residual is" in m and "2 products" in m for m in messages)
    assert [row["adjoint/converged"] for row in result.history] == [0.0] * 4
    assert [row["inner/converged"] for row in result.history] == [0.0] * 4


def test_runs_repeat_bit_for_bit():
    def run():
        adam = partial(torch.optim.Adam, lr=0.1)
        return hg.Trainer(problem=PROBLEMS["ridge-per-feature"], estimator=EXACT, optimizer=adam, outer_steps=5).fit()

    assert torch.equal(run().hparams["l2"], run().hparams["l2"])


class Nothing(hg.Ridge):
    def hyperparameters(self):
        return {}


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="Nothing has no hyperparameters"):
        hg.Trainer(problem=Nothing(hg.diabetes()), estimator=EXACT, optimizer=SGD)
    with pytest.raises(ValueError, match="outer_steps must be at least 0, but it is -1"):
        hg.Trainer(problem=PROBLEMS["ridge"], estimator=EXACT, optimizer=SGD, outer_steps=-1)
    with pytest.raises(TypeError, match="Trainer.estimator must be a HypergradEstimator"):
        hg.Trainer(problem=PROBLEMS["ridge"], estimator=None, optimizer=SGD)  # pyright: ignore
