"""scripts/branches.py says which branches of hypergrad a command took, on a package in place of it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "branches.py"
SOURCE = """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os


def walk(xs):
    for x in xs:
        if x < 0:
            break
    while True:
        match len(xs):
            case 1:
                return "one"
            case 2 | 3:
                return "few"
        return "many"
"""
IN_A_CHILD = """
import os
import signal

from hypergrad.walk import walk

if not os.fork():
    walk([1, -1])
    os.kill(os.getpid(), signal.SIGKILL)
os.wait()
"""


@pytest.mark.parametrize(
    ("after", "missing", "percent"),
    [
        ("", ["9 ends", "14 matches", "13 matches nothing"], "62.5"),
        ("walk([]), walk([1])", [], "100.0"),
        ("raise SystemExit(3)", ["9 ends", "14 matches", "13 matches nothing"], "62.5"),
    ],
    ids=["some", "all", "failed"],
)
def test_the_branches_of_a_command_and_its_children_are_counted_both_ways(tmp_path, after, missing, percent):
    for folder in ("hypergrad", "scripts"):
        (tmp_path / folder).mkdir()
    script = shutil.copy(SCRIPT, tmp_path / "scripts")
    (tmp_path / "hypergrad" / "__init__.py").write_text('"""A package."""\n')
    (tmp_path / "hypergrad" / "walk.py").write_text(SOURCE)
    command = [sys.executable, script, "--missing", "63", sys.executable, "-c", IN_A_CHILD + after]
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[-1] == f"branch coverage {percent} % of 8 branches; at least 63 % are required", done.stderr
    assert [line for line in lines[:-1] if line] == [f"hypergrad/walk.py:{branch}" for branch in missing]
    assert done.returncode == (3 if "3" in after else 1 if missing else 0)
