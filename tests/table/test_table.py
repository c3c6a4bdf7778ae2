"""Runs as rows: nothing is dropped, means are those by hand, and mistakes are named."""

import csv
import json
import sys

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import hypergrad as hg
from hypergrad.table.__main__ import main
from hypergrad.table.printed import print_table
from hypergrad.table.read import found_runs
from hypergrad.table.settings import differing_keys, settings_of

COSTS = {"run/gradients": 10.0, "run/products": 4.0, "run/inner_steps": 7.0, "run/seconds": 0.5}


def written(folder, *arguments, dev=(), status: str | None = "finished", choices=(), config=(), labels=(), **tags):
    """A run as the command line leaves it: with `dev` as its dev losses, and other tags by step."""
    hydra = folder / ".hydra"
    hydra.mkdir(parents=True)
    rows = [{"step": i, "loss/dev": x, **COSTS, **{tag: xs[i] for tag, xs in tags.items()}} for i, x in enumerate(dev)]
    if rows:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (hydra / "overrides.yaml").write_text(json.dumps(list(arguments)))
    (hydra / "hydra.yaml").write_text(json.dumps({"hydra": {"runtime": {"choices": dict(choices)}}}))
    (hydra / "config.yaml").write_text(json.dumps({"name": "mine", "seed": 0} | dict(config)))
    if status == "finished":
        best = min(rows, key=lambda row: row["loss/dev"])
        content = {"status": status, "first": rows[0], "last": {**rows[-1]}, "best": best}
        (folder / "summary.json").write_text(json.dumps(content))
    elif status is not None:
        (folder / "summary.json").write_text(json.dumps({"status": status, "error": "Bad: why", "last": None}))


@pytest.fixture
def sweep(tmp_path):
    """Two settings with three seeds each, one of which failed, one was cut short and one never began."""
    folder = tmp_path / "my sweep"
    folder.mkdir()
    (folder / "multirun.yaml").write_text("hydra: {}\n")
    job = 0
    for estimator in ("unrolled", "ift_cg"):
        for seed in (0, 1, 2):
            arguments = ("experiment=mine", f"estimator={estimator}", f"seed={seed}", "solver.lr=1e-1")
            place = folder / f"{job}_{','.join(arguments[1:3])}"
            state: dict = {
                "dev": [4.0, 1.0 + seed, 2.0 + seed],
                "choices": {"estimator": estimator, "experiment": "mine"},
            }
            state["loss/test"] = [9.0, 4.0 + seed, 5.0 + seed]
            if (estimator, seed) == ("ift_cg", 1):
                state = {"status": "failed"}
            elif (estimator, seed) == ("ift_cg", 2):
                state = {"status": None}
            written(place, *arguments, config={"seed": seed}, **state)
            job += 1
    choices = {"estimator": "sgd", "experiment": "mine"}
    written(folder / "10_seed=3", "seed=3", dev=[8.0], status=None, config={"seed": 3}, choices=choices)
    return folder


def test_every_run_has_a_row_with_what_differs(sweep):
    frame = hg.read_runs(sweep)
    assert frame["run"].tolist()[::6] == ["0_estimator=unrolled,seed=0", "10_seed=3"]  # 2 comes before 10
    assert frame["estimator"].tolist() == ["unrolled"] * 3 + ["ift_cg"] * 3 + ["sgd"]
    assert frame["seed"].tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert frame["status"].tolist() == ["finished"] * 4 + ["failed", "unfinished", "unfinished"]
    assert frame["error"].tolist()[4] == "Bad: why"
    assert frame["dev_best"].tolist()[:4] == [1, 2, 3, 1]
    assert frame["dev_last"].tolist()[:4] == [2, 3, 4, 2]
    assert frame["test_best"].tolist()[:4] == [4, 5, 6, 4]
    assert frame[["dev_first", "steps", "products", "seconds"]].iloc[0].tolist() == [4, 2, 4, 0.5]
    assert frame["dev_last"].iloc[6] == 8


