"""Ridge regression, with closed forms of the best response and the hypergradient."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from hypergrad.core.autodiff import Tensors
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.data.frames import as_splits
from hypergrad.data.own_rows import OwnRows, own_rows, rows_of
from hypergrad.data.tables import Splits, require_parts
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.repartition import on_rows


class Ridge(InnerProblem):
    """Ridge regression with one L2 penalty, or one per feature.

    g(w, λ) = ‖X w − y‖² / n + Σ_j λ_j w_j²  on train,    f(w) = ‖X w − y‖² / m  on dev.

    The parameter is `weight`, shape (p,), the hyperparameter `l2` > 0, shape () or (p,). There is no intercept, so
    centre X and y. scikit-learn's `Ridge(alpha)` has the same solution at alpha = n λ.

    Args:
        data: train, dev and test parts; X may be a DataFrame, whose columns name the penalties.
        l2: the initial penalty, > 0.
        per_feature: tune one penalty per feature instead of one for all.

    Raises:
        ValueError: if the parts disagree about the number of features or examples, are empty, or hold NaN.

    Examples:
        >>> problem = hg.Ridge(hg.diabetes(), l2=0.1)
        >>> λ = problem.init_hparams()
        >>> w = problem.solution(λ)
        >>> print(f"inner loss {problem.inner_loss(w, λ, None):.4f}, dev loss {problem.outer_loss(w, λ, None):.4f}")
        inner loss 0.5088, dev loss 0.4829

    Source: Hoerl & Kennard, "Ridge regression", Technometrics (1970).
    """

    X: Tensor
    y: Tensor
    X_dev: Tensor
    y_dev: Tensor
    X_test: Tensor
    y_test: Tensor

    def __init__(self, data: Splits, *, l2: float = 1.0, per_feature: bool = False) -> None:
        super().__init__()
        data, columns = as_splits(data)
        require_parts(data)
        for name, (X, y) in zip(data._fields, data, strict=True):
            suffix = "" if name == "train" else f"_{name}"
            self.register_buffer(f"X{suffix}", X)
            self.register_buffer(f"y{suffix}", y)
        shape = (self.X.shape[1],) if per_feature else ()
        labels = columns if per_feature else ()
        self._hyperparameters = {"l2": Hyperparameter(l2, shape=shape, constraint=constraints.positive, labels=labels)}

    def init_params(self) -> Tensors:
        return {"weight": self.X.new_zeros(self.X.shape[1])}

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return self._hyperparameters

    def with_effect(self) -> list[str]:
        return ["l2"]

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        w, rows = params["weight"], rows_of(batch)
        return mean_squared_error(self.X[rows], w, self.y[rows]) + (hparams["l2"] * w**2).sum()

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        rows = rows_of(batch)
        return mean_squared_error(self.X_dev[rows], params["weight"], self.y_dev[rows])

    def inner_share(self, batch: Any, rank: int, world: int) -> tuple[OwnRows, float]:
        own = own_rows(len(self.y), rank, world)
        return own, own.share

    def outer_share(self, batch: Any, rank: int, world: int) -> tuple[OwnRows, float]:
        own = own_rows(len(self.y_dev), rank, world)
        return own, own.share

    def metrics(self, params: Tensors, hparams: Tensors) -> dict[str, Tensor | float]:
        return {"test_loss": mean_squared_error(self.X_test, params["weight"], self.y_test)}

    def test_losses(self, params: Tensors, hparams: Tensors) -> Tensor:
        return (self.X_test @ params["weight"] - self.y_test).square()

    def pooled_targets(self) -> Tensor:
        return torch.cat([self.y, self.y_dev])

    def on_examples(self, train: Tensor, dev: Tensor) -> "Ridge":
        return on_rows(self, train, dev)

    def solution(self, hparams: Tensors) -> Tensors:
        A = self._half_hessian(hparams["l2"])
        return {"weight": torch.linalg.solve(A, self.X.T @ self.y / len(self.y))}

    def hypergradient(self, hparams: Tensors) -> Tensors:
        """dF/dλ in closed form: −2 w_j [H⁻¹ ∇f]_j for each feature, summed if all features have one penalty."""
        w = self.solution(hparams)["weight"]
        df_dw = 2 * self.X_dev.T @ (self.X_dev @ w - self.y_dev) / len(self.y_dev)
        adjoint = torch.linalg.solve(2 * self._half_hessian(hparams["l2"]), df_dw)
        return {"l2": (-2 * w * adjoint).sum_to_size(hparams["l2"].shape)}

    def _half_hessian(self, l2: Tensor) -> Tensor:
        penalty = l2 * torch.ones_like(self.X[0])
        return self.X.T @ self.X / len(self.y) + penalty.diag()


def mean_squared_error(X: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """‖X w − y‖² / n, shape ()."""
    return (X @ w - y).square().mean()
