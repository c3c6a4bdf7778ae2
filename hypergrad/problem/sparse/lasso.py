"""The Lasso: least squares with an L1 penalty."""

from torch import Tensor

from hypergrad.problem.sparse.sparse_linear import SparseLinear


class Lasso(SparseLinear):
    """g(w, λ) = ‖X w − y‖² / n + Σ_j l1_j |w_j| on train, f(w) = ‖X w − y‖² / m on dev.

    With one penalty the smallest l1 with the solution w = 0 is 2 ‖Xᵀy‖_∞ / n, and scikit-learn's `Lasso(alpha)` has the
    same solution at alpha = l1 / 2. With `l2` this is the elastic net: see `ElasticNet`.

    Source: Tibshirani, "Regression shrinkage and selection via the lasso", Journal of the Royal Statistical Society B
    (1996).
    """

    curvature = 2.0

    def data_loss(self, z: Tensor, y: Tensor) -> Tensor:
        return (z - y).square().mean()