def test_the_mean_over_seeds_is_that_of_the_runs_that_finished(sweep):
    frame = hg.read_runs(sweep, over_seeds=True)
    # The last run has neither the estimator nor the lr of the others.
    assert frame["setting"].tolist() == ["unrolled, lr 0.1", "ift_cg, lr 0.1", "sgd, no lr"]
    assert frame[["runs", "finished"]].to_numpy().tolist() == [[3, 3], [3, 1], [1, 0]]
    first = frame.iloc[0]
    assert first["test_best"] == 5
    assert first["test_best_se"] == pytest.approx(1 / np.sqrt(3))
    assert frame["dev_best"].iloc[1] == 1
    assert np.isnan(frame["dev_best_se"].iloc[1])
    assert np.isnan(frame["dev_best"].iloc[2])


def test_the_command_prints_the_rows_and_writes_csv(sweep, tmp_path, capsys):
    path = tmp_path / "all.csv"
    main([str(sweep), "--csv", str(path)])
    text = capsys.readouterr().out
    assert "7 runs" in text
    assert f"{sweep / '4_estimator=ift_cg,seed=1'}: Bad: why" in text
    (line,) = (line for line in text.splitlines() if line.startswith("│ 5"))
    assert [cell.strip() for cell in line.split("│")[2:6]] == ["ift_cg", "0.1", "2", "unfinished"]
    with path.open() as file:
        rows = list(csv.DictReader(file))
    frame = hg.read_runs(sweep)
    assert [row["run"] for row in rows] == frame["run"].tolist()
    assert list(rows[0]) == frame.columns.tolist()
    numbers = frame.select_dtypes("number")
    assert {"dev_best", "test_last", "seconds"} <= set(numbers)
    pd.testing.assert_frame_equal(pd.read_csv(path, usecols=numbers.columns.tolist()), numbers, check_dtype=False)
    main([str(sweep), "--over-seeds"])
    assert " 5.00 ± 0.58 │" in capsys.readouterr().out


def test_the_values_of_entries_at_the_best_step_are_columns(tmp_path):
    tags = {"hparam/l2": [[1.0, 2.0], [3.0, 4.0]], "hparam/l2/a": [1.0, 3.0], "metric/accuracy": [0.5, 0.75]}
    written(tmp_path / "run", dev=[2.0, 1.0], **tags)
    row = hg.read_runs(tmp_path).iloc[0]
    assert (row["hparam/l2/a"], row["accuracy_best"]) == (3.0, 0.75)
    assert "hparam/l2" not in row


def named(tmp_path, *runs):
    """The names of the settings of runs with these overrides, and choices or config."""
    for i, (arguments, more) in enumerate(runs):
        choices = {key: value for key, value in more.items() if isinstance(value, str)}
        written(tmp_path / f"at {i}", *arguments, dev=[1.0], choices=choices, config=more)
    return [setting.name for setting in settings_of(found_runs([tmp_path]))]


NAMES = {
    "groups by their choice": (
        [(["estimator=unrolled"], {"estimator": "unrolled"}), (["estimator=ift_cg"], {"estimator": "ift_cg"})],
        ["unrolled", "ift_cg"],
    ),
    "what only the config of the other knows": (
        [(["solver.lr=0.1"], {"solver": {"lr": 0.1}}), ([], {"solver": {"lr": 0.5}})],
        ["lr 0.1", "lr 0.5"],
    ),
    "equal values in other words": ([(["solver.lr=1e-1"], {}), ([], {"solver": {"lr": 0.1}})], ["at 0", "at 1"]),
    "keys with the same end": (
        [(["solver.lr=1", "optimizer.lr=2"], {}), (["solver.lr=2", "optimizer.lr=3"], {})],
        ["solver.lr 1, optimizer.lr 2", "solver.lr 2, optimizer.lr 3"],
    ),
    "none and booleans": (
        [(["patience=null", "warm_start=true"], {}), (["patience=3", "warm_start=false"], {})],
        ["no patience, warm start true", "patience 3, warm start false"],
    ),
    "added and where it is": (
        [(["+baseline=tpe", "hydra.run.dir=x", "callback.jsonl=null"], {}), (["+baseline=grid", "resume=y"], {})],
        ["baseline tpe", "baseline grid"],
    ),
    "seeds of one setting": ([(["seed=0"], {"seed": 0}), (["seed=1"], {"seed": 1})], ["mine"]),
    "seeds of the data": ([(["data.seed=0"], {}), (["data.seed=1"], {})], ["mine"]),
    "the same twice": ([(["a=1", "seed=1"], {})] * 2, ["at 0", "at 1"]),
}


