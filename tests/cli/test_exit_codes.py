"""The exit codes that docs/run_from_python.md states, each of them."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import call

from hypergrad import run
from hypergrad.check.__main__ import main as check
from hypergrad.cli.command import command
from hypergrad.cli.command_help import RUN
from hypergrad.core.errors import Terminated
from hypergrad.table.__main__ import main as table

ROOT = Path(__file__).parents[2]
FEW = ("outer_steps=0", "callback=[jsonl,summary]")


def test_the_codes_are_stated():
    page = (ROOT / "docs" / "run_from_python.md").read_text()
    assert re.findall(r"^\| (\d+) \|", page, flags=re.MULTILINE) == ["0", "1", "2", "130", "141", "143"]


def test_0_after_a_run_its_help_and_its_config(tmp_path):
    assert call(run.main, *FEW, cwd=tmp_path).returncode == 0
    assert call(run.main, "--cfg", "job", cwd=tmp_path).returncode == 0


def test_1_after_an_error_a_failed_run_of_a_sweep_and_a_check_that_disagrees(tmp_path):
    assert call(run.main, "outer_steps=x", cwd=tmp_path).returncode == 1
    assert call(run.main, "-m", "solver.lr=0.5,0.1", *FEW, cwd=tmp_path).returncode == 1
    assert call(check, "estimator=ift_neumann", "linsolve.num_terms=3", cwd=tmp_path).returncode == 1
    assert call(lambda: table(["nowhere"]), cwd=tmp_path).returncode == 1


def test_2_for_options_that_do_not_exist(tmp_path):
    assert call(run.main, "--nope", cwd=tmp_path).returncode == 2
    assert call(lambda: table(["--nope"]), cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Terminated("by SIGTERM"), 143)])
def test_130_and_143_after_a_signal(error, code, tmp_path):
    def stopped(cfg):
        raise error

    done = call(lambda: command(stopped, RUN), cwd=tmp_path)
    assert done.returncode == code
    assert "stopped: " in done.stderr
    assert "Traceback" not in done.stderr


def process(*arguments, cwd, **streams):
    return subprocess.Popen(
        [sys.executable, "-m", "hypergrad.run", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        **streams,
    )


def test_141_once_nobody_reads_the_output_and_the_run_goes_on_later(tmp_path):
    child = process(
        "outer_steps=300",
        "optimizer=sgd",
        "optimizer.lr=1e-9",
        "hydra.run.dir=run",
        cwd=tmp_path,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline().startswith("outer step 0/")
    child.stdout.close()
    _, said = child.communicate(timeout=300)
    assert child.returncode == 141
    assert said == ""
    steps = max(int(path.stem.removeprefix("state-")) for path in tmp_path.rglob("state-*.pt"))
    done = call(run.main, "resume=run", f"outer_steps={steps + 1}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_process_without_input_and_output_ends_as_always(tmp_path):
    closed = {"preexec_fn": lambda: (os.close(0), os.close(1))}
    child = process(*FEW, "hydra.run.dir=run", cwd=tmp_path, **closed)
    _, said = child.communicate(timeout=300)
    assert (child.returncode, said) == (0, "")
    assert '"finished"' in (tmp_path / "run" / "summary.json").read_text()


@pytest.mark.slow
def test_143_in_a_process_of_its_own(tmp_path):
    child = process("outer_steps=100000", "optimizer=sgd", "optimizer.lr=1e-9", cwd=tmp_path, stdout=subprocess.DEVNULL)
    while child.poll() is None and not list(tmp_path.rglob("state-*.pt")):
        time.sleep(0.1)
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=300)
    assert child.returncode == 143
    assert "continue with: python -m hypergrad.run resume=" in said


def test_a_deleted_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(sys, "argv", ["hypergrad"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    with pytest.raises(SystemExit) as caught:
        run.main()
    monkeypatch.chdir(tmp_path)
    assert str(caught.value.code).startswith("error: the current folder was deleted; change to one that exists")
