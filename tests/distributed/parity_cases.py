"""Hypergradients of several processes, each against that of one process."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import parity_table as table
import torch.distributed as dist

import hypergrad as hg
from hypergrad.core.autodiff import Tensors

Found = tuple[Tensors, Tensors, float]
"""dF/dλ, the parameters, and the dev loss."""


def gathered(value: Any) -> list[Any]:
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def same_bits(tensors: Tensors) -> bool:
    """Whether tensors are the same on all ranks."""
    each = gathered([x.numpy().tobytes() for x in tensors.values()])
    return all(other == each[0] for other in each)


def distance(found: Tensors, wanted: Tensors) -> float:
    """The largest relative error of the tensors."""
    assert found.keys() == wanted.keys()
    return max(((found[k] - x).norm() / x.norm().clamp_min(1e-30)).item() for k, x in wanted.items())


def estimated(problem: hg.InnerProblem, estimator: hg.HypergradEstimator) -> Found:
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params(), outer_step=1, inner_step=2)
    return found.grad, found.params, found.outer_loss


def references(estimates: Mapping[str, table.Estimate], **more: Any) -> dict[str, Found]:
    """What one process finds; the ranks share the work."""
    rank, world = dist.get_rank(), dist.get_world_size()
    mine = list(estimates.items())[rank::world]
    found = {name: estimated(table.made(**each.batches, **more), each.estimator) for name, each in mine}
    return {name: x for part in gathered(found) for name, x in part.items()}


def compared(each: table.Estimate, wanted: Found, **more: Any) -> dict[str, Any]:
    grad, params, loss = estimated(hg.DataParallel(table.made(**each.batches, **more)), each.estimator)
    return {
        "grad": distance(grad, wanted[0]),
        "params": distance(params, wanted[1]),
        "loss": abs(loss / wanted[2] - 1),
        "same bits": same_bits(grad) and same_bits(params),
    }


def _cases(estimates: Mapping[str, table.Estimate], **more: Any) -> dict[str, Callable[[], Any]]:
    wanted = references(estimates, **more)
    return {name: partial(compared, each, wanted[name], **more) for name, each in estimates.items()}


def cases() -> dict[str, Callable[[], Any]]:
    return _cases(table.some_estimates())


def a_sixth() -> dict[str, Callable[[], Any]]:
    some = table.some_estimates()
    return _cases({name: some[name] for name in list(some)[::6]})


def exhaustive() -> dict[str, Callable[[], Any]]:
    return _cases(table.every_estimate())


def single() -> dict[str, Callable[[], Any]]:
    import torch

    return _cases(table.some_estimates(), dtype=torch.float32)
