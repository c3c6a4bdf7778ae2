"""The dev loss around a trajectory."""

from functools import partial

import numpy as np
import pytest
import torch
from tables import PROBLEMS

import hypergrad as hg
from hypergrad.callback.base import Callback, Run
from hypergrad.callback.landscape import landscape

EXACT = hg.Implicit(solver=hg.LBFGS(), inner_tol=1e-11)


class TwoPenalties(hg.Ridge):
    """One penalty for the first two features, one for the others."""

    def hyperparameters(self):
        return {name: hg.Hyperparameter(0.5, constraint=hg.positive) for name in ("first", "rest")}

    def inner_loss(self, params, hparams, batch):
        return super().inner_loss(params, self.both(hparams), batch)

    def both(self, hparams):
        return {"l2": torch.cat([hparams["first"].expand(2), hparams["rest"].expand(len(self.X[0]) - 2)])}


class Keep(Callback):
    run: Run

    def on_start(self, run):
        self.run = run


def drawn(problem, estimator: hg.HypergradEstimator = EXACT, points=5, steps=3):
    keep = Keep()
    result = hg.fit(problem, estimator, partial(torch.optim.Adam, lr=0.3), steps, progress=False, callbacks=[keep])
    return landscape(keep.run, result, points), result


def test_a_curve_is_the_dev_loss_of_the_closed_form():
    problem = PROBLEMS["ridge"]
    found, result = drawn(problem)
    assert found.names == ["l2"]
    assert found.losses.shape == (5,)
    for l2, loss in zip(found.ticks[0], found.losses, strict=True):
        hparams = {"l2": torch.tensor(l2)}
        assert loss == pytest.approx(problem.outer_loss(problem.solution(hparams), hparams, None).item(), abs=1e-10)
    assert found.path[:, 0].tolist() == result.trajectory["l2"].tolist()
    assert found.path_losses.tolist() == [row["loss/dev"] for row in result.history]
    assert found.ticks[0].min() < found.path.min() < found.path.max() < found.ticks[0].max()


def test_a_map_is_the_dev_loss_of_the_closed_form():
    problem = TwoPenalties(hg.diabetes(seed=1))
    found, _ = drawn(problem, points=4)
    assert found.names == ["first", "rest"]
    assert found.losses.shape == (4, 4)
    plain = PROBLEMS["ridge"]
    for i, j in np.ndindex(4, 4):
        hparams = {"first": torch.tensor(found.ticks[0][i]), "rest": torch.tensor(found.ticks[1][j])}
        both = problem.both(hparams)
        truth = plain.outer_loss(hg.Ridge.solution(problem, both), both, None).item()
        assert found.losses[i, j] == pytest.approx(truth, abs=1e-10)


def test_each_point_of_an_unrolled_estimator_is_a_run_of_its_own():
    problem = PROBLEMS["ridge"]
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.05), inner_steps=7)
    found, _ = drawn(problem, estimator, points=3)
    for l2, loss in zip(found.ticks[0], found.losses, strict=True):
        again = estimator.estimate(problem, {"l2": torch.tensor(l2)}, problem.init_params())
        assert loss == pytest.approx(again.outer_loss, abs=1e-12)


class Wall(hg.Ridge):
    def outer_loss(self, params, hparams, batch):
        return super().outer_loss(params, hparams, batch) * (float("nan") if hparams["l2"] > 1.5 else 1)


def test_what_cannot_be_computed_is_left_blank():
    found, _ = drawn(Wall(hg.diabetes(seed=1)), points=9)
    assert np.isnan(found.losses).tolist() == (found.ticks[0] > 1.5).tolist()
    assert found.image().shape[2] == 3


@pytest.mark.parametrize("make", [lambda: PROBLEMS["ridge"], lambda: TwoPenalties(hg.diabetes(seed=1))], ids=["1", "2"])
def test_the_figure_shows_the_trajectory(make):
    found, result = drawn(make(), points=3)
    axis = found.figure().axes[0]
    (line,) = (line for line in axis.get_lines() if line.get_label() == "run")
    first = next(iter(result.trajectory.values()))
    assert np.asarray(line.get_xdata()).tolist() == first.tolist()