@pytest.mark.parametrize(("runs", "expected"), NAMES.values(), ids=NAMES)
def test_a_setting_is_named_by_what_differs(runs, expected, tmp_path):
    assert named(tmp_path, *runs) == expected


def test_a_resumed_run_is_named_by_its_last_command(tmp_path):
    written(tmp_path / "a", "outer_steps=5", dev=[1.0])
    written(tmp_path / "b", "outer_steps=5", dev=[1.0])
    (tmp_path / "a" / ".hydra" / "resumed").mkdir()
    (tmp_path / "a" / ".hydra" / "resumed" / "overrides.yaml").write_text('["outer_steps=9", "resume=x"]')
    (tmp_path / "a" / ".hydra" / "resumed" / "config.yaml").write_text("{outer_steps: 9}")
    runs = found_runs([tmp_path])
    assert differing_keys(runs) == ["outer_steps"]
    assert [setting.name for setting in settings_of(runs)] == ["outer steps 9", "outer steps 5"]


def test_runs_from_python_are_named_by_their_folders(tmp_path):
    for name in ("x/one", "y/one", "two"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "metrics.jsonl").write_text('{"step": 0, "loss/dev": 1.0}\n{"step": 1, "loss')
    runs = found_runs([tmp_path, tmp_path / "two"])
    assert [setting.name for setting in settings_of(runs)] == ["two", "x/one", "y/one"]
    assert [run.status for run in runs] == ["unfinished"] * 3


def broken(folder, file, text):
    written(folder / "run", dev=[1.0])
    (folder / "run" / file).write_text(text)
    return folder


MISTAKES = {
    "no such folder": (lambda folder: folder / "none", "none is not a folder; name the folder"),
    "empty": (lambda folder: folder, "holds no run: no metrics.jsonl and no summary.json"),
    "broken summary": (lambda folder: broken(folder, "summary.json", "{"), r"summary.json cannot be read \(Expecting"),
    "broken metrics": (lambda folder: broken(folder, "metrics.jsonl", "{]}"), "metrics.jsonl cannot be read"),
    "broken yaml": (lambda folder: broken(folder, ".hydra/overrides.yaml", "[a"), "overrides.yaml cannot be read"),
}


@pytest.mark.parametrize(("made", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(made, message, tmp_path):
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main([str(made(tmp_path))])


@pytest.mark.parametrize("text", ["3", "{a: 1}", "null", "[1, 2]", ""])
def test_yaml_of_others_is_no_setting(text, tmp_path):
    folder = broken(tmp_path, ".hydra/overrides.yaml", text)
    (folder / "run" / ".hydra" / "hydra.yaml").write_text("[]")
    assert found_runs([folder])[0].overrides == {}


def test_a_data_frame_without_pandas_says_what_to_install(sweep, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'torch-hypergrad\[table\]'"):
        hg.read_runs(sweep)
    main([str(sweep)])


def test_a_narrow_terminal_shows_what_fits_and_says_what_it_leaves_out():
    rows = [{"run": "a", "dev": 1.0, "products": 12345.0}]
    headings = {"run": "run", "dev": "dev loss", "products": "products"}
    for width, is_whole in ((24, False), (80, True)):
        console = Console(width=width, force_terminal=True, record=True, color_system=None)
        print_table(rows, headings, "t", optional=["products"], console=console)
        text = console.export_text()
        assert ("12345" in text) is is_whole
        assert ("not shown in this width: products" in text.replace("\n", " ")) is not is_whole
        assert "dev loss" in text
