"""What is known of a positive definite operator from its products with some vectors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.errors import IndefiniteError
from hypergrad.core.operator import Matvec
from hypergrad.linsolve.recording import Recording


@dataclass
class Subspace:
    """A on the span of orthonormal Q: x ≈ Q (QᵀAQ)⁻¹ Qᵀ b.

    Attributes:
        Q: shape (n, k).
        AQ: shape (n, k).
        values: the eigenvalues of QᵀAQ, ascending; Q is rotated so that this matrix is diagonal.
    """

    Q: Tensor
    AQ: Tensor
    values: Tensor

    @classmethod
    def of(cls, recording: Recording, like: Tensor) -> "Subspace":
        """The span of the recorded vectors.

        Raises:
            IndefiniteError: if A is not positive definite on it.
        """
        if not recording.vectors:
            empty = like.new_zeros(len(like), 0)
            return cls(empty, empty, like.new_zeros(0))
        V, AV = (torch.stack([x.to(like) for x in xs], 1) for xs in (recording.vectors, recording.products))
        # A change of basis from the small Gram matrix: much cheaper than a QR factorisation of V.
        squares, Z = torch.linalg.eigh(V.T @ V)
        keep = squares > torch.finfo(like.dtype).eps ** 0.5 * squares[-1]
        basis = Z[:, keep] / squares[keep].sqrt()
        Q, AQ = V @ basis, AV @ basis
        values, turn = torch.linalg.eigh((Q.T @ AQ + AQ.T @ Q) / 2)
        if values[0] <= 0:
            raise IndefiniteError(f"The curvature {values[0]:.1e} is not positive.")
        return cls(Q @ turn, AQ @ turn, values)

    @property
    def middle(self) -> float:
        """The geometric mean of the extreme eigenvalues, which stands for those outside; 1 if none is known."""
        return (self.values[0] * self.values[-1]).sqrt().item() if len(self.values) else 1.0

    def solve(self, b: Tensor) -> tuple[Tensor, Tensor]:
        """x in the subspace, and b − A x."""
        y = (self.Q.T @ b) / self.values
        return self.Q @ y, b - self.AQ @ y

    def preconditioner(self, outside: Matvec | None) -> Matvec:
        """The inverse on the subspace, and an approximate one, or the identity, where A leads away from it."""
        middle = self.middle

        def inverse(r: Tensor) -> Tensor:
            x, rest = self.solve(r)
            z = rest / middle if outside is None else outside(rest)
            return x + z - self.Q @ ((self.AQ.T @ z) / self.values)

        return inverse
