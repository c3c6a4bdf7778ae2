"""What the command line sets, as it was written."""

import json

from commands import call

from hypergrad import run
from hypergrad.check.__main__ import main as check


def test_an_argument_may_refer_to_another_key(tmp_path):
    arguments = (
        "name=of${seed}",
        "seed=4",
        "data.seed=${seed}",
        "outer_steps=0",
        "callback=[summary]",
        "hydra.run.dir=run",
    )
    done = call(run.main, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "finished"
    done = call(check, "seed=4", "data.seed=${seed}", "estimator=ift_dense", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
