"""The elastic net: least squares with an L1 and an L2 penalty."""

from hypergrad.data.tables import Splits
from hypergrad.problem.sparse.lasso import Lasso


class ElasticNet(Lasso):
    """g(w, λ) = ‖X w − y‖² / n + Σ_j l1_j |w_j| + Σ_j l2_j w_j² on train, f(w) = ‖X w − y‖² / m on dev.

    The L2 penalty makes the solution unique and gives correlated features similar weights. scikit-learn's
    `ElasticNet(alpha, l1_ratio)` has the same solution at alpha = l1/2 + l2 and l1_ratio = l1/2 / alpha.

    Args:
        data: as for `SparseLinear`.
        l1: as for `SparseLinear`.
        l2: the initial L2 penalty, > 0.
        per_feature: as for `SparseLinear`.

    Source: Zou & Hastie, "Regularization and variable selection via the elastic net", Journal of the Royal Statistical
    Society B (2005).
    """

    def __init__(self, data: Splits, *, l1: float | None = None, l2: float = 0.01, per_feature: bool = False) -> None:
        super().__init__(data, l1=l1, l2=l2, per_feature=per_feature)
