"""What the summary of a run says beside its table."""

import json

import pytest
import torch
from rich.console import Console

import hypergrad as hg
from hypergrad.callback.summary import Summary


def told(tmp_path, tests):
    """What is printed after a run whose dev loss falls while its test loss is as given."""
    losses = iter(tests)

    class Told(hg.Ridge):
        def metrics(self, params, hparams):
            return {"test_loss": next(losses)}

    console = Console(record=True, width=200)
    estimator = hg.Implicit(solver=hg.LBFGS(), product=hg.Traced())
    result = hg.fit(
        Told(hg.diabetes(seed=3)),
        estimator,
        lambda u: torch.optim.Adam(u, lr=0.1),
        len(tests) - 1,
        progress=False,
        callbacks=[Summary(tmp_path, console)],
    )
    assert result.best.step == len(tests) - 1
    return console.export_text()


def test_overfitting_is_said_with_the_step_from_which_on(tmp_path):
    text = told(tmp_path / "a", [0.5, 0.4, 0.45, 0.48])
    assert "The dev loss was overfitted: after step 1 it went on falling while the test loss rose, from 0.4 to" in text
    text = told(tmp_path / "b", [0.5, 0.4, 0.45, 0.6])
    assert "at its minimum the test loss is 0.6, higher than the 0.5 of the initial hyperparameters" in text
    assert "overfitted" not in told(tmp_path / "c", [0.5, 0.4, 0.3, 0.301])


def test_the_remark_on_the_adjoint_system_is_the_solvers(tmp_path):
    (line,) = (line for line in told(tmp_path, [0.5, 0.4, 0.45]).splitlines() if line.startswith("adjoint system"))
    assert "iterated on" in line


def test_what_is_monitored_stands_in_the_table(tmp_path):
    class Watched(hg.Ridge):
        def metrics(self, params, hparams) -> dict[str, torch.Tensor | float]:
            return {"watch_loss": (hparams["l2"] - 0.8).square()}

    console = Console(record=True, width=200)
    hg.fit(
        Watched(hg.diabetes(seed=3)),
        hg.Implicit(solver=hg.LBFGS()),
        lambda u: torch.optim.Adam(u, lr=0.1),
        9,
        progress=False,
        monitor="watch_loss",
        patience=1,
        callbacks=[Summary(tmp_path, console)],
    )
    text, written = console.export_text(), json.loads((tmp_path / "summary.json").read_text())
    assert "lowest watch loss (step 2)" in text
    (row,) = (line for line in text.splitlines() if line.startswith("│ watch loss"))
    assert float(row.split("│")[2]) == pytest.approx(0.04)
    assert "the watch loss had no new minimum for longer than `patience`" in text
    assert (written["monitor"], written["best"]["step"], written["stopped"]) == ("watch_loss", 2, "patience")
