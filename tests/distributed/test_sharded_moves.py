"""Single-loop methods whose hyperparameters are spread over the ranks: the numbers of one process."""

import os
import warnings
from pathlib import Path

import pytest
import ranks
import sharded_moves_cases as runs
import torch
from sharded_lambda_cases import STATES
from sharded_moves_cases import HELD, METHODS

import hypergrad as hg
from hypergrad.core.collectives import Ranks
from hypergrad.core.row_shard import RowShard
from hypergrad.outer.spread import Spread
from hypergrad.outer.spread_requirements import require_entrywise, require_linear

TOL = dict.fromkeys(METHODS, 1e-10) | {"SAMA": 1e-9}  # by differences
SPREAD = Spread({"l2": RowShard(Ranks("", 0, 2), 12)})


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the ranks find states of one process, and write their own."""
    path = tmp_path_factory.mktemp("states")
    os.environ[STATES] = str(path)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # as on the ranks
    try:
        for name in HELD:
            assert runs.alone(name) == 0.0
    finally:
        torch.set_default_dtype(before)
    return path


@pytest.fixture(scope="module")
def found(states: Path) -> ranks.Results:
    return ranks.run("sharded_moves_cases", seconds=120)


@pytest.mark.parametrize("name", METHODS)
def test_ten_moves_are_those_of_one_process(found: ranks.Results, name: str):
    assert max(found.of(name)) < TOL[name]


def test_steps_without_a_record_are_those_of_one_process(found: ranks.Results):
    assert max(found.of("unrecorded")) < 1e-10


def test_memories_keep_the_rows_of_a_rank(found: ranks.Results):
    for rank, kept in enumerate(found.of("held")):
        own = [6, 7 - rank]  # of 12 penalties and 13 weights
        assert kept == {"MASOBA": [own], "SRBA": [own, own], "SABA": 6 * [own]}  # 5 batches, and one average


def test_a_move_sends_no_private_rows(found: ranks.Results):
    n, weights, others = 12, 13, 13
    whole, private = [4, 3 * n + 2 + others + weights], [4, 3 * n + 2 + others]
    assert found.of("traffic") == 2 * [whole + private]


def test_all_ranks_end_alike_in_a_run_that_explodes(found: ranks.Results):
    for said in found.of("diverging"):
        assert "Move 1 of SOBA met an inner loss of" in said
        assert "the run explodes" in said


@pytest.mark.parametrize("name", HELD)
def test_a_run_goes_on_from_its_states_on_as_many_ranks(found: ranks.Results, name: str):
    assert max(found.of(f"interrupted, {name}")) == 0.0


@pytest.mark.parametrize("name", HELD)
def test_a_run_of_one_process_goes_on_on_two(found: ranks.Results, name: str):
    assert max(found.of(f"from one, {name}")) < 1e-10


@pytest.mark.parametrize("name", HELD)
def test_a_run_on_two_ranks_goes_on_on_one(found: ranks.Results, name: str):
    assert max(found.of(f"interrupted, {name}")) == 0.0
    assert _on_one(name, 2) < 1e-10


def test_the_step_of_w_comes_from_all_ranks_and_that_of_l_from_the_whole_problem():
    require_entrywise(SPREAD, hg.SuggestedSGD())
    require_linear(SPREAD, hg.SingleLoop(method=hg.SABA()))


def test_a_method_of_the_users_own_is_refused():
    class Mine(hg.SOBA):
        pass

    with pytest.raises(ValueError, match="Mine may use all entries of a direction of λ at once, but l2 is spread over"):
        require_linear(SPREAD, hg.SingleLoop(method=Mine()))


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_every_method_with_every_kind_of_rows_on_two_and_four_ranks(states: Path, world: int):
    results = ranks.run("sharded_moves_cases", world=world, function="every_method", seconds=500)
    for case in runs.every_method():
        name = case.split(",")[0]
        assert max(results.of(case)) < TOL.get(name, 1e-10), case


@pytest.mark.slow
def test_states_of_four_ranks_go_on_on_two_and_on_one(states: Path):
    written = ranks.run("sharded_moves_cases", world=4, function="every_method", seconds=500)
    again = ranks.run("sharded_moves_cases", function="going_on", seconds=100)
    for name in HELD:
        assert max(written.of(f"interrupted, {name}")) == 0.0
        assert max(again.of(name)) < 1e-10
        assert _on_one(name, 4) < 1e-10


def _on_one(name: str, before: int) -> float:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*goes on with 1: its numbers", UserWarning)
        return runs.resumed(name, before)
