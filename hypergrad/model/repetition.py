"""Whether a second call gives what the first one gave."""

import torch
from torch import Tensor


def is_repeated(found: Tensor, again: Tensor) -> bool:
    """Whether two calls with the same arguments gave the same: to the bit on a CPU, and to √ε elsewhere.

    Some kernels of a GPU add in an order that changes from call to call, such as those of a loss with a class for each
    position; so a function that is pure may differ by rounding. What draws random numbers differs by more.
    """
    if found.shape != again.shape or found.dtype != again.dtype:
        return False
    if found.device.type == "cpu" or not found.is_floating_point():
        return torch.equal(found, again)
    off = torch.linalg.vector_norm(found - again)
    return bool(off <= torch.finfo(found.dtype).eps ** 0.5 * torch.linalg.vector_norm(found))
