"""A dev loss on another sample in each outer step: what moves λ, and what chooses it."""

import json
from functools import partial
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn.functional import mse_loss

import hypergrad as hg

DEV = 13


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def problem(loss=mse_loss, dev_sample: int | None = 5, dev_batch_size: int | None = 3, **settings: Any) -> Any:
    torch.manual_seed(0)
    return hg.Supervised(
        model=nn.Linear(4, 1),
        loss=loss,
        train=(draw(20, 4), draw(20, seed=1)),
        dev=(draw(DEV, 4, seed=2), draw(DEV, seed=3)),
        test=(draw(9, 4, seed=4), draw(9, seed=5)),
        hyperparameters={"l2": hg.L2(init=0.1)},
        dev_sample=dev_sample,
        dev_batch_size=dev_batch_size,
        **settings,
    )


ESTIMATOR = hg.Implicit(solver=hg.Newton(), inner_steps=9, linsolve=hg.Dense())


def fit(of, steps=12, **settings: Any):
    settings = dict[str, Any](optimizer=partial(torch.optim.Adam, lr=0.1)) | settings
    return hg.Trainer(problem=of, estimator=ESTIMATOR, outer_steps=steps, **settings)


def test_each_dev_example_is_drawn_once_per_epoch_as_a_function_of_the_step():
    one = problem()
    epoch = [one.outer_batch(step).rows for step in range(3)]
    assert [len(rows) for rows in epoch] == [5, 5, 3]
    assert sorted(torch.cat(epoch).tolist()) == list(range(DEV))
    assert torch.equal(problem().outer_batch(4).rows, one.outer_batch(4).rows)
    assert not torch.equal(one.outer_batch(3).rows, epoch[0])
    assert not problem(dev_sample=DEV).samples_outer
    assert problem(dev_sample=DEV).outer_batch(0) is None


@pytest.mark.parametrize("loss", [mse_loss, partial(mse_loss, reduction="sum"), lambda z, y: (z - y).square().sum()])
def test_a_sample_in_batches_estimates_the_loss_of_all(loss):
    one, batch = problem(loss), problem(loss).outer_batch(0)
    w, λ = one.init_params(), one.init_hparams()
    of_rows = problem(loss, None, None)
    of_rows.X_dev, of_rows.y_dev = one.X_dev[batch.rows], one.y_dev[batch.rows]
    scale = 1.0 if loss is mse_loss else DEV / 5
    assert one.outer_loss(w, λ, batch).item() == pytest.approx(scale * of_rows.outer_loss(w, λ, None).item(), rel=1e-12)
    parts = sum(share * one.outer_loss(w, λ, part).item() for part, share in one.outer_parts(batch))
    assert parts == pytest.approx(one.outer_loss(w, λ, batch).item(), rel=1e-12)


def test_the_best_step_and_all_that_is_shown_are_of_exact_losses(tmp_path, capsys):
    one, exact = problem(), problem(dev_sample=None)
    result = fit(one, exact_every=5, callbacks=[hg.Summary(tmp_path, Console(width=200)), hg.ProgressBar()]).fit()
    rows = {int(row["step"]): row for row in result.history}
    known = [step for step, row in rows.items() if "loss/dev" in row]
    assert known == [0, 5, 10, 12]
    assert all("loss/dev_sample" in row for row in rows.values())
    assert [step for step, row in rows.items() if "loss/test" in row] == known
    for record in (result.first, result.last, result.best):
        assert record.exact_loss == pytest.approx(
            exact.outer_loss(record.params, record.hparams, None).item(), rel=1e-12
        )
        sample = one.outer_loss(record.params, record.hparams, one.outer_batch(record.step)).item()
        assert record.outer_loss == pytest.approx(sample, rel=1e-12)
        assert record.outer_loss != record.exact_loss
    assert result.best.step == min(known, key=lambda step: rows[step]["loss/dev"])
    assert min(row["loss/dev_sample"] for row in rows.values()) < rows[result.best.step]["loss/dev"]
    assert result.best.losses()["dev_loss"] == result.best.exact_loss
    assert json.loads((tmp_path / "summary.json").read_text())["best"]["loss/dev"] == result.best.exact_loss
    out = capsys.readouterr().out
    assert f"{result.last.exact_loss:.6g}" in out
    assert f"{result.last.outer_loss:.6g}" not in out
    assert "on all of dev" in out
    assert "(all of dev, step 10)" in out
    assert f"{result.first.exact_loss:.6g} → {result.last.exact_loss:.6g}" in repr(result)


