"""Influence in the subspace of the largest curvatures."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.errors import NonFiniteError
from hypergrad.core.operator import Operator
from hypergrad.core.validation import require_instance, require_int, require_real
from hypergrad.influence.base import InfluenceMethod, Scores
from hypergrad.influence.implicit import in_blocks, mean_gradient, stacked
from hypergrad.influence.terms import Terms, require_separable
from hypergrad.linsolve.base import bad_product
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.supervised.supervised import Supervised
from hypergrad.product.base import Product
from hypergrad.product.reverse import Reverse


@dataclass(frozen=True, kw_only=True)
class ArnoldiInfluence(InfluenceMethod):
    """s(j, i) = Σ_k (r_kᵀ∇f_j) (r_kᵀ∇(c_i u_i / N)) / (λ_k + δ), with the largest eigenpairs (λ_k, r_k) of H.

    They are Ritz pairs of a Krylov space of the Hessian H. As it is symmetric, Arnoldi's iteration is that of Lanczos,
    here with full orthogonalisation. The gradients of train examples are projected once; a dev example then costs a
    gradient. Gradients outside the subspace count as 0. It is exact with as many iterations and pairs as parameters.

    Attributes:
        rank: pairs to keep, those of the largest |λ|, ≥ 1.
        iterations: of Lanczos, each with a product, ≥ rank; all of its vectors are kept until the pairs are known.
        product: how products with H are formed.
        damping: δ ≥ 0, in units of H.
        dev_block: dev examples at once, ≥ 1.
        train_block: train examples at once, ≥ 1.

    Source: Schioppa, Zablotskaia, Vilar & Sokolov, "Scaling up influence functions", AAAI (2022).
    """

    rank: int = 50
    iterations: int = 200
    product: Product = field(default_factory=Reverse)
    damping: float = 0.0
    dev_block: int = 64
    train_block: int = 512

    def __post_init__(self) -> None:
        require_instance(self, "product", Product)
        require_real(self, "damping", least=0)
        for name in ("rank", "dev_block", "train_block"):
            require_int(self, name, least=1)
        require_int(self, "iterations", least=self.rank)

    def prepare(self, problem: Supervised, params: Tensors, hparams: Tensors) -> Scores:
        """As promised.

        Also raised, by what it calls: ValueError if the model draws random numbers or normalises by the batch, or if
        the loss has no term for each example; NonFiniteError if a loss, gradient or product is NaN or infinite.
        """
        require_separable(problem)
        terms = Terms(problem, params, hparams, self.train_block)
        terms.require_finite()
        linearized = self.product.linearize(Oracle(in_blocks(problem, self.train_block), hparams), params)
        values, pairs = largest_eigenpairs(linearized.product, linearized.phi, self.rank, self.iterations)
        projected = terms.products(stacked(list(pairs), params)) / (values + self.damping)[:, None]

        def scores(rows: Tensor | None) -> Tensor:
            if rows is None:
                return (pairs @ mean_gradient(terms)) @ projected
            return torch.stack([pairs @ terms.dev_gradient(row) for row in rows.tolist()]) @ projected

        return scores


def largest_eigenpairs(A: Operator, like: Tensor, rank: int, iterations: int) -> tuple[Tensor, Tensor]:
    """The Ritz pairs of the largest |λ| of a symmetric A, by Lanczos' iteration with full orthogonalisation.

    Args:
        A: its products.
        like: a vector of shape (p,) that gives size, dtype and device.
        rank: pairs to return, ≥ 1; fewer if the Krylov space has a smaller dimension, or the others are 0.
        iterations: ≥ rank.

    Returns:
        The values, shape (r,), and the vectors, orthonormal, shape (r, p).

    Raises:
        NonFiniteError: if a product is NaN or infinite.
    """
    steps = min(iterations, len(like))
    basis = like.new_empty(steps, len(like))
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(len(like), generator=generator, dtype=like.dtype).to(like.device)
    basis[0] = q / torch.linalg.vector_norm(q)
    rows: list[Tensor] = []
    for k in range(steps):
        v = A(basis[k])
        size = torch.linalg.vector_norm(v).item()
        if not math.isfinite(size):
            raise NonFiniteError(bad_product(k + 1))
        known = basis[: k + 1]
        rows.append(known @ v)
        v = v - known.T @ rows[-1]
        v = v - known.T @ (known @ v)  # once more, against rounding
        left = torch.linalg.vector_norm(v).item()
        if k + 1 == steps or left <= 10 * torch.finfo(v.dtype).eps * size:
            break
        basis[k + 1] = v / left
    T = like.new_zeros(len(rows), len(rows))
    for k, row in enumerate(rows):
        T[k, : k + 1] = T[: k + 1, k] = row
    values, turned = torch.linalg.eigh(T)
    order = values.abs().argsort(descending=True)[:rank]
    keep = order[values[order].abs() > 10 * torch.finfo(values.dtype).eps * values[order[0]].abs()]
    return values[keep], turned[:, keep].T @ basis[: len(rows)]
