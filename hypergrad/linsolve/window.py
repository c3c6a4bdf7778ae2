"""How many iterations run before the host looks at them.

An iteration computes its norms and dot products where its vectors are. To see whether it converged, the host has to
wait for them. On a CPU this costs nothing, so each iteration is looked at. A GPU would run idle meanwhile. So a solver
queues a window of iterations there, keeps the vectors of each, and looks at all of them at once, in order. It takes the
result from the iteration at which it would have stopped otherwise. Result, residual and status are the same for every
size of a window. Only the products of the later iterations are spent in vain, fewer than one window; they count.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hypergrad.core.local_shard import LocalShard

SIZES = {"cuda": 5}
"""Iterations in a window by type of device, 1 elsewhere. A judgement: 4 products more at most, and a fifth of the
waiting."""
_MEMORY = 2**30
"""Most bytes for the vectors of a window. A judgement: beyond, a product takes far longer than the host waits."""


def window_size(like: Tensor) -> int:
    """Iterations before each look, for vectors like this one, ≥ 1."""
    if isinstance(like, LocalShard):
        return 1  # the same on all ranks, whose shards differ in size; a pass of all of them takes longer than a look
    fitting = _MEMORY // max(1, like.numel() * like.element_size())
    return max(1, min(SIZES.get(like.device.type, 1), fitting))


def read(scalars: Sequence[Tensor]) -> list[float]:
    """The values of tensors of shape () on one device, for which the host waits once."""
    return torch.stack(list(scalars)).tolist()
