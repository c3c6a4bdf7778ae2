"""What a config may build, and that nothing else is even imported, also from the folder of a run that is resumed."""

import subprocess
import sys
from pathlib import Path

import pytest

from hypergrad.cli import allowed
from hypergrad.cli.allowed import require_allowed
from hypergrad.cli.command import _options_first

ROOT = Path(__file__).parents[2]
MODULE = """
import os
from subprocess import run as started
from torch import nn
import hypergrad as hg
print("imported")
class Net(nn.Linear):
    pass
def problem():
    return hg.Quadratic(size=3)
"""
TOUCH = """
import pathlib
pathlib.Path("touched").touch()
def problem(*args, **kwargs):
    pathlib.Path("touched").touch()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder with a module, a package, installed packages and a run."""
    (tmp_path / "their_problem.py").write_text(MODULE)
    (tmp_path / "their_package" / "part").mkdir(parents=True)
    (tmp_path / "their_package" / "part" / "deep.py").write_text(MODULE)
    (tmp_path / "strange_run" / ".hydra").mkdir(parents=True)
    (tmp_path / "strange_run" / "evil_of_run.py").write_text(TOUCH)
    (tmp_path / "venv" / "site-packages").mkdir(parents=True)
    (tmp_path / "venv" / "site-packages" / "installed_there.py").write_text(TOUCH)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(allowed, "_START", tmp_path)
    for place in (tmp_path, tmp_path / "venv" / "site-packages"):
        monkeypatch.syspath_prepend(place)
    yield tmp_path
    assert not (tmp_path / "touched").exists()
    for name in [name for name in sys.modules if name.startswith(("their_", "strange_", "evil_", "installed_there"))]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "target",
    [
        *("hypergrad.Ridge", "hypergrad.run.Comparison", "hypergrad.diabetes", "hydra.utils.get_object"),
        *("torch.nn.Linear", "torch.nn.CrossEntropyLoss", "torch.nn.functional.cross_entropy", "torch.float64"),
        *(
            "torch.nn.functional.gelu",
            "torch.nn.functional.conv2d",
            "torch.tanh",
            "torch.nn.utils.prune.l1_unstructured",
        ),
        *("torch.optim.Adam", "torch.optim.lr_scheduler.StepLR", "torch.distributions.constraints.positive"),
        *(
            "torch.utils.data.TensorDataset",
            "their_problem.Net",
            "their_problem.problem",
            "their_package.part.deep.Net",
        ),
        *("their_problem.nn.Linear", "torch.nn.NoSuchLayer"),
    ],
)
def test_what_defines_a_problem_is_allowed(folder, target):
    require_allowed(target)


@pytest.mark.parametrize(
    "target",
    [
        *(
            "os.system",
            "posix.system",
            "subprocess.run",
            "builtins.eval",
            "builtins.exec",
            "functools.partial",
            "runpy.run_path",
        ),
        *(
            "hydra.utils.instantiate",
            "hydra.utils.call",
            "importlib.import_module",
            "numpy.load",
            "pickle.load",
            "shutil.rmtree",
        ),
        *(
            "torch.load",
            "torch.hub.load",
            "torch.compile",
            "torch.os.system",
            "torch.from_file",
            "torch.nn",
            "torch.jit.load",
        ),
        *(
            "torch.utils.cpp_extension.load_inline",
            "torch.utils.collect_env.run",
            "torch.nn.modules.module.warnings.warn",
        ),
        *("torch.utils.data.datapipes.utils.decoder.basichandlers", "hypergrad.cli.command.os.system"),
        *(
            "hypergrad.cli.command.sys.exit",
            "hypergrad.functional.torch.load",
            "sklearn.datasets.load_iris",
            "antigravity",
        ),
        *(
            "their_problem.os.system",
            "their_problem.started",
            "strange_run.evil_of_run.problem",
            "installed_there.problem",
        ),
        *("evil_of_run.problem", "__main__.problem", "", "..os"),
    ],
)
def test_nothing_else_is_allowed_or_imported(folder, target):
    before = set(sys.modules)
    with pytest.raises(ValueError, match="A config may build what is defined in hypergrad"):
        require_allowed(target)
    assert not [
        name for name in set(sys.modules) - before if name.startswith(("evil", "strange", "antigravity", "inst"))
    ]


