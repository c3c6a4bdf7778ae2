"""`python -m hypergrad.influence method=…`: files, groups, and a killed run that goes on."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import call

from hypergrad.influence.__main__ import main
from hypergrad.influence.score_folder import ScoreFolder, digest
from hypergrad.influence.tables import read_groups, require_format, write_table

ROOT = Path(__file__).parent.parent.parent
SETTINGS = ("experiment=digits", "data=breast_cancer", "problem.model.in_features=30", "problem.model.out_features=1")
SETTINGS = (*SETTINGS, "problem.loss._target_=torch.nn.BCEWithLogitsLoss")
SETTINGS = (*SETTINGS, "problem.hyperparameters.l2.init=0.01", "method=dense", "steps=30")


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_each_dev_example_is_scored_and_the_mean_is_that_of_the_default(tmp_path):
    done = call(main, *SETTINGS, "each=true", "top=2", "groups=target", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "‖∇g‖ is" in done.stdout
    assert "not a minimum" not in done.stdout
    (folder,) = tmp_path.glob("outputs/digits-influence/*")
    scores = np.load(folder / "scores.npy", mmap_mode="r")
    default = [setting for setting in SETTINGS if not setting.startswith("method")]
    known = call(main, *default, f"hydra.run.dir={tmp_path}/default", cwd=tmp_path)
    assert known.returncode == 0, known.stderr
    for name in ("influence.csv", "default/influence.csv"):
        assert (folder if name == "influence.csv" else tmp_path).joinpath(name).exists()
    mine, theirs = rows_of(folder / "influence.csv"), rows_of(tmp_path / "default" / "influence.csv")
    assert [row["target"] for row in mine] == [row["target"] for row in theirs]
    for key in ("train_loss", "dev_loss_change_without"):
        np.testing.assert_allclose([float(row[key]) for row in mine], [float(row[key]) for row in theirs], rtol=1e-7)
    np.testing.assert_allclose(scores.mean(0), [float(row["dev_loss_change_without"]) for row in mine], rtol=1e-9)

    top = rows_of(folder / "top.csv")
    assert len(top) == 4 * len(scores)
    for row, one in zip(range(0, len(top), 4), scores, strict=True):
        order = one.argsort()
        assert [int(line["example"]) for line in top[row : row + 4]] == [*order[:2], *order[-2:]]
    groups = rows_of(folder / "groups.csv")
    assert {row["group"]: int(row["examples"]) for row in groups} == {
        target: sum(row["target"] == target for row in mine) for target in ("0", "1")
    }
    total = sum(float(row["dev_loss_change_without"]) for row in groups)
    assert total == pytest.approx(scores.mean(0).sum())


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_bits(tmp_path):
    arguments = (*SETTINGS, "each=true", "influence.dev_block=1")
    whole = call(main, *arguments, f"hydra.run.dir={tmp_path}/whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "hypergrad.influence", *arguments, f"hydra.run.dir={folder}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while len(list(folder.glob("blocks/*.npy"))) < 3:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("blocks/*.npy")}
    trained = (folder / "trained.pt").stat().st_mtime_ns
    assert not (folder / "scores.npy").exists()
    refused = call(main, f"resume={folder}", "method=cg", cwd=tmp_path)
    assert refused.returncode == 1
    assert "scored by method=dense, but method=cg is given" in refused.stderr

    done = call(main, f"resume={folder}", "top=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{len(before)} of " in done.stdout
    assert (folder / "trained.pt").stat().st_mtime_ns == trained
    for name in ("scores.npy", "influence.csv"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_other_settings_do_not_go_on_in_a_folder(tmp_path):
    first = call(main, *SETTINGS, f"hydra.run.dir={tmp_path}/run", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    other = call(main, f"resume={tmp_path}/run", "problem.hyperparameters.l2.init=0.02", cwd=tmp_path)
    assert other.returncode == 1
    assert "were trained on another problem" in other.stderr
    for given, message in {
        "nowhere": "there is no .*nowhere/influence.json",
        str(tmp_path / "run"): "must hold the settings method, top",
    }.items():
        path = tmp_path / "run" / "influence.json"
        path.write_text(json.dumps({"method": "dense"}))
        done = call(main, f"resume={given}", cwd=tmp_path)
        assert done.returncode == 1
        assert re.search(message, done.stderr)


REFUSED = {
    "each=true": "each=true needs a method",
    "each=maybe": "each must be true or false, but it is 'maybe'",
    "table=xls": "table must be one of csv, parquet, but it is 'xls'",
}


@pytest.mark.parametrize("given", REFUSED)
def test_settings_that_cannot_be_are_refused(given, tmp_path):
    done = call(main, "experiment=digits", given, cwd=tmp_path)
    assert done.returncode == 1
    assert REFUSED[given] in done.stderr


def test_parquet_needs_packages(monkeypatch):
    monkeypatch.setattr("hypergrad.influence.tables.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs pandas and pyarrow: pip install 'torch-hypergrad\[parquet\]'"):
        require_format("parquet")


def test_groups_are_read_from_a_column(tmp_path):
    path, y = tmp_path / "groups.csv", torch.tensor([1, 0, 1])
    path.write_text("id,author\n1,b\n2,a\n3,b\n")
    names, number = read_groups(f"{path}:author", y)
    assert (names, number.tolist()) == (["a", "b"], [1, 0, 1])
    assert read_groups("target", y)[0] == ["0", "1"]
    with pytest.raises(ValueError, match="must name one of the columns id, author, but it is ''"):
        read_groups(str(path), y)
    with pytest.raises(ValueError, match="a line for each of the 4 train examples after its header, but it has 3"):
        read_groups(f"{path}:author", torch.zeros(4))
    with pytest.raises(ValueError, match="there is no file .*none.csv"):
        read_groups(str(tmp_path / "none.csv"), y)


def test_a_digest_differs_with_each_bit():
    some = torch.arange(4.0)
    assert digest("a", {"x": some}) == digest("a", {"x": some.clone()})
    nearby = torch.nextafter(some, some + 1)
    others: list[Any] = [("a", {"x": x}) for x in (some, some.view(2, 2), nearby)]
    others += [("b", {"x": some}), ("a", {"y": some})]
    assert len({digest(*other) for other in others}) == 5


def test_unfinished_files_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / "blocks").mkdir()
    left = tmp_path / "blocks" / "ab-00000.npy.1-ff.part"
    left.write_bytes(b"half")
    ScoreFolder(tmp_path)
    assert not left.exists()


def test_a_table_is_the_same_in_both_formats(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    columns = {"example": range(3), "target": ["a", "b", "a"], "change": [0.1, -1e-9, 3.0]}
    for kind in ("csv", "parquet"):
        require_format(kind)
    found = pandas.read_parquet(write_table(tmp_path, "some", columns, "parquet"))
    pandas.testing.assert_frame_equal(found, pandas.read_csv(write_table(tmp_path, "some", columns, "csv")))
