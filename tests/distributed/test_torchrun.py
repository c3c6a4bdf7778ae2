"""Commands and scripts that torchrun starts: one folder, one message, and the same run after restarts."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from launched import started, torchrun
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import hypergrad as hg
from hypergrad.callback.state_file import read
from hypergrad.cli.explain import explain

HERE = Path(__file__).parent
RUN = ("-m", "hypergrad.run", "experiment=logistic_l2", "distributed=data_parallel")


def rows_of(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "run/seconds"} for row in rows]


def only_folder(path: Path) -> Path:
    (folder,) = [one.parent for one in path.rglob("metrics.jsonl")]
    return folder


def test_one_run_is_recorded_and_shown_once(tmp_path):
    done = torchrun(*RUN, "outer_steps=1", "estimator.inner_steps=50", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = only_folder(tmp_path)
    assert len(list((tmp_path / "outputs" / "logistic_l2").iterdir())) == 1
    assert [row["step"] for row in rows_of(folder)] == [0, 1]
    assert len(list(folder.glob("events.out.*"))) == 1
    assert (folder / ".hydra" / "overrides.yaml").exists()
    for text in ("outer step 1/1", "Hessian products", f"tensorboard --logdir {folder}"):
        assert done.stdout.count(text) == 1, done.stdout


@pytest.mark.slow
def test_a_run_with_sharded_parameters(tmp_path):
    kinds = ("distributed=fsdp", "estimator=ift_cg", "product=differences", "solver=momentum", "optimizer=adam")
    few = ("problem.hyperparameters.l2.per=tensor", "estimator.error_bar=false", "estimator.inner_steps=20")
    done = torchrun("-m", "hypergrad.run", "experiment=digits", *kinds, *few, "outer_steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = only_folder(tmp_path)
    assert [row["step"] for row in rows_of(folder)] == [0, 1]
    assert (folder / "model.pt").exists()
    kept = [f"state-00000{k}.{end}" for k in (0, 1) for end in ("pt", "shards")]
    assert sorted(path.name for path in folder.glob("state-*")) == kept
    where = f"resume={folder}"
    for world, more in {1: ["any_world=true"], 3: []}.items():
        done = torchrun("-m", "hypergrad.run", where, "outer_steps=2", *more, world=world, cwd=tmp_path)
        assert (done.returncode == 0) == (world == 1), done.stderr
    assert (
        "The run had 1 process and whole parameters until this state, and here it has 3 and sharded parameters"
        in done.stderr
    )
    assert [row["step"] for row in rows_of(folder)] == [0, 1, 2]


def test_what_a_lost_rank_means_is_said_before_what_the_network_met():
    error = hg.RankError("Another rank has ended.")
    error.__cause__ = RuntimeError("Connection closed by peer")
    assert explain(error).startswith("error: Another rank has ended.")


def test_an_error_of_one_rank_ends_all_with_one_message(tmp_path):
    done = torchrun(str(HERE / "raising.py"), str(tmp_path / "run"), cwd=tmp_path)
    assert time.time() - (tmp_path / "raised").stat().st_mtime < 30
    assert done.returncode != 0
    ours, report = done.stderr.split("FAILED", 1)
    assert ours.count("ValueError: no such file on this machine\nThis was on rank 1 of 2.") == 1
    assert ours.count("no such file on this machine\n") == 1
    assert report.count("traceback : Rank 1 failed: ValueError: no such file on this machine\n") == 1
    assert report.count("traceback : ValueError: no such file on this machine This was on rank 1 of 2.") == 1
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["error"].startswith("RankError: Rank 1 failed: ValueError: no such file on this machine")
    assert (tmp_path / "run" / "state-000002.pt").exists()


def steps_in(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def pid_of(rank: int, folder: Path, *, after: float) -> int:
    """The process of a rank that wrote its number after a moment."""
    path = folder / f"pid-{rank}"
    while not path.exists() or path.stat().st_mtime < after or not path.read_text():
        time.sleep(0.01)
    return int(path.read_text())


def wait_for(process: subprocess.Popen[str], folder: Path, steps: int) -> None:
    while steps_in(folder) < steps:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["killed.py", "killed_shards.py"])
def test_a_rank_killed_at_ten_moments_leaves_the_bits_of_an_undisturbed_run(tmp_path, name):
    script, cut = str(HERE / name), tmp_path / "cut" / "run"
    assert torchrun(script, str(tmp_path / "whole"), cwd=tmp_path).returncode == 0
    cut.parent.mkdir()
    moments, since = random.Random(0), time.time()
    with started(script, str(cut), cwd=tmp_path, options=["--max-restarts=10"]) as process:
        for kill in range(10):
            pid = pid_of(moments.randrange(2), cut.parent, after=since)
            wait_for(process, cut, 3 * kill + 3)
            time.sleep(0.1 * moments.random())
            since = time.time()
            os.kill(pid, signal.SIGKILL)
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert len(rows_of(cut)) == 41
    assert rows_of(cut) == rows_of(tmp_path / "whole")
    ends = [tensors_of(folder) for folder in (cut, tmp_path / "whole")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(x, ends[1][key]) for key, x in ends[0].items())


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """u, w and all shards in the last state of a run."""
    state = read(folder)
    found = {name: x for key in ("u", "params") for name, x in state[key].items() if isinstance(x, torch.Tensor)}
    if "shards" in state:
        dcp_to_torch_save(state["shards"], whole := folder.parent / "whole.pt")
        found |= torch.load(whole, weights_only=True)
    return found


@pytest.mark.slow
def test_a_command_goes_on_in_its_folder_when_torchrun_restarts_it(tmp_path):
    arguments = (*RUN, "outer_steps=6", "resume=auto")
    assert torchrun(*RUN, "outer_steps=6", "hydra.run.dir=whole", cwd=tmp_path).returncode == 0
    with started(*arguments, cwd=tmp_path, options=["--max-restarts=3"]) as process:
        while not list(tmp_path.glob("outputs/*/*/state-000002.pt")):
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(workers(process)[1], signal.SIGKILL)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert rows_of(only_folder(tmp_path / "outputs")) == rows_of(tmp_path / "whole")
    assert "Another rank has ended" in err
    # In the same folder nothing is left to do, and a run of another number of processes is refused.
    where = f"hydra.run.dir={only_folder(tmp_path / 'outputs')}"
    assert torchrun(*arguments, where, cwd=tmp_path).returncode == 0
    done = torchrun(*arguments, where, world=3, cwd=tmp_path)
    assert "The run had 2 processes until this state, and here it has 3" in done.stderr
    assert done.stderr.count("error: ") == 1


@pytest.mark.slow
def test_a_second_launcher_on_the_folder_of_a_run_is_refused(tmp_path):
    script, folder = str(HERE / "killed.py"), tmp_path / "run"
    with started(script, str(folder), "go", cwd=tmp_path) as first:
        wait_for(first, folder, 2)
        second = torchrun(script, str(folder), cwd=tmp_path)
        assert second.returncode != 0
        assert second.stderr.split("FAILED")[0].count("is in use by process") == 1
        (tmp_path / "go").touch()
        out, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    assert len(rows_of(folder)) == 41


@pytest.mark.slow
def test_sigterm_to_one_process_ends_all_with_a_state(tmp_path):
    arguments = (*RUN, "outer_steps=6")
    assert torchrun(*arguments, "hydra.run.dir=whole", cwd=tmp_path).returncode == 0
    with started(*arguments, "hydra.run.dir=cut", cwd=tmp_path) as process:
        wait_for(process, tmp_path / "cut", 3)
        os.kill(workers(process)[1], signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert err.count("stopped: Rank 1 was asked to end (SIGTERM).") == 1
    assert err.count(f"continue with: torchrun --nproc-per-node=2 -m hypergrad.run resume={tmp_path / 'cut'}") == 1
    assert json.loads((tmp_path / "cut" / "summary.json").read_text())["status"] == "interrupted"
    done = torchrun("-m", "hypergrad.run", f"resume={tmp_path / 'cut'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "hypergrad.run", "experiment=ridge"], "torchrun started 2 processes, but with distributed=none each"),
        (["-m", "hypergrad.run", "experiment=ridge", "-m", "seed=0,1"], "A sweep, -m, is started by one process, but"),
        (["-m", "hypergrad.baseline", "experiment=digits"], "This command runs in one process, but torchrun started 2"),
        (["-m", "hypergrad.run", "resume=nowhere"], "does not exist; name the folder of a run"),
        ([*RUN, "device=cuda"], "GPU"),
    ],
    ids=["none", "sweep", "baseline", "resume", "cuda"],
)
def test_a_mistake_under_torchrun_is_named_once(tmp_path, arguments, message):
    done = torchrun(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    ours = done.stderr.split("FAILED")[0]
    assert ours.count("error: ") == 1, ours
    assert message in ours


@pytest.mark.slow
def test_a_check_under_torchrun_prints_once(tmp_path):
    check = ("-m", "hypergrad.check", "experiment=logistic_l2", "estimator=ift_cg", "distributed=data_parallel")
    done = torchrun(*check, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("agree") >= 1
    assert done.stdout.count("largest difference between estimators") <= 1
    assert len(done.stdout.splitlines()) < 30


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a launcher started, by rank."""
    found = {}
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        found |= {int(one[5:]): int(pid) for one in variables if one.startswith(b"RANK=")}
    return [found[rank] for rank in sorted(found)]
