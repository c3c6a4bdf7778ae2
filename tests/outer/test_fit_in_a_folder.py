"""`hg.fit(…, folder=…)`: what it keeps, how it goes on, Ctrl-C, and the lock of a folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

import hypergrad as hg
from hypergrad.callback import state_file
from hypergrad.callback.base import Callback
from hypergrad.outer.lock import locked

ROOT = Path(__file__).parents[2]
ADAM = partial(torch.optim.Adam, lr=0.05)


def tuned(folder=None, steps=6, problem=None, **settings):
    estimator = hg.Implicit(solver=hg.Momentum(lr=0.05), inner_tol=1e-4, error_bar=False)
    problem = problem or hg.Ridge(hg.diabetes(seed=3))
    return hg.fit(problem, estimator, ADAM, steps, folder=folder, progress=False, **settings)


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "run/seconds"} for row in rows]


class At(Callback):
    """Does something after a step."""

    def __init__(self, step, what):
        self.step, self.what = step, what

    def on_step(self, record):
        if record.step == self.step:
            self.what()


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def test_a_folder_keeps_what_the_command_keeps(tmp_path):
    result = tuned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"metrics.jsonl", "summary.json", "state-000006.pt"}
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert len(rows_of(tmp_path)) == len(result.history) == 7
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "finished"


def test_the_same_call_goes_on_after_ctrl_c(tmp_path):
    whole = tuned(tmp_path / "whole")
    cut = tuned(tmp_path / "cut", callbacks=[At(3, ctrl_c)])
    assert (cut.stopped, cut.last.step, len(cut.history), len(cut.trajectory["l2"])) == ("interrupted", 3, 4, 4)
    assert torch.equal(cut.hparams["l2"], whole.trajectory["l2"][3])
    assert json.loads((tmp_path / "cut" / "summary.json").read_text())["status"] == "interrupted"
    result = tuned(tmp_path / "cut")
    assert result.stopped == "outer_steps"
    assert torch.equal(result.hparams["l2"], whole.hparams["l2"])
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")


def test_more_steps_go_on_and_the_same_call_finds_the_result_again(tmp_path):
    tuned(tmp_path / "a", 3)
    assert tuned(tmp_path / "a", 6).history[3]["step"] == 3
    again = tuned(tmp_path / "a", 6)
    assert [row["step"] for row in again.history] == list(range(7))
    tuned(tmp_path / "b", 6)
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")


def test_fewer_steps_than_were_taken_are_refused(tmp_path):
    tuned(tmp_path, 3)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(hg.CheckpointError, match="has taken 3 outer steps already, more than the 2"):
        tuned(tmp_path, 2)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_another_run_in_the_folder_is_refused_with_what_differs(tmp_path):
    tuned(tmp_path, 2)
    with pytest.raises(hg.CheckpointError, match="its data was"):
        tuned(tmp_path, 2, hg.Ridge(hg.diabetes(seed=4)))


def test_a_run_that_was_interrupted_before_its_first_record_raises_and_begins_again(tmp_path):
    class Interrupted(hg.Ridge):
        def metrics(self, params, hparams):
            if os.environ.get("INTERRUPTS"):
                ctrl_c()
            return super().metrics(params, hparams)

    problem = Interrupted(hg.diabetes(seed=3))
    os.environ["INTERRUPTS"] = "1"
    try:
        with pytest.raises(KeyboardInterrupt, match="before the first hypergradient .* same call begins again"):
            tuned(tmp_path, 2, problem)
    finally:
        del os.environ["INTERRUPTS"]
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "interrupted"
    assert [row["step"] for row in tuned(tmp_path, 2, problem).history] == [0, 1, 2]
    assert [row["step"] for row in rows_of(tmp_path)] == [0, 1, 2]


def test_metrics_without_a_state_are_not_overwritten(tmp_path):
    hg.Trainer(
        problem=hg.Ridge(hg.diabetes(seed=3)),
        estimator=hg.Implicit(),
        optimizer=ADAM,
        outer_steps=2,
        callbacks=[hg.JSONLines(tmp_path)],
    ).fit()
    with pytest.raises(FileExistsError, match="belongs to another run"):
        tuned(tmp_path, 2)


def test_ctrl_c_without_a_folder_returns_what_was_reached():
    result = tuned(callbacks=[At(2, ctrl_c)])
    assert (result.stopped, result.last.step) == ("interrupted", 2)
    assert "stopped by interrupted" in repr(result)


@pytest.mark.parametrize("keeps", [True, False])
def test_the_result_is_shown_once_at_the_end(tmp_path, capsys, keeps):
    hg.fit(hg.Ridge(hg.diabetes(seed=3)), hg.Implicit(), ADAM, 1, folder=tmp_path if keeps else None)
    said = capsys.readouterr().out
    assert said.count("│ dev loss") == said.count("1 outer step ") == 1
    assert ("tensorboard --logdir" in said) is keeps
    tuned(steps=1)
    assert "dev loss" not in capsys.readouterr().out


def test_ctrl_c_after_the_last_step_keeps_the_result():
    class Slow(Callback):
        def on_end(self, result):
            ctrl_c()

    result = tuned(steps=2, callbacks=[Slow()])
    assert result.last.step == 2


def test_a_second_ctrl_c_interrupts_at_once():
    class Again(Callback):
        def on_error(self, error, last):
            ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        tuned(callbacks=[Again(), At(2, ctrl_c)])


def test_sigterm_raises_after_saving(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        tuned(tmp_path, callbacks=[At(2, lambda: os.kill(os.getpid(), signal.SIGTERM))])
    assert state_file.read(tmp_path)["step"] >= 1
    assert tuned(tmp_path).last.step == 6


def test_trainer_fit_raises_unless_it_is_asked_to_return():
    trainer = hg.Trainer(
        problem=hg.Ridge(hg.diabetes(seed=3)),
        estimator=hg.Implicit(),
        optimizer=ADAM,
        outer_steps=4,
        callbacks=[At(2, ctrl_c)],
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert trainer.fit(on_interrupt="return").stopped == "interrupted"
    with pytest.raises(ValueError, match='must be "raise" or "return"'):
        trainer.fit(on_interrupt="ignore")  # pyright: ignore[reportArgumentType]


SLOW = """
import sys, time
sys.path.insert(0, sys.argv[1])
import torch
torch.set_default_dtype(torch.float64)
import test_fit_in_a_folder as here
from pathlib import Path
print("begins", flush=True)
here.tuned(Path(sys.argv[2]), callbacks=[here.At(2, lambda: (print("at 2", flush=True), time.sleep(60)))])
"""


@pytest.fixture
def another(tmp_path):
    """Another process, which has run to step 2 in the folder and stays there."""
    folders = map(str, (ROOT, ROOT / "tests"))
    env = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    run = [sys.executable, "-c", SLOW, str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(run, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "at 2" not in process.stdout.readline():
            assert process.poll() is None
        yield process
        process.kill()


def test_a_second_process_is_refused_by_pid_host_and_time(tmp_path, another):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    said = rf"{tmp_path} is in use by process {another.pid} on {socket.gethostname()}, since \d{{4}}-\d\d-\d\dT"
    with pytest.raises(hg.FolderInUseError, match=said):
        tuned(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_a_killed_process_leaves_no_lock(tmp_path, another):
    another.send_signal(signal.SIGKILL)
    another.wait()
    (tmp_path / "state-000009.pt.123-abc.part").write_bytes(b"half a state")
    assert (tmp_path / ".lock.json").exists()
    time.sleep(1.1)  # TensorBoard's files are in the order of their second
    assert tuned(tmp_path).last.step == 6
    tuned(tmp_path / "whole")
    assert rows_of(tmp_path) == rows_of(tmp_path / "whole")
    assert not list(tmp_path.glob("*.part"))


def test_two_runs_of_one_process_do_not_share_a_folder_either(tmp_path):
    with locked([tmp_path]), pytest.raises(hg.FolderInUseError, match=f"is in use by process {os.getpid()} on"):
        tuned(tmp_path)
    assert tuned(tmp_path, 1).last.step == 1


def network(**changes):
    generator = torch.Generator().manual_seed(0)
    parts = [(torch.randn(n, 4, generator=generator), torch.arange(n) % 3) for n in (21, 12)]
    torch.manual_seed(0)
    layers = (torch.nn.Linear(4, 5), changes.pop("activation", torch.nn.Tanh()), torch.nn.Linear(5, 3))
    settings = {
        "loss": torch.nn.CrossEntropyLoss(),
        "hyperparameters": {"l2": hg.L2(init=0.1)},
        "batch_size": 10,
    }
    return hg.Supervised(model=torch.nn.Sequential(*layers), train=parts[0], dev=parts[1], **settings | changes)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"batch_size": 7}, "batches"),
        ({"drop_last": True}, "batches"),
        ({"seed": 1}, "batches"),
        ({"loss": torch.nn.CrossEntropyLoss(label_smoothing=0.3)}, "loss"),
        ({"loss": torch.nn.functional.cross_entropy}, "loss"),
        ({"hyperparameters": {"l2": hg.L1(init=0.1)}}, "effects"),
        ({"hyperparameters": {"l2": hg.L2(init=0.1, on="*.weight")}}, "effects"),
        ({"activation": torch.nn.ReLU()}, "model"),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(changes, name, tmp_path):
    def tune(steps, **changes):
        estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.1), inner_steps=2)
        sgd = partial(torch.optim.SGD, lr=0.1)
        return hg.fit(network(**changes), estimator, sgd, steps, folder=tmp_path, progress=False)

    tune(1)
    with pytest.raises(hg.CheckpointError, match=f"its {name} was .*, and here it is "):
        tune(2, **changes)
    assert len(tune(2).history) == 3
