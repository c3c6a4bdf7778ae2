"""What one process would decide by its own part of the data, and all must decide alike."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import parity_table as table
import torch
from parity_cases import distance, estimated, gathered

import hypergrad as hg
from hypergrad.problem.supervised.examples import Batch
from hypergrad.tape.footprint import measure
from hypergrad.training.dynamics import Dynamics

UNEVEN: dict[str, Any] = {"train": 23, "dev": 11, "batch_size": 7}


def tape_that_fits() -> Any:
    """With a budget that the graphs of one rank exceed, and those of the other do not."""
    problem, how = hg.DataParallel(table.made(**UNEVEN)), table.UNROLLED
    dynamics = Dynamics(problem, how.solver, problem.init_hparams())
    footprint = measure(dynamics, how.solver.init(problem.init_params()), 0)
    cost = hg.Graph().cost(dynamics, footprint, range(table.STEPS))
    assert cost is not None
    needed = gathered(cost.memory)
    how = replace(how, tape=hg.AutoTape(budget=sum(needed) / 2))
    return needed, distance(estimated(problem, how)[0], estimated(table.made(**UNEVEN), how)[0])


class OneRowMoves(hg.Supervised):
    """Batches that differ from step to step in the part of rank 0 only."""

    def inner_batch(self, step: int) -> Batch:
        return Batch(torch.tensor([step % 2, 4, 5, 6]))


def batch_that_differs() -> str:
    problem = table.made(train=12, dev=6)
    problem.__class__ = OneRowMoves
    return refusal(lambda: estimated(hg.DataParallel(problem), table.trained("lbfgs", "store")))


def nan_on_one_rank() -> str:
    problem = table.made(train=12, dev=6)
    problem.part("train")[0][-1] = float("nan")
    return refusal(lambda: estimated(hg.DataParallel(problem), table.UNROLLED))


def nan_in_dev_on_one_rank() -> str:
    problem = table.made(train=12, dev=6)
    problem.part("dev")[0][-1] = float("nan")
    return refusal(lambda: estimated(hg.DataParallel(problem), table.IMPLICIT))


def refusal(call: Callable[[], Any]) -> str:
    try:
        call()
    except (hg.HypergradError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def cases() -> dict[str, Callable[[], Any]]:
    each = [tape_that_fits, batch_that_differs, nan_on_one_rank, nan_in_dev_on_one_rank]
    return {case.__name__: case for case in each}
