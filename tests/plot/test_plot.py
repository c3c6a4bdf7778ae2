"""What the figures of runs show, against numbers computed by hand."""

import json
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import QuadMesh
from tables import PROBLEMS

import hypergrad as hg
from hypergrad.callback.jsonl import JSONLines
from hypergrad.plot.__main__ import main
from hypergrad.plot.figures import FIGURES
from hypergrad.table.read import found_runs
from hypergrad.table.settings import settings_of

SGD = partial(torch.optim.SGD, lr=1e-3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    torch.set_default_dtype(torch.float64)
    folder = tmp_path_factory.mktemp("runs")
    for name in ("ridge", "quadratic"):
        estimator = hg.Implicit(solver=hg.Momentum(lr=0.05))
        hg.fit(PROBLEMS[name], estimator, SGD, 3, progress=False, callbacks=[JSONLines(folder / name)])
        (folder / name / "summary.json").write_text('{"status": "finished"}')
    return folder


def drawn(figure, *folders) -> list[Any]:
    """The panels of a figure of the runs in folders."""
    return FIGURES[figure](settings_of(found_runs(folders))).axes


def values(data):
    return np.asarray(data, dtype=float).tolist()


def written(folder, rows, overrides=(), status="finished", labels=None, **config):
    """A run as the command line leaves it, with these rows."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"step": i} | row) + "\n" for i, row in enumerate(rows)))
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(list(overrides)))
    (folder / ".hydra" / "config.yaml").write_text(json.dumps({"name": "mine", "seed": 0} | config))
    if status is not None:
        (folder / "summary.json").write_text(json.dumps({"status": status}))
    if labels is not None:
        (folder / "labels.json").write_text(json.dumps(labels))


def losses(dev, **more):
    return [
        {"loss/dev": x, "hypergradient/norm": 1.0, "run/seconds": float(i), **{tag: y[i] for tag, y in more.items()}}
        for i, x in enumerate(dev)
    ]


def names(axes):
    (legend,) = axes[0].get_figure(root=True).legends
    return [text.get_text() for text in legend.get_texts()]


def test_every_figure_is_written_twice(runs, tmp_path, capsys):
    main([str(runs), "--out", str(tmp_path / "plots")])
    printed = capsys.readouterr().out
    for name in FIGURES:
        assert (tmp_path / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / "plots" / f"{name}.svg").read_text()
        assert f"{name}.svg" in printed


def test_curves_are_the_numbers_of_the_runs(runs):
    folders = (runs / "ridge", runs / "quadratic")
    rows = [json.loads(line) for line in (runs / "ridge" / "metrics.jsonl").read_text().splitlines()]
    dev, test = drawn("loss_against_products", *folders)
    assert [dev.get_ylabel(), test.get_ylabel(), dev.get_xlabel()] == ["dev loss", "test loss", "Hessian products"]
    first, second = dev.get_lines()
    assert values(first.get_ydata()) == [row["loss/dev"] for row in rows]
    assert values(first.get_xdata()) == [row["run/products"] for row in rows]
    assert len(values(second.get_ydata())) == 4
    assert values(test.get_lines()[0].get_ydata()) == [row["loss/test"] for row in rows]
    panels = drawn("trajectories", *folders)
    assert [axis.get_ylabel() for axis in panels] == ["l2", "penalty", "shift"]
    assert [text.get_text() for text in panels[2].get_legend().get_texts()] == ["0", "1", "2"]
    assert values(panels[0].get_lines()[0].get_ydata()) == [row["hparam/l2"] for row in rows]
    assert names(panels) == ["ridge", "quadratic"]
    best = drawn("comparison", *folders)[0].get_lines()[0]
    assert values(best.get_ydata()) == [min(row["loss/dev"] for row in rows[: i + 1]) for i in range(4)]


def test_one_run_needs_no_legend(runs):
    assert not drawn("loss_against_time", runs / "ridge")[0].get_figure(root=True).legends


def test_a_search_is_drawn_as_its_best_so_far_and_the_points_that_it_tried(runs, tmp_path):
    callbacks = [JSONLines(tmp_path / "search")]
    hg.search(PROBLEMS["ridge"], hg.Implicit(solver=hg.Newton()), hg.RandomSearch(), hg.Budget(trials=6), callbacks)
    run, found = found_runs([runs / "ridge", tmp_path / "search"])
    assert found.is_search
    assert not run.is_search
    assert (run.work() == run.series("run/gradients") + 2 * run.series("run/products")).all()
    dev = drawn("loss_against_time", tmp_path / "search")[0].get_lines()[0]
    assert values(dev.get_ydata()) == np.minimum.accumulate(found.series("loss/dev")).tolist()
    assert dev.get_drawstyle() == "steps-post"
    (points,) = (
        line for line in drawn("trajectories", tmp_path / "search")[0].get_lines() if len(values(line.get_xdata())) > 1
    )
    assert points.get_linestyle() == "None"
    axes = drawn("comparison", runs / "ridge", tmp_path / "search")
    assert [axis.get_xlabel() for axis in axes][:3] == ["wall time [s]", "gradients (a product is two)", "inner steps"]


DEV = {"unrolled": [[4.0, 3.0, 2.0], [5.0, 3.0, 1.0], [9.0, 3.0, 3.0, 2.0]], "ift_cg": [[2.0, 1.0], [1.0, 1.5]]}


def test_the_seeds_of_a_setting_are_a_mean_with_a_band(tmp_path):
    for estimator, runs in DEV.items():
        for seed, dev in enumerate(runs):
            overrides = ["experiment=mine", f"seed={seed}", f"+estimator={estimator}", "solver.lr=0.10"]
            written(tmp_path / f"{estimator} {seed}", losses(dev), overrides, seed=seed)
    axes = drawn("loss_against_steps", tmp_path)
    assert names(axes) == ["estimator ift_cg (2 seeds)", "estimator unrolled (3 seeds)"]
    (legend,) = axes[0].get_figure(root=True).legends
    assert legend.get_title().get_text() == "mean ± standard error over seeds"
    _, line = axes[0].get_lines()
    mean, error = np.array([6.0, 3.0, 2.0]), np.array([np.sqrt(7), 0.0, 1.0]) / np.sqrt(3)
    np.testing.assert_allclose(values(line.get_ydata()), mean)
    band = np.asarray(axes[0].collections[1].get_paths()[0].vertices)
    for i in range(3):
        edges = band[band[:, 0] == i][:, 1]
        np.testing.assert_allclose([edges.min(), edges.max()], [mean[i] - error[i], mean[i] + error[i]])


def test_the_mean_of_a_positive_hyperparameter_is_that_of_its_logarithm(tmp_path):
    for seed, l2 in enumerate(([1.0, 0.01], [4.0, 0.04])):
        written(tmp_path / str(seed), losses([1.0, 1.0], **{"hparam/l2": l2}), [f"seed={seed}"], seed=seed)
    (axis,) = drawn("trajectories", tmp_path)
    assert axis.get_yscale() == "log"
    np.testing.assert_allclose(values(axis.get_lines()[0].get_ydata()), [2.0, 0.02])
    band = np.asarray(axis.collections[0].get_paths()[0].vertices)
    np.testing.assert_allclose([band[:, 1].min(), band[:, 1].max()], [0.01, 4.0])  # e^(mean ± log(4)/2)


def test_curves_that_coincide_are_both_seen(tmp_path):
    x = np.linspace(0, 1, 20)
    for name, dev in {"a": x**2, "b": x**2 + 1e-6, "c": 1 - x}.items():
        written(tmp_path / name, losses(dev), [f"solver.lr={ord(name)}"], solver={"lr": ord(name)})
    for lines in (drawn(figure, tmp_path)[0].get_lines() for figure in ("loss_against_steps", "loss_against_time")):
        solid, dashed, apart = lines
        assert [line.get_linestyle() for line in (solid, dashed, apart)] == ["-", "--", "-"]
        assert solid.get_zorder() < dashed.get_zorder()
        assert len({line.get_color() for line in lines}) == len({line.get_marker() for line in lines}) == 3


def test_the_longest_of_the_curves_that_coincide_is_the_solid_one(tmp_path):
    for name, rows in {"a": 4, "b": 9, "c": 6}.items():
        written(tmp_path / name, losses(1 / np.arange(1, rows + 1)), [f"solver.lr={ord(name)}"], solver={"lr": 0})
    lines = drawn("loss_against_steps", tmp_path)[0].get_lines()
    assert [line.get_linestyle() for line in lines] == ["--", "-", "--"]
    offsets = {line._unscaled_dash_pattern[0] for line in lines if line.get_linestyle() == "--"}
    assert len(offsets) == 2  # beside each other


def test_a_vector_is_curves_by_name_or_a_heat_map(tmp_path):
    rows = [{"l2": [1.0 + i, 0.1, 3.0], "lr": [0.1 * (k + 1) + i for k in range(100)]} for i in range(5)]
    tags = {"hparam/l2": [row["l2"] for row in rows], "hparam/lr": [row["lr"] for row in rows]}
    tags |= {"hparam/l2/0.weight": [row["l2"][0] for row in rows]}
    labels = {"l2": ["0.weight", "0.bias", "2.weight"], "lr": [f"step {t}" for t in range(100)]}
    written(tmp_path / "run", losses(np.ones(5), **tags), labels=labels)
    axes = drawn("trajectories", tmp_path)
    few, many = axes[:2]
    assert [text.get_text() for text in few.get_legend().get_texts()] == labels["l2"]
    assert values(few.get_lines()[0].get_ydata()) == [1, 2, 3, 4, 5]
    (mesh,) = (part for part in many.collections if isinstance(part, QuadMesh))
    np.testing.assert_allclose(values(mesh.get_array()), np.array([row["lr"] for row in rows]).T)
    assert (many.get_xlabel(), many.get_ylabel()) == ("outer step", "inner step")
    assert type(mesh.norm).__name__ == "LogNorm"
    assert len(axes) == 3  # with the bar of colours


def test_a_schedule_of_groups_has_a_panel_for_each(tmp_path):
    labels = {"lr": [f"step {t}, {group}" for t in range(20) for group in ("*.weight", "*.bias")]}
    values_ = [[[t + 1.0, 100.0 + t] for t in range(20)]] * 3
    written(tmp_path / "run", losses(np.ones(3), **{"hparam/lr": values_}), labels=labels)
    meshes = [part for axis in drawn("trajectories", tmp_path) for part in axis.collections[:1]]
    found = [np.asarray(mesh.get_array())[:, 0].tolist() for mesh in meshes if isinstance(mesh, QuadMesh)]
    assert found == [[t + 1.0 for t in range(20)], [100.0 + t for t in range(20)]]


def test_settings_of_two_problems_do_not_share_a_panel_by_a_name_of_another_size(tmp_path):
    written(tmp_path / "a", losses([1.0], **{"hparam/l2": [2.0]}))
    written(tmp_path / "b", losses([1.0], **{"hparam/l2": [[3.0, 4.0]]}), ["experiment=b"])
    one, two = drawn("trajectories", tmp_path)
    assert [values(line.get_ydata()) for line in one.get_lines()] == [[2.0]]
    assert [values(line.get_ydata()) for line in two.get_lines()] == [[3.0], [4.0]]


@pytest.mark.parametrize("status", ["failed", "interrupted", None])
def test_a_run_that_did_not_finish_is_drawn_and_marked(tmp_path, status):
    for seed, dev in enumerate(([3.0, 2.0, 1.0], [3.0, 3.0, 3.0], [3.0, 9.0])):
        state = "finished" if seed < 2 else status
        written(tmp_path / str(seed), losses(dev), [f"seed={seed}"], state, seed=seed)
    word = status or "unfinished"
    axis = drawn("loss_against_steps", tmp_path)[0]
    assert names([axis]) == [f"mine (2 seeds, 1 {word})"]
    assert [values(line.get_ydata()) for line in axis.get_lines()] == [[3.0, 2.5, 2.0], [3.0, 9.0], [9.0]]
    assert axis.get_lines()[2].get_marker() == "x"


def test_runs_that_cannot_be_drawn_in_full_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hypergrad.plot.figures.FIGURES", {})
    written(tmp_path / "short", losses([1.0]), ["seed=1"], "interrupted")
    written(tmp_path / "none", [], ["seed=2"], "failed")
    main([str(tmp_path), "--out", str(tmp_path / "plots")])
    said = capsys.readouterr().err
    assert f"drawn as far as it came: {tmp_path / 'short'} (interrupted)" in said
    assert f"left out: {tmp_path / 'none'} (failed)" in said


def test_what_is_not_recorded_leaves_a_panel_that_says_so(tmp_path):
    written(tmp_path / "run", losses([1.0, 2.0]))
    (axis,) = drawn("trajectories", tmp_path)
    assert axis.texts[0].get_text() == "no hyperparameters recorded"
    assert drawn("loss_against_products", tmp_path)[0].get_lines() == []
    written(tmp_path / "many", losses([1.0, 2.0], **{"hparam_norm/w": [3.0, 4.0]}), ["a=1"])
    (axis,) = drawn("trajectories", tmp_path)
    assert axis.get_ylabel() == "norm of w"


def test_mistakes_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"error: \S+ holds no run: no metrics.jsonl"):
        main([str(tmp_path)])
    with pytest.raises(SystemExit, match="is not a folder"):
        main([str(tmp_path / "not there")])
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(SystemExit, match="None of these runs holds a step"):
        main([str(tmp_path)])
    assert "holds no step yet" in capsys.readouterr().err
