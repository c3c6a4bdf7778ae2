"""States of runs with sharded parameters: each rank writes its rows, and any number of ranks reads them."""

import os
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
from sharded_state_cases import KINDS, STATES

import hypergrad as hg
from hypergrad.core.collectives import Ranks
from hypergrad.core.local_shard import LocalShard, plain
from hypergrad.core.row_shard import Rows, RowShard
from hypergrad.outer.param_state import with_param_rows

BETWEEN_RANKS = 1e-8
"""Sums are added in another order, and Hessian products are differences: 4e-11 for CG was measured."""


def found(case: str) -> list[Any]:
    return ranks.run("sharded_state_cases", seconds=180).of(case)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_breaks_off_goes_on_to_the_bits_of_an_undisturbed_one(kind):
    assert found(f"resumed, {kind}") == [[True, True], [True, True]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["alone", "unsharded", "cut"])
def test_a_run_goes_on_on_one_rank_and_with_whole_parameters_and_in_shards_again(kind, how):
    assert max(found(f"{how}, {kind}")) < BETWEEN_RANKS


def test_each_rank_writes_its_own_rows_and_what_stands_in_several_places_once():
    for names, places, *entries in found("files"):
        assert places == {"[0, 0]": "__0_0.distcp", "[4, 0]": "__1_0.distcp"}
        assert names[2:] == [f"state-{k:06d}.{end}" for k in (1, 2) for end in ("pt", "shards")]
        w, last, z = ("params/scale", "params/scale", "adjoint/memory/z/scale")
        wanted = [{"key among the shards": key, "shape": [1], "dtype": torch.float64} for key in (w, last, z)]
        assert entries == [str(entry) for entry in wanted]


@pytest.mark.parametrize("name", ["__0_0.distcp", "__1_0.distcp", ".metadata"])
def test_a_file_of_shards_that_is_not_what_was_written_is_named_on_all_ranks(name):
    for said in found("damaged"):
        assert said["nothing"] == "nothing"
        assert "state-000002.shards cannot be read: " in said[name]
        assert f"{name} is no longer what was written, by its checksum. It belongs to the state file" in said[name]


def test_a_rank_without_space_leaves_the_state_before_and_one_message():
    for said, names in found("rank without space"):
        assert "state-000002.shards could not be written, because of rank 1: [Errno 28] No space left" in said
        assert names == [".lock", "history.jsonl", *(f"state-{k:06d}.{e}" for k in (0, 1) for e in ("pt", "shards"))]


def test_a_signal_to_one_rank_leaves_a_state_and_the_best_model():
    for said, names, is_best in found("asked to end"):
        assert said == "Rank 1 was asked to end (SIGINT)."
        assert {"state-000002.pt", "state-000002.shards", "hparams.yaml", "model.pt"} < set(names)
        assert is_best


def test_only_the_first_rank_gathers_the_whole_model_to_save_it():
    assert found("state dicts") == [[["model"], True], [[], True]]


REFUSED = {
    "data parallel": "The run had 2 processes and sharded parameters until this state, and here it has 2 and whole",
    "bfloat16": "its precision was that of the parameters, and here it is MixedPrecisionPolicy(param_dtype=torch.bf",
    "other weights": "its initial values was ",
    "one process": "The run had 2 processes until this state, and here it has 1",
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_state_of_another_run_is_refused(case):
    first, second = found("refusals")
    assert REFUSED[case] in first[case]
    assert second[case] == "nothing" if case == "one process" else REFUSED[case] in second[case]


def test_a_vector_is_written_in_pieces_that_are_rows():
    ranks_of_two = Ranks("", 1, 2)
    w = {
        "a": LocalShard.of(torch.arange(4.0).view(2, 2), ranks_of_two),
        "b": LocalShard.of(torch.ones(1), ranks_of_two),
    }
    shards = {"a": RowShard(ranks_of_two, 4), "b": RowShard(ranks_of_two, 3)}
    v = LocalShard.of(torch.arange(5.0), ranks_of_two)
    state = {"params": w, "adjoint": v, "records": []}
    (pieces,) = with_param_rows(state, shards)["adjoint"].values()
    assert {name: rows.shape for name, rows in pieces.items()} == {"a": (4, 2), "b": (3,)}
    assert torch.cat([rows.own.flatten() for rows in pieces.values()]).equal(plain(v))
    whole = with_param_rows({**state, "adjoint": {"z": w}}, shards)
    assert isinstance(whole["params"]["a"], Rows)
    assert whole["adjoint"]["z"]["a"] is whole["params"]["a"]
    odd = LocalShard.of(torch.ones(2, 5), ranks_of_two)
    with pytest.raises(
        hg.CheckpointError,
        match=r"carries a tensor of shape \(2, 5\) under 'vectors', of which each process has a part",
    ):
        with_param_rows({**state, "adjoint": {"vectors": odd}}, shards)


@pytest.mark.slow
def test_states_of_one_two_and_four_ranks_go_on_on_each_other(tmp_path_factory: pytest.TempPathFactory):
    """Four ranks are more than some tensors have rows."""
    path: Path = tmp_path_factory.mktemp("states")
    os.environ[STATES] = str(path)
    try:
        for world in (1, 2, 4):
            wrote = ranks.run("sharded_state_cases", world, function="left", seconds=280)
            assert all(min(rank) for kind in KINDS for rank in wrote.of(f"resumed, {kind}"))
        for world in (1, 2, 4):
            went_on = ranks.run("sharded_state_cases", world, function="going_on", seconds=280)
            for kind in KINDS:
                for before in (1, 2, 4):
                    assert max(went_on.of(f"{kind} from {before}")) < BETWEEN_RANKS
    finally:
        del os.environ[STATES]
