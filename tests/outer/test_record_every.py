"""Outer steps between records: the same walk, nothing for the host to wait for, and no more than what moves it."""

import inspect
import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from minibatches import Minibatches
from slow_cases import mostly_slow
from synchronisations import Synchronisations
from test_resume import require_same
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau
from torch.utils._pytree import tree_leaves, tree_map

import hypergrad as hg
from hypergrad.callback import state_file
from hypergrad.core.cost import account
from hypergrad.outer.loop import Loop
from hypergrad.outer.objective import OuterObjective

ADAM = partial(torch.optim.Adam, lr=0.02)
SGD = partial(torch.optim.SGD, lr=0.02)
GD = hg.GradientDescent(lr=0.05)
SOBA = hg.SingleLoop(method=hg.SOBA(solver=GD))
ESTIMATORS = {
    "soba": SOBA,
    "masoba": hg.SingleLoop(method=hg.MASOBA(solver=GD, averaging=0.3)),
    "implicit": hg.Implicit(solver=GD, inner_steps=5, inner_tol=0.0, error_bar=False),
    "error bar": hg.Implicit(solver=GD, inner_steps=5, inner_tol=0.0),
    "unrolled": hg.Unrolled(solver=GD, inner_steps=5),
    "forward": hg.Forward(solver=GD, inner_steps=5, online=True),
}


def trainer(estimator: Any = SOBA, steps=20, optimizer: Any = ADAM, problem=None, **settings: Any):
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    return hg.Trainer(
        problem=problem or Minibatches(), estimator=estimator, optimizer=optimizer, outer_steps=steps, **settings
    )


def rows(result, *without):
    return [{key: x for key, x in row.items() if key not in ("run/seconds", *without)} for row in result.history]


@pytest.mark.filterwarnings("ignore::hypergrad.NotConvergedWarning")
@pytest.mark.parametrize("every", mostly_slow([3, 50], [3]))
@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_the_records_are_those_of_a_run_that_records_every_step(estimator, every):
    settings = {"scheduler": partial(CosineAnnealingLR, T_max=9), "max_grad_norm": 0.3}
    each, some = (trainer(estimator, record_every=k, **settings).fit() for k in (1, every))
    # An error bar costs products, and is left out between records.
    without = ("run/products", "run/gradients") if getattr(estimator, "error_bar", False) else ()
    at = [step for step in range(21) if step % every == 0 or step == 20]
    assert rows(some, *without) == [row for row in rows(each, *without) if row["step"] in at]
    for name, path in some.trajectory.items():
        assert torch.equal(path, each.trajectory[name][at])
    require_same(some.last.params, each.last.params)
    require_same(some.last.grad, each.last.grad)


@pytest.mark.filterwarnings("ignore::hypergrad.NotConvergedWarning")
def test_an_error_bar_is_left_out_between_records():
    each, some = (trainer(ESTIMATORS["error bar"], record_every=k).fit().history[-1] for k in (1, 5))
    assert 0 < some["run/products"] < each["run/products"]


class Keep(hg.Callback):
    """The steps that it hears of, and the states."""

    def __init__(self):
        self.steps, self.states = [], {}

    def on_step(self, record):
        self.steps.append(record.step)

    def on_state(self, step, state):
        self.states[step] = state


def test_callbacks_metrics_and_random_states_belong_to_records(monkeypatch):
    built, asked = [], []
    state, metrics = Loop.state, Minibatches.metrics
    monkeypatch.setattr(Loop, "state", lambda self, last: built.append(last.step) or state(self, last))
    monkeypatch.setattr(Minibatches, "metrics", lambda *args: asked.append(1) or metrics(*args))
    keep = Keep()
    trainer(record_every=6, callbacks=[keep]).fit()
    assert keep.steps == built == [0, 6, 12, 18, 20]
    assert len(asked) == 5


def test_each_state_is_that_of_a_run_that_records_every_step():
    each, some = Keep(), Keep()
    for keep, k in ((each, 1), (some, 6)):
        trainer(record_every=k, callbacks=[keep]).fit()
    keys = ("u", "params", "adjoint", "grad", "optimizer", "random", "num_matvecs", "num_inner_steps", "cost")
    for step, state in some.states.items():
        require_same({key: state[key] for key in keys}, {key: each.states[step][key] for key in keys})


