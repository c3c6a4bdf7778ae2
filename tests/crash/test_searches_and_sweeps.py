"""A search that is killed leaves whole trials, and a sweep that is killed leaves runs that go on."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import call
from folder_runs import UNROLLED, network, rows_of
from moments import End, in_a_child, killed, nothing

import hypergrad as hg
from hypergrad import run
from hypergrad.callback import state_file

pytestmark = pytest.mark.filterwarnings("ignore")
SEED, ROOT = 18, Path(__file__).parents[2]


def searched(folder: Path) -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)
    callbacks = [hg.JSONLines(folder), hg.TensorBoard(folder), hg.ModelSaver(folder), hg.Summary(folder)]
    hg.search(network(0.0), UNROLLED, hg.TPE(seed=1), hg.Budget(trials=3), callbacks)


def in_a_fork(folder: Path, act: Any) -> End:
    return in_a_child(lambda: searched(folder), folder, act, folder.with_suffix(".log"))


def kill_and_search_again(at: int, folder: Path, whole: list[dict[str, Any]]) -> bool:
    """Kill a search at a call, and search again in its folder. Whether that was refused."""
    assert in_a_fork(folder, killed(at)).signal == signal.SIGKILL
    begun = (folder / "metrics.jsonl").exists()
    rows = rows_of(folder) if begun else []
    assert rows == whole[: len(rows)]
    before = {path.name: path.read_bytes() for path in folder.glob("*.*") if "tfevents" not in path.name}
    again = in_a_fork(folder, nothing)
    if not begun:
        assert again.code == 0, again.said
        assert rows_of(folder) == whole
        return False
    assert "metrics.jsonl belongs to another run; choose another folder." in again.said
    after = {path.name: path.read_bytes() for path in folder.glob("*.*") if "tfevents" not in path.name}
    assert {name: x for name, x in before.items() if not name.endswith((".part", ".lock.json"))} == after
    return True


@pytest.mark.slow
def test_a_killed_search_leaves_whole_trials_and_its_folder_is_not_overwritten(tmp_path):
    searched(tmp_path / "warm")
    end = in_a_fork(tmp_path / "whole", nothing)
    assert end.code == 0, end.said
    whole, moments = rows_of(tmp_path / "whole"), random.Random(SEED)
    refused = [kill_and_search_again(moments.randrange(end.calls), tmp_path / str(i), whole) for i in range(12)]
    print(f"12 searches killed, {sum(refused)} refused in their folder, seed {SEED}")


SWEEP = ("experiment=ridge", "outer_steps=8", "seed=0,1,2")


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.0, 0.3])
def test_each_run_of_a_killed_sweep_goes_on(tmp_path, moment):
    """The launcher and its processes are killed at once, as by a machine that fails."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs torch-hypergrad[joblib]")
    cores = ("hydra/launcher=cores", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep")
    command = [sys.executable, "-m", "hypergrad.run", "-m", *SWEEP, *cores]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while not list(tmp_path.glob("sweep/*/state-000002.pt")):
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
    time.sleep(0.5)
    went_on = 0
    for folder in sorted(path.parent for path in tmp_path.glob("sweep/*/.hydra")):
        again = call(run.main, f"resume={folder}", cwd=tmp_path)
        if not state_file.found(folder):
            assert "holds no state-*.pt to go on from" in again.stderr
            continue
        assert again.returncode == 0, again.stderr
        seed = folder.name[-1]
        whole = call(run.main, *SWEEP[:2], f"seed={seed}", f"hydra.run.dir=w{seed}", cwd=tmp_path)
        assert whole.returncode == 0, whole.stderr
        assert rows_of(folder) == rows_of(tmp_path / f"w{seed}")
        went_on += 1
    print(f"{went_on} runs of a killed sweep went on")
    assert went_on >= 1
