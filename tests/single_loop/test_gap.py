"""The value gap on the quadratic of benchopt's bilevel benchmark, with step sizes of its grid.

An epoch is 3n + m oracles, 16 moves with a batch of 64.
"""

from functools import partial
from typing import Any

import pytest
import torch

import hypergrad as hg
from benchmarks.problem.bilevel_quadratic import BilevelQuadratic
from hypergrad.callback.base import Callback, Record

SGD = hg.GradientDescent(lr=0.3)


class Gaps(Callback):
    """F(λ) − F* at each record, by epoch."""

    def __init__(self, problem: BilevelQuadratic) -> None:
        self.problem, self.least, self.found = problem, problem.optimum(), dict[int, float]()

    def on_step(self, record: Record) -> None:
        self.found[record.step // 16] = self.problem.value(record.hparams)[0] - self.least


def gaps(method: Any, epochs: int, seed: int = 0) -> dict[int, float]:
    problem = BilevelQuadratic(seed=seed)
    seen = Gaps(problem)
    hg.Trainer(
        problem=problem,
        estimator=hg.SingleLoop(method=method),
        optimizer=partial(torch.optim.SGD, lr=0.3),
        outer_steps=16 * epochs,
        record_every=160,
        exact_every=160,
        callbacks=[seen],
    ).fit()
    return seen.found


def test_saba_reaches_the_optimum_and_soba_comes_near():
    assert gaps(hg.SABA(solver=SGD), 30)[30] < 1e-6
    assert gaps(hg.SOBA(solver=SGD), 10)[10] < 1.5e-2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_after_100_epochs_and_on_other_problems_too(seed):
    for method in (hg.SABA(solver=SGD), hg.SRBA(solver=SGD)):
        found = gaps(method, 100, seed)
        assert found[30] < 1e-5
        assert found[100] < 1e-12
