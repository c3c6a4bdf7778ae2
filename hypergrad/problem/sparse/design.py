"""A design matrix, examples by features, dense or sparse."""

import warnings
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from hypergrad.linsolve.spectrum import largest_eigenvalue


class Design(nn.Module):
    """X of shape (n, p), whose products X w can be differentiated any number of times in reverse mode.

    A dense X is stored by columns. This makes `columns` fast, and scikit-learn's coordinate descent requires it. A
    sparse X is stored with its transpose, both in CSR. The derivative of a CSR product in torch transposes at every
    call, which on a 2000 × 5000 matrix of density 0.01 takes a hundred times as long as the product.

    Args:
        X: a dense or CSR tensor, as from `as_matrix`.
    """

    X: Tensor
    Xt: Tensor | None

    def __init__(self, X: Tensor) -> None:
        super().__init__()
        is_sparse = X.layout == torch.sparse_csr
        self.register_buffer("X", X if is_sparse else X.T.contiguous().T)
        self.register_buffer("Xt", _transposed(X) if is_sparse else None)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, p)."""
        n, p = self.X.shape
        return n, p

    def forward(self, w: Tensor) -> Tensor:
        """X w, shape (n,)."""
        return self.X @ w if self.Xt is None else _SparseProduct.apply(self.X, self.Xt, w)

    def columns(self, index: Tensor) -> "Design":
        """The columns at positions `index`, in ascending order."""
        if self.Xt is None:
            return Design(self.X[:, index])
        position = torch.full(self.shape[1:], -1, device=index.device).index_copy(
            0, index, torch.arange(len(index), device=index.device)
        )
        there = position[self.X.col_indices()]
        kept = there >= 0
        before = torch.cat([kept.new_zeros(1, dtype=torch.long), kept.cumsum(0)])
        shape = (self.shape[0], len(index))
        return Design(_csr(before[self.X.crow_indices()], there[kept], self.X.values()[kept], shape))

    @cached_property
    def largest_singular_value(self) -> float:
        """σ_max(X), overestimated by a few per cent."""
        with torch.enable_grad():
            w = torch.zeros(self.shape[1], dtype=self.X.dtype, device=self.X.device, requires_grad=True)
            z = self(w)
        # Power iteration approaches the eigenvalue from below, hence 1.05.
        gram = largest_eigenvalue(lambda v: torch.autograd.grad(z, w, self(v), retain_graph=True)[0], w, num_iter=50)
        return (1.05 * gram) ** 0.5

    def to_scipy(self) -> Any:
        """X for scikit-learn's coordinate descent: an array by columns, or a CSC matrix; a view on a CPU."""
        if self.Xt is None:
            return self.X.cpu().numpy()
        from scipy import sparse

        # scikit-learn reads 32-bit indices only.
        arrays = (self.Xt.values(), self.Xt.col_indices().int(), self.Xt.crow_indices().int())
        return sparse.csc_array(tuple(a.cpu().numpy() for a in arrays), shape=self.shape)


def as_matrix(X: Any, dtype: torch.dtype) -> Tensor:
    """X as a dense or CSR tensor, from a dense or sparse tensor or a scipy.sparse matrix.

    Raises:
        TypeError: if X has another type.
    """
    if isinstance(X, Tensor):
        return X if X.layout == torch.strided else X.to_sparse_csr()
    from scipy import sparse

    if not sparse.issparse(X):
        raise TypeError(f"X must be a tensor or a scipy.sparse matrix, but it is a {type(X).__name__}.")
    X = X.tocsr()
    X.sum_duplicates()
    crow, col, values = (torch.as_tensor(a) for a in (X.indptr, X.indices, X.data))
    return _csr(crow.long(), col.long(), values.to(dtype), X.shape)


def rows_of(designs: list[Design], index: Tensor) -> Design:
    """The rows at positions `index` of designs stacked on top of each other."""
    if all(design.Xt is None for design in designs):
        return Design(torch.cat([design.X for design in designs])[index])
    from scipy import sparse

    matrix = sparse.vstack([design.to_scipy() for design in designs]).tocsr()[index.cpu().numpy()]
    X = designs[0].X
    return Design(as_matrix(matrix, X.dtype).to(X.device))


class _SparseProduct(torch.autograd.Function):
    """X w for a constant CSR X and its transpose; the derivative is the same product with the two exchanged."""

    @staticmethod
    def forward(ctx: Any, X: Tensor, Xt: Tensor, w: Tensor) -> Tensor:
        ctx.transposed = (Xt, X)
        return X @ w

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        return None, None, _SparseProduct.apply(*ctx.transposed, grads[0])


def _transposed(X: Tensor) -> Tensor:
    other = X.to_sparse_csc()
    n, p = X.shape
    return _csr(other.ccol_indices(), other.row_indices(), other.values(), (p, n))


def _csr(crow: Tensor, col: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        # torch 2.11 says it even where the checks are asked for
        warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")
        return torch.sparse_csr_tensor(crow, col, values, shape, check_invariants=True)
