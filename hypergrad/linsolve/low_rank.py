"""The identity plus a matrix of low rank."""

from typing import NamedTuple

from torch import Tensor


class LowRank(NamedTuple):
    """v ↦ v + U diag(shift) Uᵀ v, on a vector of shape (n,).

    Attributes:
        U: orthonormal directions, shape (n, k).
        shift: what is added along each, shape (k,).
    """

    U: Tensor
    shift: Tensor

    def __call__(self, v: Tensor) -> Tensor:
        return v + self.U @ (self.shift * (self.U.T @ v))
