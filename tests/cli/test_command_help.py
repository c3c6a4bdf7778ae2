"""What a person meets first: the list of commands, the help of each of them, and the name that was meant."""

import os
import subprocess
from pathlib import Path

import pytest
from commands import call

from hypergrad import run
from hypergrad.__main__ import main as overview
from hypergrad.baseline.__main__ import main as baseline
from hypergrad.check.__main__ import main as check
from hypergrad.cli.command_help import COMMANDS
from hypergrad.influence.__main__ import main as influence
from hypergrad.plot.__main__ import main as plot
from hypergrad.table.__main__ import main as table

ROOT = Path(__file__).parents[2]
MAINS = {"run": run.main, "check": check, "baseline": baseline, "influence": influence, "table": table, "plot": plot}


def test_every_command_is_listed_with_one_line(tmp_path):
    found = {path.parent.name for path in (ROOT / "hypergrad").glob("*/__main__.py")} | {"run"}
    assert {each.name for each in COMMANDS} == found == MAINS.keys()
    done = call(overview, cwd=tmp_path)
    assert done.returncode == 0
    for each in COMMANDS:
        (line,) = [line for line in done.stdout.splitlines() if f"python -m hypergrad.{each.name} " in line]
        assert line.endswith(each.summary)
        assert len(line) <= 110


def test_a_misspelt_command_is_suggested_first(tmp_path):
    done = call(overview, "tabel", cwd=tmp_path)
    assert done.returncode == 2
    assert "error: Did you mean python -m hypergrad.table? There is no 'tabel' here" in done.stderr


@pytest.mark.parametrize("about", COMMANDS, ids=lambda about: about.name)
def test_help_begins_with_the_command_and_ends_with_hydra(about, tmp_path):
    done = call(MAINS[about.name], "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m hypergrad.{about.name} ")
    assert f"\n{about.summary}.\n" in done.stdout
    places = [done.stdout.index(text) for text in ("\noptions:\n", "\nexamples:\n")]
    if about.options:  # its config is composed by Hydra
        places += [done.stdout.index(text) for text in ("--completion", "== Configuration groups ==", "== Config ==")]
    assert places == sorted(places)
    assert all(f"python -m hypergrad.{about.name} {how}\n" in done.stdout for how in about.examples)
    own = done.stdout[: places[2]] if about.options else done.stdout
    assert max(map(len, own.splitlines())) <= 110


@pytest.mark.parametrize("about", [about for about in COMMANDS if about.options], ids=lambda about: about.name)
def test_the_examples_can_be_composed(about, tmp_path):
    """As far as they need no folder of the user."""
    for how in about.examples:
        if "NAME" not in how and "conf" not in how:
            done = call(
                MAINS[about.name], *how.removeprefix("-m ").replace("0,1,2", "0").split(), "--cfg", "job", cwd=tmp_path
            )
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("main", "argument", "said"),
    [
        (
            run.main,
            "estimator=unroled",
            "error: Did you mean 'unrolled'? In 'config': Could not find 'estimator/unroled'",
        ),
        (run.main, "sed=1", "error: Did you mean 'seed'? Could not override 'sed'."),
        (run.main, "solver.lrr=1", "error: Did you mean 'lr'? Could not override 'solver.lrr'."),
        (run.main, "inner_steps=1", "error: Did you mean estimator.inner_steps? Could not override 'inner_steps'."),
        (run.main, "+linsolve.maxiter=3", "error: Did you mean 'max_iter'? estimator.linsolve: "),
        (influence, "tpo=5", "error: Did you mean 'top'? Could not override 'tpo'."),
        (baseline, "budgte=5", "error: Did you mean 'budget'? Could not override 'budgte'."),
    ],
)
def test_the_name_that_was_meant_stands_first(main, argument, said, tmp_path):
    done = call(main, argument, cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr


def test_bash_completes_the_names_of_configs(tmp_path):
    """Words as bash splits them, at =."""
    script = (
        call(overview, "--completion", cwd=tmp_path).stdout
        + """
COMP_WORDS=(python -m hypergrad.run estimator = unr); COMP_CWORD=5
COMP_LINE="python -m hypergrad.run estimator=unr"
_hypergrad python
echo "${COMPREPLY[@]}"
"""
    )
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout == "unrolled\n", done.stderr
