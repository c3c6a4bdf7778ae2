"""The examples of each training step."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.device import sent
from hypergrad.core.seed import seed_of

_CPU = torch.device("cpu")


def rows_of_step(
    step: int,
    *,
    size: int,
    batch_size: int,
    seed: int,
    drop_last: bool = False,
    fixed: bool = False,
    device: torch.device = _CPU,
) -> Tensor:
    """The examples of step `step` ≥ 0, a function of step and seed; each of `size` examples occurs once per epoch.

    An epoch of ⌈size / batch_size⌉ steps is a permutation cut into batches; the last one holds the rest. With
    `drop_last` the rest is left out, other examples in each epoch, which has ⌊size / batch_size⌋ steps. If the batches
    are `fixed`, they are those of the first permutation in every epoch, in another order. The rows are on `device`, to
    which the order of an epoch is copied once.
    """
    per_epoch = steps_per_epoch(size=size, batch_size=batch_size, drop_last=drop_last)
    index = batch_of_step(step, num=per_epoch, seed=seed, fixed=fixed)
    order = _on_device(size, seed, 0 if fixed else step // per_epoch, device)
    return order[index * batch_size : (index + 1) * batch_size]


def batch_of_step(step: int, *, num: int, seed: int, fixed: bool) -> int:
    """The number j of the batch of step `step` ≥ 0, from 0 to num − 1; each once in an epoch of `num` steps.

    It is the position of the step in its epoch, unless the batches are `fixed`: their order then is a function of the
    seed and the epoch.
    """
    epoch, position = divmod(step, num)
    return _order_of_batches(num, seed, epoch)[position] if fixed else position


def scheduled(
    step: int,
    *,
    size: int,
    batch_size: int | None,
    seed: int,
    drop_last: bool,
    fixed: bool = False,
    device: torch.device = _CPU,
) -> tuple[Tensor | None, int]:
    """The examples of step `step` ≥ 0 as by `rows_of_step`, None for all of them, and its epoch."""
    if batch_size is None or batch_size >= size:
        return None, step
    cut: Any = {"size": size, "batch_size": batch_size, "seed": seed, "drop_last": drop_last, "fixed": fixed}
    return rows_of_step(step, **cut, device=device), step // steps_per_epoch(
        size=size, batch_size=batch_size, drop_last=drop_last
    )


def steps_per_epoch(*, size: int, batch_size: int, drop_last: bool = False) -> int:
    """The number of batches of an epoch."""
    return size // batch_size if drop_last else -(-size // batch_size)


def even_batches(*, size: int, batch_size: int | None, seed: int) -> Iterator[Tensor | None]:
    """All of `size` examples in as few batches as `batch_size` allows, whose sizes differ by at most one.

    Yields:
        The examples of a batch, in the order of the first epoch; None once, for all of them, if that is one batch.
    """
    if batch_size is None or batch_size >= size:
        yield None
    else:
        yield from _permutation(size, seed, 0).tensor_split(-(-size // batch_size))


@lru_cache(maxsize=4)
def _on_device(size: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    return sent(_permutation(size, seed, epoch), device)


@lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed_of("epoch", seed, epoch))
    return torch.randperm(size, generator=generator)


@lru_cache(maxsize=4)
def _order_of_batches(num: int, seed: int, epoch: int) -> list[int]:
    return _permutation(num, seed_of("fixed batches", seed), epoch).tolist()