def test_patience_waits_for_an_exact_evaluation():
    result = fit(
        problem(), exact_every=4, patience=1, optimizer=partial(torch.optim.Adam, lr=1e-9, maximize=True)
    ).fit()
    assert result.stopped == "patience"
    assert result.last.step == 4
    assert result.last.exact_loss is not None


def test_the_default_is_every_tenth_step_and_every_step_without_samples():
    assert [int(row["step"]) for row in fit(problem()).fit().history if "loss/dev" in row] == [0, 10, 12]
    history = fit(problem(dev_sample=None)).fit().history
    assert all("loss/dev" in row and "loss/test" in row and "loss/dev_sample" not in row for row in history)


def test_without_samples_exact_every_spares_metrics():
    history = fit(problem(dev_sample=None), exact_every=5).fit().history
    assert all("loss/dev" in row for row in history)
    assert [int(row["step"]) for row in history if "loss/test" in row] == [0, 5, 10, 12]


def test_what_compares_losses_of_different_steps_is_refused_by_name():
    with pytest.raises(
        ValueError, match="Acceptance compares dev losses of different outer steps, but Supervised draws"
    ):
        fit(problem(), acceptance=hg.Acceptance())
    for optimizer in (hg.LBFGSB, torch.optim.LBFGS):
        with pytest.raises(ValueError, match=f"{optimizer.__name__} compares .*dev_batch_size"):
            fit(problem(), optimizer=optimizer).fit()
    with pytest.raises(ValueError, match="exact_every must be at least 1, but it is 0"):
        fit(problem(), exact_every=0)


def test_plateau_goes_by_exact_losses():
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=10.0)
    loop = fit(problem(), steps=9, exact_every=4, scheduler=plateau)._loop()
    loop.run()
    assert loop.descent.scheduler.last_epoch == 3  # it moved at steps 0, 4 and 8


def test_a_resumed_run_draws_and_judges_as_before(tmp_path):
    whole = fit(problem(), steps=9, exact_every=4).fit()

    class Stop(hg.Callback):
        def on_step(self, record):
            if record.step == 6:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(problem(), steps=9, exact_every=4, callbacks=[Stop(), hg.StateSaver(tmp_path)]).fit()
    resumed = fit(problem(), steps=9, exact_every=4, callbacks=[hg.StateSaver(tmp_path)]).fit(resume=tmp_path)
    keep = lambda rows: [{k: v for k, v in row.items() if k != "run/seconds"} for row in rows]  # noqa: E731
    assert keep(resumed.history) == keep(whole.history)
    assert resumed.best.step == whole.best.step
    assert resumed.best.exact_loss == whole.best.exact_loss


def test_a_search_goes_by_exact_losses():
    found = hg.search(problem(), ESTIMATOR, hg.RandomSearch(), hg.Budget(trials=3))
    assert all("loss/dev" in row for row in found.history)
    assert found.best.exact_loss == found.best.outer_loss


def test_folds_and_tied_problems_sample_too():
    folds = hg.k_fold(problem(), 3)
    assert folds.samples_outer
    assert folds.whole_outer_batch() is None
    assert len(folds.outer_batch(0)) == 3
    result = fit(folds, steps=2).fit()
    assert result.last.exact_loss is not None