def test_the_command_line_can_trust_more(folder):
    with pytest.raises(
        ValueError, match=r"add 'allow_targets=\[fractions,sklearn.datasets.load_iris\]' to the command"
    ):
        require_allowed("sklearn.datasets.load_iris", ["fractions"])
    require_allowed("sklearn.datasets.load_iris", ["sklearn"])
    require_allowed("sklearn.datasets.load_iris", ["sklearn.datasets.load_iris"])
    with pytest.raises(ValueError, match="defined in sklearn|sklearn is none"):
        require_allowed("sklearn.datasets.load_iris", ["sklearn.datasets.load", "sk"])


def command(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "hypergrad.run", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )


def test_a_strange_run_folder_runs_nothing(tmp_path):
    """Its overrides, its config folder and the modules in it are a stranger's."""
    first = command(tmp_path, "experiment=ridge", "outer_steps=1", "hydra.run.dir=strange_run", "callback=[checkpoint]")
    assert first.returncode == 0, first.stderr
    run, begun = tmp_path / "strange_run", tmp_path / "strange_run" / ".hydra"
    (run / "evil.py").write_text(TOUCH)
    (run / "conf" / "experiment").mkdir(parents=True)
    (run / "conf" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nhydra:\n  callbacks:\n    mine:\n      _target_: strange_run.evil.problem\n"
    )
    hydra, overrides = (begun / "hydra.yaml").read_text(), (begun / "overrides.yaml").read_text()
    attacks = [
        ["+more._target_=strange_run.evil.problem", "allow_targets=[strange_run]"],
        ["+hydra.callbacks.mine._target_=strange_run.evil.problem"],
        ["+name2=strange_run.evil.problem", "+more._target_='${name2}'"],
        ["+more='${oc.create:{_target_:strange_run.evil.problem}}'"],
    ]
    for attack in attacks:
        (begun / "overrides.yaml").write_text(overrides + "".join(f"- {override}\n" for override in attack))
        found = command(tmp_path, "resume=strange_run", "outer_steps=2")
        assert not (tmp_path / "touched").exists(), attack
        if "hydra" not in attack[0]:  # which is left out
            assert found.returncode == 1, attack
            assert "A config may build" in found.stderr, (attack, found.stderr)
    (begun / "overrides.yaml").write_text(overrides.replace("experiment=ridge", "experiment=mine"))
    (begun / "hydra.yaml").write_text(
        hydra.replace(
            "    - path: hydra.conf",
            f"    - {{path: {run / 'conf'}, schema: file, provider: command-line}}\n    - path: hydra.conf",
        )
    )
    found = command(tmp_path, "resume=strange_run", "outer_steps=2")
    assert not (tmp_path / "touched").exists()
    assert found.returncode == 1
    assert f"add --config-dir {run / 'conf'}" in found.stderr
    (begun / "hydra.yaml").write_text("hydra: [")
    found = command(tmp_path, "resume=strange_run", "outer_steps=2")
    assert found.returncode == 1
    assert found.stderr.startswith("error: ")
    assert "hydra.yaml" in found.stderr.splitlines()[0]


def test_the_value_of_an_option_may_hold_an_equals_sign():
    given = ["--config-dir", "lr=0.1/conf", "-m", "experiment=mine", "-cn", "a=b", "~callback", "--cfg", "job"]
    assert _options_first(given) == [
        *("--config-dir", "lr=0.1/conf", "-m", "-cn", "a=b", "--cfg", "job"),
        *("experiment=mine", "~callback"),
    ]
