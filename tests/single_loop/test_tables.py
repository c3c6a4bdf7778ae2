"""SABA and SRBA: against loops by hand, their memory, and what they refuse."""

import copy
import os
from functools import cache, partial
from typing import Any

import pytest
import torch
from finite_sum import DEV, TRAIN, FiniteSum
from torch.utils._pytree import tree_leaves

import hypergrad as hg
from hypergrad.callback.base import Callback
from hypergrad.callback.state_saver import StateSaver
from hypergrad.compile import inductor
from hypergrad.core.autodiff import flatten
from hypergrad.core.cost import Spent
from hypergrad.single_loop.terms import Terms

NEAR = {"rtol": 0, "atol": 1e-12}
LR, LR_V, LR_HP, STEPS = 0.1, 0.08, 0.01, 50
SGD = hg.GradientDescent(lr=LR)


def trainer(
    method: Any,
    problem: Any,
    steps: int = STEPS - 1,
    callbacks: Any = (),
    record_every: int = 1,
    compiles: bool = False,
) -> hg.Trainer:
    return hg.Trainer(
        problem=problem,
        estimator=hg.SingleLoop(method=method, compile=compiles),
        optimizer=partial(torch.optim.SGD, lr=LR_HP),
        outer_steps=steps,
        callbacks=callbacks,
        record_every=record_every,
    )


