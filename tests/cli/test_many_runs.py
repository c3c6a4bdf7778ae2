"""Many runs beside each other: one that fails, or is killed, does not take the others down."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException
from slow_cases import mostly_slow
from test_run import ROOT, process, summaries

from hypergrad.cli.explain import explain

PLUGINS = {"cores": "hydra_joblib_launcher", "slurm": "hydra_submitit_launcher", "cluster": "hydra_ray_launcher"}
ONE_CORE = {"slurm": ["hydra.launcher.cpus_per_task=1"]}
EXTRAS = {"cores": "joblib", "slurm": "slurm", "cluster": "ray"}


def is_installed(launcher):
    spec = importlib.util.find_spec("hydra_plugins")
    folders = [] if spec is None else spec.submodule_search_locations or []
    return any((Path(folder) / PLUGINS[launcher]).exists() for folder in folders)


def launched(launcher, *arguments, cwd):
    if not is_installed("slurm" if launcher == "submitit_local" else launcher):
        pytest.skip(f"the launcher of {launcher} is not installed")
    if launcher == "slurm" and not (shutil.which("sinfo") and subprocess.run(["sinfo"], check=False).returncode == 0):
        pytest.skip("no cluster of SLURM is at hand")
    return process(
        "-m",
        f"hydra/launcher={launcher}",
        "outer_steps=0",
        "callback=[summary]",
        *ONE_CORE.get(launcher, ()),
        *arguments,
        cwd=cwd,
    )


def statuses(folder):
    return sorted(summary["status"] for summary in summaries(folder).values())


@pytest.mark.parametrize("launcher", mostly_slow(["cores", "submitit_local", "slurm", "cluster"], []))
def test_a_failed_run_does_not_take_the_others_down(launcher, tmp_path):
    done = launched(launcher, "solver.lr=0.5,0.1", cwd=tmp_path)
    assert done.returncode == 1
    assert statuses(tmp_path) == ["failed", "finished"]
    table = done.stdout[done.stdout.index("all runs") :]
    assert "solver.lr=0.5: DivergenceError: Training blew up" in table
    assert "1 of 2 runs failed" in done.stderr


DEADLY = """
import os
import signal

import hypergrad as hg


class Deadly(hg.Ridge):
    def outer_batch(self, step):
        if self.init_hparams()["l2"] == 2:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("launcher", "said"),
    [
        pytest.param("submitit_local", "has not produced any output", marks=pytest.mark.slow),
        pytest.param("slurm", "has not produced any output", marks=pytest.mark.slow),
        pytest.param("cluster", "died", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_does_not_take_the_others_down(launcher, said, tmp_path):
    (tmp_path / "deadly.py").write_text(DEADLY)
    done = launched(launcher, "problem._target_=deadly.Deadly", "problem.l2=2,1", cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert statuses(tmp_path) == ["finished"]


@pytest.mark.parametrize("launcher", PLUGINS)
def test_every_launcher_has_a_config_or_says_what_to_install(launcher):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        chosen = [f"hydra/launcher={launcher}"]
        if is_installed(launcher):
            cfg = compose("config", chosen, return_hydra_config=True)
            assert PLUGINS[launcher] in cfg.hydra.launcher._target_
        else:
            with pytest.raises(MissingConfigException) as caught:
                compose("config", chosen)
            assert f"pip install 'torch-hypergrad[{EXTRAS[launcher]}]'" in explain(caught.value)


@pytest.mark.slow
def test_a_multirun_that_is_interrupted_says_how_to_go_on(tmp_path):
    arguments = ["-m", "experiment=ridge", "seed=0,1", "outer_steps=1000000", "optimizer=sgd", "optimizer.lr=1e-9"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hypergrad.run", *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background job ignores it
    )
    while process.poll() is None and not list(tmp_path.rglob("state-*.pt")):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    (folder,) = {path.parent for path in tmp_path.rglob("state-*.pt")}
    assert f"continue with: python -m hypergrad.run resume={folder}" in errors
    assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"
    assert process.returncode == 130
