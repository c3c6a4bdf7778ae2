"""Hyperparameters whose rows are spread over the ranks, with the optimiser's state: the numbers of one process."""

import os
import shutil
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ranks
import sharded_lambda_cases as runs
import torch
from sharded_lambda_cases import BOTH, ESTIMATORS, STATES, supervised
from torch.distributions.constraints import simplex

import hypergrad as hg
from hypergrad.core.collectives import Ranks
from hypergrad.core.errors import CheckpointError
from hypergrad.core.row_shard import RowShard
from hypergrad.outer.spread import Spread
from hypergrad.outer.spread_requirements import require_entrywise, require_linear
from hypergrad.problem.distributed.row_shards import shards_of

TOL = 1e-10
FIRST_OF_TWO = Ranks("", 0, 2)
SPREAD = Spread({"l2": RowShard(FIRST_OF_TWO, 12)})


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the ranks write states."""
    path = tmp_path_factory.mktemp("states")
    os.environ[STATES] = str(path)
    return path


@pytest.fixture(scope="module")
def found(states: Path) -> ranks.Results:
    return ranks.run("sharded_lambda_cases")


@pytest.mark.parametrize("case", ["implicit, l2 and weights", "unrolled, l2", "mini-batches, l2 and weights"])
def test_ten_outer_steps_are_those_of_one_process(found: ranks.Results, case: str):
    assert max(found.of(case)) < TOL


def test_steps_are_accepted_and_rejected_as_on_one_process(found: ranks.Results):
    assert max(found.of("acceptance")) < TOL


def test_each_rank_keeps_its_rows_and_callbacks_and_results_have_all(found: ranks.Results):
    whole = {"l2": 12, "weights": 13, "all": 1}
    for rank, kept in enumerate(found.of("kept")):
        own = {"l2": 6, "weights": 7 - rank}
        assert kept["u"] == own
        assert kept["records"] == [own, own, own]
        assert kept["optimizer"] == 2 * (own["l2"] + own["weights"])  # Adam's two moments
        assert kept["callbacks"] == kept["result"] == whole


def test_metrics_the_last_training_and_files_have_all_weights(found: ranks.Results):
    for rank in found.of("cleaning"):
        assert max(rank.values()) < TOL, rank


def test_a_run_goes_on_from_its_states_on_as_many_ranks(found: ranks.Results):
    assert found.of("interrupted") == [0.0, 0.0]


def test_a_run_on_two_ranks_goes_on_on_one(found: ranks.Results, states: Path):
    assert max(found.of("interrupted")) == 0.0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*goes on with 1: its numbers", UserWarning)
        assert runs.resumed(2) < TOL


def test_states_are_written_once_and_only_the_last_are_kept(found: ranks.Results, states: Path):
    assert max(found.of("interrupted")) == 0.0
    names = sorted(path.name for path in (states / "2").iterdir() if path.name != ".lock")
    assert names == ["history.jsonl", *(f"state-{k:06d}.{end}" for k in (2, 4) for end in ("pt", "shards"))]


def test_a_crash_after_the_shards_and_before_their_state_leaves_the_state_before(
    found: ranks.Results, states: Path, tmp_path: Path
):
    assert max(found.of("interrupted")) == 0.0
    folder = tmp_path / "run"
    shutil.copytree(states / "2", folder)
    (folder / "state-000004.pt").unlink()
    estimator, batch_size = ESTIMATORS["mini-batches"]
    problem = hg.DataParallel(supervised(batch_size), sharded=BOTH)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*goes on with 1: its numbers", UserWarning)
        callbacks = [hg.StateSaver(folder, every=100)]
        runs.fit(problem, estimator, resume=folder, any_world=True, outer_steps=2, callbacks=callbacks)
    assert not (folder / "state-000004.shards").exists()
    assert (folder / "state-000002.shards").exists()


def test_a_state_whose_shards_are_gone_is_refused_and_the_one_before_can_be_read(
    found: ranks.Results, states: Path, tmp_path: Path
):
    assert max(found.of("interrupted")) == 0.0
    shutil.copytree(states / "2", folder := tmp_path / "run")
    (folder / "state-000004.shards" / ".metadata").unlink()
    estimator, batch_size = ESTIMATORS["mini-batches"]
    go_on = partial(runs.fit, hg.DataParallel(supervised(batch_size), sharded=BOTH), estimator, any_world=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*goes on with 1: its numbers", UserWarning)
        with pytest.raises(CheckpointError, match=r"state-000004\.shards cannot be read.*earlier state-NNNNNN\.pt"):
            go_on(resume=folder)
        assert go_on(resume=folder / "state-000002.pt").last.step == 10


@pytest.mark.parametrize(
    ("more", "names", "says"),
    [
        ({}, ["l1"], "must name hyperparameters, which are l2, weights, all, but it has 'l1'"),
        ({}, ["all"], r"sharded\['all'\] must have rows, but it is one number"),
        ({"s": hg.Hyperparameter(torch.full((4,), 0.25), constraint=simplex)}, ["s"], "Simplex.* couples the entries"),
        ({"lr": hg.Hyperparameter(0.1, shape=(4,))}, ["lr"], "is a coefficient of the solver"),
        ({"one": hg.L2(init=0.1, per="tensor", on="weight")}, ["one"], "more than 1 rows, but it has 1; keep it whole"),
        ({"start": hg.InitScale()}, ["l2"], "computes the start of training from hyperparameters"),
    ],
)
def test_what_cannot_be_spread_is_refused(more: dict[str, Any], names: list[str], says: str):
    with pytest.raises(ValueError, match=says):
        shards_of(supervised(more=more), FIRST_OF_TWO, names)


def test_sharded_is_a_list_of_names():
    with pytest.raises(TypeError, match=r"such as \['l2'\], but it is the string 'l2'"):
        hg.DataParallel(supervised(), sharded="l2")


def test_a_wrapper_needs_whole_hyperparameters():
    spread = hg.DataParallel(supervised())
    spread._shards = SPREAD.shards
    with pytest.raises(ValueError, match=r"the rows of l2 are spread.*give hg\.DataParallel the Tied, with sharded"):
        hg.Tied(spread, name="l2", groups=2)
    with pytest.raises(ValueError, match=r"the rows of l2 are spread.*give hg\.DataParallel the folds, with sharded"):
        hg.KFold([supervised()], spread)


@pytest.mark.parametrize("optimizer", [torch.optim.LBFGS([torch.zeros(1)]), hg.LBFGSB([torch.zeros(1)])], ids=repr)
def test_optimisers_that_need_all_entries_are_refused(optimizer: object):
    with pytest.raises(ValueError, match=f"{type(optimizer).__name__} needs all entries of a hyperparameter, but l2"):
        require_entrywise(SPREAD, optimizer)


@pytest.mark.parametrize(
    ("estimator", "says"),
    [
        (hg.Implicit(), "The error bar of Implicit needs all entries"),
        (hg.Forward(), "Forward needs all entries of a hyperparameter on each process, but l2"),
        (hg.Unrolled(solver=hg.GradientDescent(lr="l2")), "l2 is a coefficient of the solver"),
    ],
)
def test_estimators_that_need_all_entries_are_refused(estimator: hg.HypergradEstimator, says: str):
    with pytest.raises(ValueError, match=says):
        require_linear(SPREAD, estimator)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_every_estimator_and_optimiser_on_two_and_four_ranks(states: Path, world: int):
    results = ranks.run("sharded_lambda_cases", world=world, function="every_optimizer", seconds=300)
    for case in runs.every_optimizer().keys() - {"histograms"}:
        assert max(results.of(case)) < TOL, case
    assert results.of("histograms")[0] == [1, 13, 13]


@pytest.mark.slow
def test_states_of_four_ranks_go_on_on_two_and_on_one(states: Path):
    written = ranks.run("sharded_lambda_cases", world=4, function="every_optimizer", seconds=300)
    assert max(written.of("interrupted")) == 0.0
    assert max(ranks.run("sharded_lambda_cases", function="going_on", seconds=100).of("resumed")) < TOL
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*goes on with 1: its numbers", UserWarning)
        assert runs.resumed(4) < TOL
