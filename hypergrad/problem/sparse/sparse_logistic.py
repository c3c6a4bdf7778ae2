"""Logistic regression with an L1 penalty."""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from hypergrad.data.frames import as_splits
from hypergrad.data.tables import Splits
from hypergrad.problem.sparse.sparse_linear import SparseLinear


class SparseLogistic(SparseLinear):
    """g(w, λ) = mean_i log(1 + exp(−s_i x_iᵀw)) + Σ_j l1_j |w_j| (+ Σ_j l2_j w_j²) on train, f the mean on dev.

    s_i = ±1 for targets y_i of 1 and 0. scikit-learn's `LogisticRegression(C)` with an L1 penalty has the same solution
    at C = 1 / (n l1). If the classes can be separated, only l1 > 0 keeps the solution finite.

    Args:
        data: as for `SparseLinear`; y holds zeros and ones.
        l1: as for `SparseLinear`.
        l2: as for `SparseLinear`.
        per_feature: as for `SparseLinear`.

    Raises:
        ValueError: as for `SparseLinear`, or if a target is neither 0 nor 1.

    Source: Koh, Kim & Boyd, "An interior-point method for large-scale ℓ1-regularized logistic regression", JMLR (2007).
    """

    curvature = 0.25

    def __init__(
        self, data: Splits, *, l1: float | None = None, l2: float | None = None, per_feature: bool = False
    ) -> None:
        for name, (_, y) in zip(data._fields, as_splits(data)[0], strict=True):
            others = y[(y != 0) & (y != 1)]
            if len(others):
                raise ValueError(
                    f"The {name} part must have targets of 0 and 1, but {len(others)} of {len(y)} are different, such "
                    f"as {others[0].item():g}."
                )
        super().__init__(data, l1=l1, l2=l2, per_feature=per_feature)

    def data_loss(self, z: Tensor, y: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(z, y)
