"""The experiments of the seeds start from the command line, and are told of in experiments/."""

import json
import math
from pathlib import Path

import pytest
from commands import call

from hypergrad import run

ROOT = Path(__file__).parent.parent.parent
SEEDS = ["darts", "grid_vs_gradient", "learning_rate", "logistic_l2", "mean_field", "optnet", "unrolled_error"]
TOLD = [*SEEDS, "augmentation", "savi"]
"""Those whose data may not be installed are run in tests/test_canonical.py, on the digits."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two outer steps of each, in one process."""
    folder = tmp_path_factory.mktemp("experiments")
    chosen = [f"experiment={','.join(SEEDS)}", "outer_steps=2", "callback=[summary]", "hydra.sweep.subdir=${name}"]
    done = call(run.main, "-m", *chosen, cwd=folder)
    assert done.returncode == 0, done.stderr
    return {path.parent.name: json.loads(path.read_text()) for path in folder.rglob("summary.json")}


@pytest.mark.parametrize("name", SEEDS)
def test_two_steps_of_its_default_lower_the_dev_loss(name, runs):
    first, last = runs[name]["first"]["loss/dev"], runs[name]["last"]["loss/dev"]
    assert math.isfinite(last)
    assert last < first


@pytest.mark.parametrize("name", TOLD)
def test_it_has_its_readme_and_its_row(name):
    text = (ROOT / "experiments" / name / "README.md").read_text()
    for part in ("**Question.**", "**Command.**", "**Answer**", "**What did not work.**", f"experiment={name}"):
        assert part in text
    assert f"]({name}/README.md)" in (ROOT / "experiments" / "README.md").read_text()
