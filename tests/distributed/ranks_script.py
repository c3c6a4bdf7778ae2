"""What `hypergrad.core.ranks` does on every rank, as a script for torchrun."""

import sys
from typing import Any

import torch
import torch.distributed as dist

from hypergrad.core.errors import RankError
from hypergrad.core.ranks import ALONE, first_to_fail, peers_of


def refusal(call, *arguments) -> str:
    try:
        call(*arguments)
    except RankError as error:
        return str(error)
    return ""


def main() -> None:
    assert peers_of() is ALONE
    dist.init_process_group("gloo")
    ranks = peers_of()
    rank, world = ranks.rank, ranks.world
    assert ranks == peers_of(dist.group.WORLD)
    assert world == 3
    assert ranks.is_first == (rank == 0)

    found = ranks.first({"step": rank, "u": torch.full((2,), float(rank))})
    assert found["step"] == 0
    assert found["u"].tolist() == [0, 0]
    assert ranks.first_numbers([rank + 0.1, -0.0]) == [0.1, 0.0]
    assert ranks.most(rank) == world - 1
    assert ranks.gathered(f"of {rank}") == ["of 0", "of 1", "of 2"]

    # One bit of one hyperparameter on one rank; all ranks say the same.
    same, other = torch.ones(3), torch.zeros((), dtype=torch.float64)
    ranks.require_same({"l2": same, "rate": other}, "after outer step 4")
    said = refusal(ranks.require_same, {"l2": same, "rate": other + (rank == 1) * 5e-324}, "after outer step 4")
    assert said.startswith("rate on rank 1 differs from rate on the other ranks, after outer step 4.")
    said = refusal(ranks.require_same, {"l2": same + (rank > 0) * rank}, "at the start")
    assert said.startswith("l2 on ranks 1, 2 differs")

    # Peers of a part of all processes.
    pair: Any = dist.new_group([1, 2])
    if rank > 0:
        some = peers_of(pair)
        assert (some.rank, some.world) == (rank - 1, 2)
        assert some.first(rank) == 1
    alone: Any = dist.new_group([0])
    if rank == 0:
        assert peers_of(alone) is ALONE

    # The first to fail is the same for all, and stays it.
    first, message = first_to_fail(rank, f"message of {rank}")
    assert ranks.gathered((first, message)) == [(first, f"message of {first}")] * world
    assert first_to_fail(rank, "another") == (first, message)

    ranks.barrier(seconds=20)
    if rank == 2:
        sys.exit(0)
    said = refusal(ranks.barrier, 0.5)
    assert said.startswith("Not all ranks arrived within 0.5 s: ")
    if rank == 0:
        assert "2 failed to pass" in said
    print("right on", rank)


if __name__ == "__main__":
    main()
