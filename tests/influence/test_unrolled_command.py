"""`python -m hypergrad.influence method=unrolled`: the scores of the run that it trains, also after a stop."""

import numpy as np
import torch
from commands import call

import hypergrad as hg
from hypergrad.influence.__main__ import main
from hypergrad.influence.unrolled import UnrolledRun

SETTINGS = ("experiment=digits", "data=breast_cancer", "problem.model.in_features=30", "problem.model.out_features=1")
SETTINGS = (*SETTINGS, "problem.loss._target_=torch.nn.BCEWithLogitsLoss", "+problem.batch_size=32", "solver=momentum")
SETTINGS = (*SETTINGS, "method=unrolled", "influence.inner_steps=20", "influence.dev_block=32", "each=true")


def test_a_stopped_run_goes_on_with_the_same_bits(tmp_path, monkeypatch):
    whole = call(main, *SETTINGS, f"hydra.run.dir={tmp_path}/whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    scores, swept = UnrolledRun.scores, []

    def stopping(run: UnrolledRun, rows: torch.Tensor | None = None) -> torch.Tensor:
        swept.append(run)
        if len(swept) == 3:
            raise hg.HypergradError("stopped")
        return scores(run, rows)

    monkeypatch.setattr(UnrolledRun, "scores", stopping)
    stopped = call(main, *SETTINGS, f"hydra.run.dir={tmp_path}/stopped", cwd=tmp_path)
    assert "stopped" in stopped.stderr
    assert not (tmp_path / "stopped" / "scores.npy").exists()
    done = call(main, f"resume={tmp_path}/stopped", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 of " in done.stdout
    for name in ("scores.npy", "influence.csv", "top.csv"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    (method,) = {run.method for run in swept}
    assert (method.inner_steps, type(method.solver), type(method.tape)) == (20, hg.Momentum, hg.Checkpoint)
    run = swept[0]
    found = np.load(tmp_path / "whole" / "scores.npy")
    assert torch.equal(torch.from_numpy(found[:32]), scores(run, torch.arange(32)))
    np.testing.assert_allclose(found.mean(0), scores(run).numpy(), rtol=1e-9, atol=1e-15)
