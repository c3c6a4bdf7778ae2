"""What the summary of a run says beside its table."""

import json

import pytest
import torch
from rich.console import Console

import hypergrad as hg
from hypergrad.callback.overfitting import overfitting, rise
from hypergrad.callback.summary import Summary


def told(tmp_path, tests, spread: float | None = 1e-3):
    """What is printed after a run whose dev loss falls while its test loss is as given.

    The losses of the 100 test examples change by that, and by noise of a standard deviation; None if they are unknown.
    """
    losses, known, generator = iter(tests), {}, torch.Generator().manual_seed(0)

    class Told(hg.Ridge):
        def metrics(self, params, hparams):
            known[hparams["l2"].item()] = loss = next(losses)
            return {"test_loss": loss}

        def test_losses(self, params, hparams) -> torch.Tensor | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            noise = torch.randn(100, generator=generator)
            if spread is None:
                return None
            return known[hparams["l2"].item()] + spread * (noise - noise.mean()) / noise.std() / 2**0.5

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


def test_a_rise_that_chance_explains_is_no_overfitting(tmp_path):
    # A rise of 0.0028 is noise where its standard error is about 0.1/√100, and none where it is 0.001/√100.
    noise = [0.9244, 0.93, 0.9272]
    assert "overfitted" not in told(tmp_path / "a", noise, spread=0.1)
    assert "overfitted: at its minimum" in told(tmp_path / "b", noise)
    again = [0.5, 0.4, 0.45, 0.48]
    assert "overfitted" not in told(tmp_path / "c", again, spread=1.0)
    text = told(tmp_path / "d", again, spread=0.1)
    assert "from 0.4 to 0.48, by 0.08 ± 0.0" in " ".join(text.split())


def test_without_losses_of_examples_the_standard_error_is_unknown(tmp_path):
    text = " ".join(told(tmp_path, [0.5, 0.4, 0.6], spread=None).split())
    assert "may have been overfitted" in text
    assert "Its standard error is not known." in text


def test_a_resumed_run_says_that_it_may_be_chance():
    problem, estimator = hg.Ridge(hg.diabetes(seed=3)), hg.Implicit(solver=hg.LBFGS())
    result = hg.fit(problem, estimator, lambda u: torch.optim.Adam(u, lr=0.1), 3, progress=False)
    for row, loss in zip(result.history, [0.5, 0.4, 0.45, 0.48], strict=True):
        row["loss/test"] = loss
    result.first.metrics["test_loss"], result.best.metrics["test_loss"] = 0.5, 0.48
    text, remedy = overfitting(result, problem, result.best, "dev loss")
    assert "may have been overfitted, or it is chance: after step 1 " in text
    assert "The run was resumed after step 1" in text
    assert "folds" in remedy


def test_the_rise_is_paired():
    """The spread between examples, which both records share, does not count."""
    torch.manual_seed(0)
    problem = hg.Ridge(hg.diabetes(seed=3))
    first = hg.fit(problem, hg.Implicit(solver=hg.LBFGS()), lambda u: torch.optim.Adam(u, lr=0.1), 3, progress=False)
    found = rise(problem, first.first, first.last)
    losses = [problem.test_losses(one.params, one.hparams) for one in (first.first, first.last)]
    gap = losses[1] - losses[0]
    assert found is not None
    assert found.mean == pytest.approx(first.last.metrics["test_loss"] - first.first.metrics["test_loss"])
    assert found.error == pytest.approx((gap.square().mean() - gap.mean() ** 2).sqrt().item() / (len(gap) - 1) ** 0.5)
    assert found.error < (losses[0].std() / len(gap) ** 0.5).item() / 10


def test_many_equal_values_are_one_number(tmp_path):
    """The range of twelve equal numbers would be "0.0001 to 0.0001", and so would be that of nearly equal ones."""
    console = Console(record=True, width=200)
    torch.manual_seed(0)
    X, y = torch.randn(20, 12), torch.randn(20)
    result = hg.fit(
        hg.Supervised(
            model=torch.nn.Linear(12, 1),
            loss=torch.nn.functional.mse_loss,
            train=(X[:10], y[:10]),
            dev=(X[10:], y[10:]),
            hyperparameters={"weights": hg.ExampleWeights(init=0.5)},
        ),
        hg.Unrolled(solver=hg.GradientDescent(lr=0.1), inner_steps=2),
        lambda u: torch.optim.SGD(u, lr=1e-5),
        1,
        progress=False,
        callbacks=[Summary(tmp_path, console)],
    )
    title, *lines = console.export_text().splitlines()
    (line,) = (line for line in lines if "weights" in line)
    before, after = (cell.strip() for cell in line.split("│")[2:4])
    assert before == "0.5 for all 10"
    low, high = after.split(", ")[0].split(" to ")
    assert low != high
    assert title.strip() == "1 outer step"
    assert repr(result).startswith("Result(1 outer step, dev loss")


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_losses_of_the_test_examples_have_the_test_loss_as_their_mean(reduction):
    data = hg.breast_cancer(seed=0)
    loss = torch.nn.BCEWithLogitsLoss(reduction=reduction)
    model = torch.nn.Linear(30, 1)
    problem = hg.on_splits(data, model=model, loss=loss, hyperparameters={"l2": hg.L2(init=0.1)})
    losses = problem.test_losses(problem.init_params(), problem.init_hparams())
    metrics = problem.metrics(problem.init_params(), problem.init_hparams())
    assert losses is not None
    assert losses.mean().item() == pytest.approx(float(metrics["test_loss"]), rel=1e-12)


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