def test_a_step_between_records_is_one_gradient_one_joint_walk_and_one_outer_gradient(monkeypatch):
    """Also: each loss is evaluated once, on one batch, and the host waits for nothing.

    The joint walk and the outer gradient are one call of the engine, for two graphs.
    """
    counts = dict.fromkeys(("grad", "inner_loss", "outer_loss", "inner_batch", "outer_batch"), 0)

    def count(owner, name):
        before = getattr(owner, name)

        def counted(*args, **kwargs):
            counts[name] += 1
            return before(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    class Free(Minibatches):
        def hyperparameters(self):
            return {"l2": hg.Hyperparameter(0.1, shape=(4,)), "shift": hg.Hyperparameter(0.2)}

    for problem, calls in ((Free(), 2), (Minibatches(), 3)):  # to pull back through a constraint is another call
        objective = OuterObjective(problem, SOBA, warm_start=True, max_grad_norm=None)
        objective.evaluate(0)
        with monkeypatch.context() as monkeypatch:
            count(torch.autograd, "grad")
            for name in ("inner_loss", "outer_loss", "inner_batch", "outer_batch"):
                count(Minibatches, name)
            gradients, matvecs = account().gradients, account().matvecs
            with Synchronisations() as met:
                for step in range(1, 11):
                    objective.unrecorded(step)
        assert counts == {name: 10 * calls if name == "grad" else 10 for name in counts}
        assert (account().gradients - gradients, account().matvecs - matvecs) == (10, 0)
        assert not met.operations
        counts |= dict.fromkeys(counts, 0)


def test_by_default_an_estimate_is_not_told_apart():
    class Mine(hg.HypergradEstimator):
        def estimate(self, problem, hparams, params, *, outer_step=0, inner_step=0, carry=None):
            steps.append((outer_step, inner_step, carry))
            return hg.Hypergradient({name: torch.ones_like(x) for name, x in hparams.items()}, params, 1.0, carry=1)

    steps = []
    trainer(Mine(), steps=4, record_every=3).fit()
    assert steps == [(0, 0, None), *((step, 0, 1) for step in (1, 2, 3, 4))]
    of = [inspect.signature(getattr(hg.HypergradEstimator, name)) for name in ("estimate", "unrecorded")]
    assert of[0] == of[1]


def test_clipping_changes_neither_the_record_nor_the_carry():
    """The direction of an unconstrained λ is a view of what MA-SOBA carries on."""
    results = [
        trainer(ESTIMATORS["masoba"], steps=1, optimizer=partial(torch.optim.SGD, lr=0.0), max_grad_norm=norm).fit()
        for norm in (None, 1e-6)
    ]
    free, clipped = (result.last for result in results)
    require_same(clipped.grad, free.grad)


REFUSED = [
    ({"record_every": 0}, ValueError, "record_every must be at least 1, but it is 0"),
    ({"record_every": 2.0}, TypeError, "record_every must be"),
    (
        {"record_every": 4, "exact_every": 10},
        ValueError,
        "exact_every must be a multiple of record_every = 4.*it is 10",
    ),
    ({"record_every": 4, "acceptance": hg.Acceptance()}, ValueError, "Acceptance needs the dev loss of every outer"),
    ({"record_every": 4, "optimizer": torch.optim.LBFGS}, ValueError, "LBFGS needs the dev loss.*record_every = 4"),
    ({"record_every": 4, "optimizer": hg.LBFGSB}, ValueError, "LBFGSB needs the dev loss.*Take record_every=1"),
]


@pytest.mark.parametrize(("settings", "kind", "message"), REFUSED)
def test_what_needs_every_loss_is_refused_by_name(settings, kind, message):
    with pytest.raises(kind, match=message):
        trainer(ESTIMATORS["unrolled"], **settings).fit()


def test_exact_steps_are_records():
    settings = {"record_every": 4, "steps": 22}
    assert [row["step"] for row in trainer(**settings).fit().history if "metric/size" in row] == [
        0,
        4,
        8,
        12,
        16,
        20,
        22,
    ]
    history = trainer(**settings, exact_every=8).fit().history
    assert [row["step"] for row in history if "metric/size" in row] == [0, 8, 16, 22]
    assert [row["step"] for row in history] == [0, 4, 8, 12, 16, 20, 22]


def test_with_samples_of_dev_the_default_is_the_next_multiple_of_ten():
    class Sampled(Minibatches):
        @property
        def samples_outer(self):
            return True

        def whole_outer_batch(self):
            return torch.arange(12)

    exact = {
        k: [row["step"] for row in trainer(problem=Sampled(), record_every=k).fit().history if "loss/dev" in row]
        for k in (1, 4, 15)
    }
    assert exact == {1: [0, 10, 20], 4: [0, 12, 20], 15: [0, 15, 20]}


def test_patience_and_plateau_go_by_records():
    plateau = partial(ReduceLROnPlateau, patience=0, threshold=10.0)
    loop = trainer(record_every=8, steps=30, scheduler=plateau)._loop()
    loop.run()
    assert loop.descent.scheduler.last_epoch == 4  # it moved at steps 0, 8, 16 and 24
    up = partial(torch.optim.SGD, lr=1e-9, maximize=True)

    class OneLoss(Minibatches):
        def outer_batch(self, step):
            return torch.arange(12)

    result = trainer(
        hg.Unrolled(solver=GD, inner_steps=5), 40, up, OneLoss(), record_every=4, patience=5, warm_start=False
    )
    assert (result.fit().stopped, result.fit().last.step) == ("patience", 8)


class Spoils(hg.HypergradEstimator):
    """Returns infinity in one part of its result from outer step 7 on, and checks nothing."""

    def __init__(self, part):
        self.part = part

    def estimate(self, problem, hparams, params, *, outer_step=0, inner_step=0, carry=None):
        found = {"grad": hparams, "params": params, "carry": {"v": torch.ones(2), "t": outer_step}}
        if outer_step >= 7:
            found[self.part] = tree_map(lambda x: x / 0.0 if isinstance(x, torch.Tensor) else x, found[self.part])
        return hg.Hypergradient(found["grad"], found["params"], 1.0, carry=found["carry"])


SPOILED = {
    "diverges": (
        hg.SingleLoop(method=hg.SOBA(solver=hg.GradientDescent(lr=40.0))),
        "This was in outer step 200, where .* in outer step 0, the last record",
        0,
    ),
    "λ": (Spoils("grad"), "step from 5 to 9 moved l2, shift to NaN or infinity, after the last record, where", 5),
    "w": (Spoils("params"), "the parameters became NaN or infinite between outer step 5, the last record, and 10", 5),
    "carry": (Spoils("carry"), "the carry became NaN or infinite between outer step 5", 5),
}


@pytest.mark.parametrize(("estimator", "message", "last"), SPOILED.values(), ids=SPOILED)
def test_what_is_not_finite_is_met_at_the_next_record_and_not_saved(tmp_path, estimator, message, last):
    every = last or 200
    with pytest.raises(hg.HypergradError, match=message):
        trainer(estimator, 2 * every, SGD, record_every=every, callbacks=[hg.StateSaver(tmp_path)]).fit()
    state = state_file.read(tmp_path)
    assert state["step"] == last
    assert all(
        x.isfinite().all()
        for part in ("u", "params", "adjoint")
        for x in tree_leaves(state[part])
        if isinstance(x, torch.Tensor)
    )


class EndsAt(Minibatches):
    """Something happens while the batch of an inner step is made."""

    def __init__(self, step, what):
        super().__init__()
        self.step, self.what = step, what

    def inner_batch(self, step):
        if step == self.step:
            self.what()
        return super().inner_batch(step)


def interrupt():
    raise KeyboardInterrupt


def settings_of(folder):
    return {"record_every": 6, "callbacks": [hg.StateSaver(folder, every=4), hg.JSONLines(folder)]}


def require_goes_on(folder, whole):
    """That a run in a folder goes on to the same bits."""
    trainer(problem=EndsAt(-1, interrupt), **settings_of(whole)).fit()
    trainer(problem=EndsAt(-1, interrupt), **settings_of(folder)).fit(resume=folder)
    require_same(state_file.read(folder), state_file.read(whole))
    lines = [(path / "metrics.jsonl").read_text().count("\n") for path in (folder, whole)]
    assert lines == [5, 5]
    assert (folder / "history.jsonl").read_text().count("\n") == 5


ENDS = {"ctrl-c": interrupt, "sigterm": lambda: os.kill(os.getpid(), signal.SIGTERM)}


@pytest.mark.parametrize("what", ENDS.values(), ids=ENDS)
def test_an_interrupt_between_records_leaves_the_state_of_the_last_one(tmp_path, what):
    with pytest.raises(KeyboardInterrupt):
        trainer(problem=EndsAt(15, what), **settings_of(tmp_path / "cut")).fit()
    assert state_file.read(tmp_path / "cut")["step"] == 12
    require_goes_on(tmp_path / "cut", tmp_path / "whole")


def test_a_run_killed_between_records_goes_on_to_the_same_bits(tmp_path):
    folder = tmp_path / "cut"
    pid = os.fork()
    if pid == 0:
        try:
            trainer(problem=EndsAt(15, lambda: os.kill(os.getpid(), signal.SIGKILL)), **settings_of(folder)).fit()
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert state_file.read(folder)["step"] == 12
    require_goes_on(folder, tmp_path / "whole")


IN_A_PROCESS = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_default_dtype(torch.float64)
import test_record_every
test_record_every.long_run(sys.argv[2])
"""


def long_run(folder):
    resume = folder if state_file.found(Path(folder)) else None
    callbacks = [hg.StateSaver(folder, every=100), hg.JSONLines(folder)]
    trainer(steps=800, record_every=20, callbacks=callbacks).fit(resume=resume)


@pytest.mark.slow
def test_a_process_killed_at_ten_moments_goes_on_to_the_same_bits(tmp_path):
    """Each time, records have been written since the run went on, so that it ends."""
    cut, whole, moments = tmp_path / "cut", tmp_path / "whole", random.Random(0)
    long_run(whole)
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (here.parents[1], here.parent)))}

    def lines():
        path = cut / "metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0

    for kill in range(10):
        process = subprocess.Popen([sys.executable, "-c", IN_A_PROCESS, here, cut], env=environment)
        while lines() < 3 * kill + 3 and process.poll() is None:
            time.sleep(0.001)
        time.sleep(moments.random() * 0.1)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    long_run(cut)
    require_same(state_file.read(cut), state_file.read(whole))
    assert [json.loads(line)["step"] for line in (cut / "metrics.jsonl").read_text().splitlines()] == list(
        range(0, 801, 20)
    )


def test_an_interrupted_fit_says_which_record_is_the_last(tmp_path, capsys):
    result = hg.fit(EndsAt(15, interrupt), SOBA, ADAM, 20, folder=tmp_path, record_every=6)
    assert (result.stopped, result.last.step) == ("interrupted", 12)
    assert "Interrupted after the record of outer step 12; the same call goes on from there" in capsys.readouterr().out


def test_states_and_lines_of_progress_are_at_the_records_that_follow_their_multiples(tmp_path, capsys):
    saved = []

    class Watch(hg.Callback):
        def on_state(self, step, state):
            saved.append([int(path.stem[6:]) for path in state_file.found(tmp_path)][-1:])

    saver = hg.StateSaver(tmp_path, every=20)
    trainer(steps=100, record_every=7, callbacks=[saver, Watch(), hg.ProgressBar()]).fit()
    assert [steps[0] for steps in saved] == [0] * 3 + [21] * 3 + [42] * 3 + [63] * 3 + [84] * 3 + [100]
    printed = [line.split()[2] for line in capsys.readouterr().out.splitlines() if line.startswith("outer step")]
    assert printed == [f"{step}/100" for step in (0, 14, 21, 35, 42, 56, 63, 70, 84, 91, 100)]


@pytest.mark.slow
def test_twenty_thousand_steps_leave_states_of_one_size(tmp_path):
    sizes = {}

    class Weigh(hg.Callback):
        def on_state(self, step, state):
            sizes.update({path.name: path.stat().st_size for path in state_file.found(tmp_path)})

    saver = hg.StateSaver(tmp_path)
    result = trainer(steps=20_000, record_every=1000, callbacks=[saver, Weigh(), hg.JSONLines(tmp_path)]).fit()
    assert len(sizes) == 21
    # The first, last and best record share tensors where they are one.
    assert max(list(sizes.values())[11:]) <= max(list(sizes.values())[:11]) < 30_000
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == len(result.history) == 21
    last = result.history[-1]
    assert [last[f"run/{name}"] for name in ("gradients", "products", "inner_steps")] == [20_001] * 3