def by_hand(problem: FiniteSum, corrects: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """w, penalty and shift after 50 moves and 49 steps of λ, with SAGA or without."""
    tables: list[dict[Any, torch.Tensor]] = [{}, {}]
    averages = [torch.zeros(2 * 10 + 4), torch.zeros(10 + 4)]
    w, v, u = torch.zeros(10), torch.zeros(10), problem.init_hparams()["penalty"].log()
    shift = problem.init_hparams()["shift"]
    for t in range(STEPS):
        batches, terms = (problem.inner_batch(t), problem.outer_batch(t)), []
        new = problem.directions_by_hand(w, v, {"penalty": u.exp(), "shift": shift}, *batches)
        for rows, term, table, average, size in zip(batches, new, tables, averages, (TRAIN, DEV), strict=True):
            key, num = frozenset(rows.tolist()), -(-size // {TRAIN: 4, DEV: 3}[size])
            change = term - table.get(key, 0) if corrects else term
            terms.append(num * len(rows) / size * change + average)
            if corrects:
                average += len(rows) / size * change
                table[key] = term
        (D_w, D_v, D_hp), (df_dw, df_dhp) = terms[0].split((10, 10, 4)), terms[1].split((10, 4))
        w, v = w - LR * D_w, v - LR_V * (D_v + df_dw)
        if t < STEPS - 1:
            u, shift = u - LR_HP * u.exp() * (D_hp + df_dhp)[0], shift - LR_HP * (D_hp + df_dhp)[1:]
    return w, u.exp(), shift


@pytest.mark.parametrize(("method", "corrects"), [(hg.SABA, True), (hg.SOBA, False)], ids=["saba", "soba"])
def test_equals_a_loop_by_hand(method, corrects):
    last = trainer(method(solver=SGD, adjoint_lr=LR_V), FiniteSum()).fit().last
    found = (flatten(last.params), last.hparams["penalty"], last.hparams["shift"])
    for ours, by in zip(found, by_hand(FiniteSum(), corrects), strict=True):
        torch.testing.assert_close(ours, by, **NEAR)


def test_srba_equals_a_loop_by_hand():
    problem, hparams = FiniteSum(), FiniteSum().init_hparams()
    estimator = hg.SingleLoop(method=hg.SRBA(solver=SGD, adjoint_lr=LR_V, period=5))
    w, v = torch.zeros(10), torch.zeros(10)
    params, D, last = problem.init_params(), torch.zeros(24), (w, v)
    carry: Any = None

    def summed(w: torch.Tensor, v: torch.Tensor, *rows: Any) -> torch.Tensor:
        of_g, of_f = problem.directions_by_hand(w, v, hparams, *rows)
        return of_g + torch.cat([torch.zeros(10), of_f])

    def on_batches(w: torch.Tensor, v: torch.Tensor, t: int) -> torch.Tensor:
        of_g, of_f = problem.directions_by_hand(w, v, hparams, problem.inner_batch(t), problem.outer_batch(t))
        weights = 4 * len(problem.inner_batch(t)) / TRAIN, 4 * len(problem.outer_batch(t)) / DEV
        return weights[0] * of_g + weights[1] * torch.cat([torch.zeros(10), of_f])

    for t in range(STEPS):
        D = summed(w, v, None, None) if t % 5 == 0 else D + on_batches(w, v, t) - on_batches(*last, t)
        last = w, v
        w, v = w - LR * D[:10], v - LR_V * D[10:20]
        found = estimator.estimate(problem, hparams, params, outer_step=t, inner_step=t, carry=carry)
        params, carry = found.params, found.carry
        torch.testing.assert_close(flatten(found.grad), D[20:], **NEAR)
    torch.testing.assert_close(flatten(params), w, **NEAR)
    torch.testing.assert_close(carry["memory"]["v"], v, **NEAR)


@pytest.mark.parametrize("settings", [{}, {"batch_size": TRAIN, "dev_sample": DEV + 2}], ids=["all", "larger"])
@pytest.mark.parametrize("method", [hg.SABA, hg.SRBA])
def test_on_one_batch_both_are_soba(method, settings):
    none: Any = {"batch_size": None, "dev_sample": None}
    one = trainer(method(solver=SGD), FiniteSum(**none | settings)).fit().last
    other = trainer(hg.SOBA(solver=SGD), FiniteSum(**none)).fit().last
    for ours, by in ((one.params, other.params), (one.hparams, other.hparams)):
        torch.testing.assert_close(flatten(ours), flatten(by), **NEAR)


@pytest.mark.slow
def test_constant_steps_reach_the_hypergradient_where_those_of_soba_do_not():
    problem, hparams = FiniteSum(), FiniteSum().init_hparams()
    wanted = flatten(problem.hypergradient(hparams))

    def error(of: Any) -> float:
        """That of the direction of λ after 300 moves at one λ."""
        estimator, params, carry, found = hg.SingleLoop(method=of), problem.init_params(), None, wanted
        for t in range(300):
            estimate = estimator.estimate(problem, hparams, params, outer_step=t, inner_step=t, carry=carry)
            params, carry, found = estimate.params, estimate.carry, flatten(estimate.grad)
        return float(torch.linalg.vector_norm(found - wanted) / torch.linalg.vector_norm(wanted))

    assert error(hg.SABA(solver=SGD)) < 1e-5
    assert error(hg.SRBA(solver=SGD)) < 1e-5
    assert error(hg.SOBA(solver=SGD)) > 1e-2


class Kept(Callback):
    """Keeps each state, and a copy of it."""

    def __init__(self) -> None:
        self.states: list[Any] = []

    def on_state(self, step: int, state: Any) -> None:
        self.states.append((state, copy.deepcopy({name: state[name] for name in ("adjoint", "params", "u")})))


def same(a: Any, b: Any) -> bool:
    pairs = zip(tree_leaves(a), tree_leaves(b), strict=True)
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


@pytest.mark.parametrize(
    "method", [hg.SABA(solver=SGD), hg.SRBA(solver=SGD), hg.SABA(solver=hg.Adam(lr=0.1), adjoint_lr=LR_V)]
)
def test_a_state_holds_the_table_of_its_moment(method):
    kept = Kept()
    trainer(method, FiniteSum(), 9, [kept]).fit()
    assert len(kept.states) == 10
    for state, before in kept.states:
        assert all(same(state[name], before[name]) for name in before)


class Killed(Callback):
    """Ends the process at a step, as a kill does: nothing is written then."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, record: Any) -> None:
        if record.step == self.step:
            os._exit(9)


def by_one() -> FiniteSum:
    """Batches of one example: 14 and 11 rows, which are one tensor in a state."""
    return FiniteSum(batch_size=1, dev_sample=1)


@cache
def in_one_go(method: Any) -> hg.Result:
    return trainer(method, by_one(), 12).fit()


@pytest.mark.parametrize(
    ("method", "moment", "record_every"),
    [pytest.param(hg.SABA(solver=SGD), k, 1, marks=[] if k in (1, 7) else pytest.mark.slow) for k in range(1, 11)]
    + [(hg.SRBA(solver=SGD, period=5), k, 1) for k in (3, 7, 10)]
    + [(hg.SABA(solver=SGD), 10, 5), (hg.SRBA(solver=SGD, period=4), 10, 5)],
)
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, method, moment, record_every):
    every = 3 if record_every == 1 else record_every
    pid = os.fork()
    if pid == 0:
        try:
            trainer(method, by_one(), 12, [StateSaver(tmp_path, every=every), Killed(moment)], record_every).fit()
        finally:
            os._exit(0)  # never on to the other tests
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    whole = in_one_go(method)
    resumed = trainer(method, by_one(), 12, [StateSaver(tmp_path, every=every)], record_every).fit(resume=tmp_path)
    assert same((resumed.last.params, resumed.last.hparams), (whole.last.params, whole.last.hparams))
    assert resumed.last.num_matvecs == whole.last.num_matvecs


def test_a_move_replaces_one_row_of_each_table_and_copies_none():
    problem, method = FiniteSum(), hg.SABA(solver=SGD)
    w, hparams = problem.init_params(), problem.init_hparams()
    before = method.begin(Terms(problem, 0, 0), w, hparams)
    for t in range(3):
        after = method.move(Terms(problem, t, t), w, hparams, before, t).memory
        for name, place in (("inner", problem.inner_place(t)), ("outer", problem.outer_place(t))):
            kept = [new is old for new, old in zip(after[name]["rows"], before[name]["rows"], strict=True)]
            assert [j for j, is_kept in enumerate(kept) if not is_kept] == [place.index]
        before = after


@pytest.mark.slow
def test_compiled_saba_has_the_numbers_of_eager_saba(monkeypatch):
    monkeypatch.setattr(inductor, "compile_graph", lambda graph, _: lambda tensors: graph(*tensors))

    def last(compiles: bool) -> Any:
        return trainer(hg.SABA(solver=SGD), FiniteSum(), 20, record_every=10, compiles=compiles).fit().last

    one, other = last(True), last(False)
    assert one.stats["training_remark"].startswith("compiled")
    for ours, by in ((one.params, other.params), (one.hparams, other.hparams)):
        torch.testing.assert_close(flatten(ours), flatten(by), **NEAR)


@pytest.mark.parametrize(
    ("method", "gradients", "products"), [(hg.SABA, 9, 9), (hg.SRBA, 4 + 7 * 2 + 4, 4 + 7 * 2 + 4)]
)
def test_gradients_and_products_of_nine_moves(method, gradients, products):
    spent = Spent()
    with spent.counting():
        last = trainer(method(solver=SGD), FiniteSum(), 8).fit().last
    assert (spent.gradients, last.num_matvecs) == (gradients, products)


def test_what_does_not_fit_is_refused_by_name():
    saba, srba = hg.SABA(solver=SGD), hg.SRBA(solver=SGD)
    with pytest.raises(
        ValueError, match=r"a row for each inner batch.*those of FiniteSum are not fixed.*fixed_batches=T"
    ):
        trainer(saba, FiniteSum(fixed=False)).fit()
    with pytest.raises(ValueError, match=r"a row for each outer batch.*other samples of dev.*use SRBA"):
        trainer(saba, FiniteSum(batch_size=None, fixed=False)).fit()
    unknown = FiniteSum()
    unknown.inner_place = hg.InnerProblem.inner_place.__get__(unknown)
    with pytest.raises(ValueError, match=r"SRBA needs all inner batches.*Override `inner_place`"):
        trainer(srba, unknown).fit()
    with pytest.raises(ValueError, match=r"SRBA.period must be at least 1, but it is 0"):
        hg.SRBA(solver=SGD, period=0)


def test_a_large_table_is_told(monkeypatch):
    monkeypatch.setattr("hypergrad.single_loop.saba._LARGE", 1000)
    with pytest.warns(UserWarning, match=r"4 rows of 24 numbers and 4 of 14.*SRBA none"):
        trainer(hg.SABA(solver=SGD), FiniteSum(), 1).fit()
