"""`resume=auto`: a command that can be started again and again."""

import json

import pytest
from commands import call

from hypergrad import run

RIDGE = ("experiment=ridge", "resume=auto")


def rows(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "run/seconds"} for row in found]


def test_the_same_command_begins_goes_on_and_ends(tmp_path):
    whole = call(run.main, "experiment=ridge", "outer_steps=4", "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    begun = call(run.main, *RIDGE, "outer_steps=2", "hydra.run.dir=mine", cwd=tmp_path)
    assert begun.returncode == 0, begun.stderr
    started = (tmp_path / "mine" / ".hydra" / "overrides.yaml").read_text()
    for _ in range(2):
        again = call(run.main, *RIDGE, "outer_steps=4", "hydra.run.dir=mine", cwd=tmp_path)
        assert again.returncode == 0, again.stderr
    assert rows(tmp_path / "mine") == rows(tmp_path / "whole")
    assert len(rows(tmp_path / "mine")) == 5
    assert (tmp_path / "mine" / ".hydra" / "overrides.yaml").read_text() == started
    assert (tmp_path / "mine" / ".hydra" / "resumed" / "overrides.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (RIDGE, "resume=auto goes on from what an earlier start left in the folder of the run, which must be the same"),
        ((*RIDGE, "-m", "seed=0,1", "hydra.run.dir=mine"), "resume=auto goes on with one run; for a sweep, -m,"),
    ],
    ids=["no folder", "sweep"],
)
def test_a_folder_that_is_new_each_time_is_refused(tmp_path, arguments, message):
    done = call(run.main, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())
