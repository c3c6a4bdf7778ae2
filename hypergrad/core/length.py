"""The length of a vector, also where its square under- or overflows."""

import math

import torch
from torch import Tensor


def length(x: Tensor) -> float:
    """The root of the summed squares of all entries: 0 only if x = 0, and infinite only if an entry is.

    In float32 the square of a number below 1e-19 is not a normal number, and that of 1e-23 is 0: a gradient of that
    size would look like the one at a minimum. The square of 1e20 is infinite.
    """
    found = torch.linalg.vector_norm(x).item()
    if 8 * torch.finfo(x.dtype).tiny ** 0.5 <= found < math.inf:
        return found
    largest = torch.linalg.vector_norm(x, torch.inf).item() if x.numel() else 0.0
    return largest * torch.linalg.vector_norm(x / largest).item() if 0 < largest < math.inf else largest
