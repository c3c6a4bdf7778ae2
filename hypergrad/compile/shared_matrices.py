"""Batches of products with one matrix, formed as one product."""

from typing import Any

import torch
from torch import Tensor

from hypergrad.core.torch_internals.tracing import TorchDispatchMode


class SharedMatrices(TorchDispatchMode):
    """A context in which A_1 B, …, A_k B, or A B_1, …, A B_k, are one product of matrices.

    `torch.vmap` turns such products into a batch that refers k times to the matrix. BLAS libraries then read it k
    times, and a compiler may copy it k times.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.bmm.default:
            left, right = args
            if right.stride(0) == 0:
                return _rows(left, right[0])
            if left.stride(0) == 0:
                return _rows(right.transpose(1, 2), left[0].t()).transpose(1, 2)
        return func(*args, **(kwargs or {}))


def _rows(batch: Tensor, matrix: Tensor) -> Tensor:
    """A_i B for all i, shape (k, m, q); A has shape (k, m, p) and B (p, q)."""
    k, m, p = batch.shape
    return torch.mm(batch.reshape(k * m, p), matrix).view(k, m, -1)
