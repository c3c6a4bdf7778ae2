"""Runs and searches keep the same books."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from tables import PROBLEMS

import hypergrad as hg
from hypergrad.callback.base import Callback
from hypergrad.estimator.dev_loss import train_and_evaluate
from hypergrad.outer.journal import Journal
from hypergrad.outer.objective import OuterObjective

SGD = partial(torch.optim.SGD, lr=1e-3)
NEWTON = hg.Implicit(solver=hg.Newton(), inner_tol=1e-10, error_bar=False)


def test_a_run_and_a_search_spend_the_same_on_the_same_training():
    problem = PROBLEMS["quadratic"]
    objective = OuterObjective(problem, NEWTON, warm_start=False, max_grad_norm=None)
    run, search = Journal(objective.u), Journal(objective.u)
    ran = run.record(objective, 0)
    with search.ledger.counting():
        found = train_and_evaluate(problem, NEWTON, ran.hparams)
    tried = search.ledger.record(0, problem, ran.hparams, found)
    assert tried.grad == {}
    assert ran.num_inner_steps == tried.num_inner_steps > 0
    assert ran.num_gradients >= tried.num_gradients > 0
    assert ran.num_matvecs - int(ran.stats["num_matvecs"]) == tried.num_matvecs > 0
    for journal, record in ((run, ran), (search, tried)):
        journal.add(record)
        assert journal.result("budget").history == [{"step": 0, **record.scalars()}]
    assert run.ledger.state().keys() == search.ledger.state().keys()


def test_what_is_rejected_is_counted_and_not_kept():
    def spent(lr):
        sgd, acceptance = partial(torch.optim.SGD, lr=lr), hg.Acceptance(max_rejections=30)
        problem = hg.Ridge(hg.diabetes(seed=3), l2=0.2)
        result = hg.fit(problem, NEWTON, sgd, 1, progress=False, acceptance=acceptance)
        assert [row["step"] for row in result.history] == [0, 1]
        return result.last.num_inner_steps - sum(row["inner/steps"] for row in result.history)

    assert spent(1e-3) == 0
    assert spent(1e3) > 0


def test_a_journal_goes_back_to_a_state():
    objective = OuterObjective(PROBLEMS["ridge"], NEWTON, warm_start=True, max_grad_norm=None)
    journal, other = Journal(objective.u), Journal(objective.u)
    journal.add(journal.record(objective, 0))
    other.restore(journal.state(), lambda step: PROBLEMS["ridge"])
    assert journal.last is not None
    assert other.last is not None
    assert other.last.scalars() == journal.last.scalars()
    assert other.result("patience").history == list(journal.history)
    assert other.state().keys() == journal.state().keys()
    assert other.ledger.state() == journal.ledger.state()
    assert journal.last.seconds <= other.ledger.seconds() < 60


class Watch(Callback):
    def __init__(self, error=None):
        self.error, self.told = error, []

    def on_start(self, run):
        if self.error is not None:
            raise self.error
        self.told.append("start")

    def on_error(self, error, last):
        self.told.append((type(error).__name__, last))


@pytest.mark.parametrize("side", ["run", "search"])
def test_callbacks_that_started_hear_of_one_that_could_not(side):
    heard, broken, late = Watch(), Watch(OSError("full")), Watch()
    callbacks = [heard, broken, late]
    begin = {
        "run": lambda: hg.fit(PROBLEMS["ridge"], NEWTON, SGD, 1, progress=False, callbacks=callbacks),
        "search": lambda: hg.search(PROBLEMS["ridge"], NEWTON, hg.RandomSearch(), hg.Budget(trials=1), callbacks),
    }[side]
    with pytest.raises(OSError, match="full"):
        begin()
    assert heard.told == ["start", ("OSError", None)]
    assert broken.told == late.told == []


def logistic(l2):
    torch.manual_seed(0)
    return hg.on_splits(
        hg.breast_cancer(seed=0),
        model=torch.nn.Linear(30, 1),
        loss=torch.nn.functional.binary_cross_entropy_with_logits,
        hyperparameters={"l2": hg.L2(init=l2)},
    )


@pytest.mark.filterwarnings("ignore::hypergrad.NotConvergedWarning")  # tolerances of 0.1 are loose on purpose
@pytest.mark.parametrize("tighten", ["exponential", "quadratic", "cubic"])
def test_the_best_is_judged_on_what_was_trained_enough(tighten):
    """Its λ is the minimum of a fine grid, and its dev loss that of tight training; a loose step had a lower one."""
    problem = logistic(1e-2)
    tight = hg.Implicit(solver=hg.LBFGS(), inner_tol=1e-9, error_bar=False)

    def dev_loss(log_l2):
        return train_and_evaluate(problem, tight, {"l2": torch.tensor(log_l2).exp()}).outer_loss

    lowest = min(dev_loss(-6.5 + k / 20) for k in range(-6, 7))
    loose = hg.Implicit(solver=hg.LBFGS(), linsolve=hg.CG(tol=0.1), inner_tol=0.1, tighten=tighten, error_bar=False)
    result = hg.fit(problem, loose, partial(torch.optim.Adam, lr=0.3), 60, progress=False)
    at_best = dev_loss(result.best.hparams["l2"].log().item())
    assert result.best.outer_loss == pytest.approx(at_best, rel=2e-3)
    assert at_best < lowest * 1.002
    if tighten != "cubic":  # whose tolerance is soon too small for that
        assert min(row["loss/dev"] for row in result.history) < 0.995 * lowest


@pytest.mark.parametrize(("factors", "best"), [((1, 1, 1), 0), ((4, 3, 2), 0), ((8, 4, 1), 2), ((8, 2, 1), 1)])
def test_a_record_gives_way_once_it_was_trained_more_than_twice_as_loosely(factors, best):
    objective = OuterObjective(PROBLEMS["ridge"], NEWTON, warm_start=True, max_grad_norm=None)
    journal = Journal(objective.u, looseness=lambda step: factors[step])
    record = journal.record(objective, 0)
    for step, loss in enumerate((1.0, 2.0, 3.0)):
        journal.add(replace(record, step=step, outer_loss=loss))
    assert journal.records()[2].step == best
