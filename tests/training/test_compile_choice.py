"""`compile="auto"`: when steps are compiled, and what is said until then."""

import math

import pytest
import torch
from rich.console import Console

import hypergrad as hg
from hypergrad.compile import inductor
from hypergrad.core.notice import notify
from hypergrad.training import compile_choice
from hypergrad.training.compile_choice import Ledger, note_compilation

ESTIMATORS = {
    "unrolled": hg.Unrolled(solver=hg.GradientDescent(lr=0.02), inner_steps=20, compile="auto"),
    "forward": hg.Forward(solver=hg.GradientDescent(lr=0.02), inner_steps=20, compile="auto"),
    "implicit": hg.Implicit(solver=hg.GradientDescent(lr=0.02), inner_steps=200, compile="auto"),
}


@pytest.fixture(autouse=True)
def nothing_measured(monkeypatch):
    monkeypatch.setattr(compile_choice, "_LONGEST", {})
    monkeypatch.setattr(inductor, "compile_graph", lambda graph, _: lambda tensors: graph(*tensors))


def test_steps_are_compiled_once_eager_ones_took_three_times_as_long_as_compiling():
    """Compiling takes 2 + 3 s and an eager step 0.1 s: 150 steps are eager at least, and a run that stops right after
    compiling took a third longer."""
    note_compilation("cpu", "step", 2.0)
    note_compilation("cpu", "step", 1.0)
    note_compilation("cpu", "pull-back", 3.0)
    ledger, runs = Ledger("pull-back", "cpu", 0.1), 0
    while ledger.refuse(40):
        ledger.add(40)
        runs += 1
    eager = 0.1 * 40 * (runs + 1)
    assert runs == 3
    assert 5.0 / eager <= 1 / 3
    assert ledger.refuse(0) == ""  # and remains compiled


def test_before_anything_was_compiled_it_is_expected_to_take_as_long_as_documented():
    ledger = Ledger("step", "cpu", 1.0)
    assert (
        ledger.refuse(44) == "not compiled yet: eager steps come to 44.0 s, and compile=auto compiles from 3 × 15 s on"
    )
    assert ledger.refuse(45) == ""


def test_a_run_of_unknown_length_is_expected_to_be_as_long_as_the_last_one():
    ledger = Ledger("step", "cpu", 1.0)
    ledger.add(22)
    assert "come to 44.0 s" in ledger.refuse(None)
    ledger.add(12)
    assert ledger.refuse(None) == ""  # 34 steps, and 12 to come


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_the_remark_says_what_was_done(estimator, monkeypatch):
    problem = hg.Quadratic(size=7)
    at = problem.init_hparams(), problem.init_params()
    monkeypatch.setattr(compile_choice, "FIRST_GUESS", math.inf)
    first = estimator.estimate(problem, *at)
    assert first.stats["training_remark"].startswith("not compiled yet: eager steps come to ")
    monkeypatch.setattr(compile_choice, "FIRST_GUESS", 0.0)
    second = estimator.estimate(problem, *at)
    assert second.stats["training_remark"] == "compiled, 10 steps in a call"
    for name, grad in first.grad.items():
        torch.testing.assert_close(second.grad[name], grad, rtol=1e-8, atol=1e-12)
    assert compile_choice._LONGEST  # it was measured


def test_a_run_says_that_it_is_compiling_and_how_long_that_takes():
    """Once for each kind of function; the next compilation is told from the one before."""
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.02), inner_steps=4, compile=True)
    said, consoles = [], [Console(record=True, width=200) for _ in range(2)]
    for console in consoles:
        bar = hg.ProgressBar(console)
        hg.fit(
            hg.Quadratic(size=3), estimator, lambda u: torch.optim.SGD(u, lr=0.1), 1, progress=False, callbacks=[bar]
        )
        said.append([line for line in console.export_text().splitlines() if "compiling" in line])
    kinds = ["compiling the training step; ", "compiling the training pull-back; "]
    assert [line.split("; ")[0] + "; " for line in said[0]] == kinds
    assert all("from 15 s to a minute" in line for line in said[0])
    assert all("; before, it took " in line for line in said[1])
    assert len(said[1]) == 2
    notify("nobody listens any more")
    assert not any("nobody" in console.export_text() for console in consoles)


@pytest.mark.parametrize("kind", [hg.Unrolled, hg.Forward, hg.Implicit])
def test_other_values_are_refused(kind):
    with pytest.raises(TypeError, match=f"{kind.__name__}.compile must be true, false or \"auto\", but it is 'yes'"):
        kind(compile="yes")
