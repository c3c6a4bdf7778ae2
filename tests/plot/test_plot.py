import json
from functools import partial

import numpy as np
import pytest
import torch
from tables import PROBLEMS

import hypergrad as hg
from hypergrad.callback.jsonl import JSONLines
from hypergrad.plot.__main__ import main
from hypergrad.plot.figures import FIGURES
from hypergrad.plot.history import read

SGD = partial(torch.optim.SGD, lr=1e-3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    torch.set_default_dtype(torch.float64)
    folder = tmp_path_factory.mktemp("runs")
    for name in ("ridge", "quadratic"):
        estimator = hg.Implicit(solver=hg.Momentum(lr=0.05))
        hg.fit(PROBLEMS[name], estimator, SGD, 3, progress=False, callbacks=[JSONLines(folder / name)])
    return folder


def test_every_figure_is_written_twice(runs, tmp_path, capsys):
    main([str(runs), "--out", str(tmp_path / "plots")])
    printed = capsys.readouterr().out
    for name in FIGURES:
        assert (tmp_path / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / "plots" / f"{name}.svg").read_text()
        assert f"{name}.svg" in printed


def values(data):
    return np.asarray(data).tolist()


def test_curves_are_the_numbers_of_the_runs(runs):
    histories = read([runs / "ridge", runs / "quadratic"])
    rows = [json.loads(line) for line in (runs / "ridge" / "metrics.jsonl").read_text().splitlines()]
    (axis,) = FIGURES["loss_against_products"](histories).axes
    dev, test, other = axis.get_lines()
    assert values(dev.get_ydata()) == [row["loss/dev"] for row in rows]
    assert values(test.get_ydata()) == [row["loss/test"] for row in rows]
    assert values(dev.get_xdata()) == [row["run/products"] for row in rows]
    assert len(values(other.get_ydata())) == 4
    assert [axis.get_ylabel() for axis in FIGURES["trajectories"](histories).axes][:3] == ["l2", "penalty", "shift"]
    assert len(FIGURES["trajectories"](histories).axes[2].get_lines()) == 3
    best = FIGURES["comparison"](histories).axes[0].get_lines()[0]
    lowest = [min(row["loss/dev"] for row in rows[: i + 1]) for i in range(4)]
    assert values(best.get_ydata()) == lowest


def test_a_search_is_drawn_as_its_best_so_far_and_the_points_that_it_tried(runs, tmp_path):
    callbacks = [JSONLines(tmp_path / "search")]
    hg.search(PROBLEMS["ridge"], hg.Implicit(solver=hg.Newton()), hg.RandomSearch(), hg.Budget(trials=6), callbacks)
    run, found = read([runs / "ridge", tmp_path / "search"])
    assert found.is_search
    assert not run.is_search
    assert (run.work() == run.series("run/gradients") + 2 * run.series("run/products")).all()
    dev = FIGURES["loss_against_time"]([found]).axes[0].get_lines()[0]
    assert values(dev.get_ydata()) == np.minimum.accumulate(found.series("loss/dev")).tolist()
    assert FIGURES["trajectories"]([found]).axes[0].get_lines()[0].get_linestyle() == "None"
    axes = FIGURES["comparison"]([run, found]).axes
    assert [axis.get_xlabel() for axis in axes] == ["wall time [s]", "gradients (a product is two)", "inner steps"]


def test_mistakes_are_named(tmp_path):
    with pytest.raises(SystemExit, match=r"error: \S+ holds no metrics.jsonl"):
        main([str(tmp_path)])
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(SystemExit, match="holds no step yet"):
        main([str(tmp_path)])
