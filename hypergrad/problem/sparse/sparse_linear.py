"""The promise of a linear model with an L1 penalty: data, penalties, and products on the support alone."""

from abc import abstractmethod
from copy import copy
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from hypergrad.core.autodiff import Tensors
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.torch_internals.modules import buffers_of, set_buffers, set_submodules, submodules_of
from hypergrad.data.frames import as_splits
from hypergrad.data.tables import Split, Splits, require_parts
from hypergrad.problem.sparse.design import Design, as_matrix, rows_of
from hypergrad.problem.sparse.l1 import L1Problem
from hypergrad.problem.sparse.support import OnSupport


class SparseLinear(L1Problem):
    """A linear model: g(w, λ) = ℓ(X w, y) + Σ_j l1_j |w_j| + Σ_j l2_j w_j² on train, f(w) = ℓ(X w, y) on dev.

    The parameter is `weight`, shape (p,); the hyperparameters are `l1` > 0 and, if it is given, `l2` > 0, each of
    shape () or (p,). There is no intercept, so centre X and y. Products for a hypergradient use only the columns of
    the support.

    Args:
        data: train, dev and test parts; X is a dense or sparse tensor, a scipy.sparse matrix or a DataFrame,
            whose columns name the penalties.
        l1: the initial L1 penalty, > 0; None for a tenth of `l1_max`, at which w = 0.
        l2: the initial L2 penalty, > 0; None for no L2 penalty.
        per_feature: tune one penalty (of each kind) per feature instead of one for all.

    Raises:
        ValueError: if the parts disagree about the number of features or examples, are empty, or hold NaN, or if l1 is
            None and w = 0 is the solution for every l1.
    """

    curvature: ClassVar[float]
    """The largest eigenvalue of the second derivative of n ℓ(z, y) in z ∈ ℝⁿ."""

    y: Tensor
    y_dev: Tensor
    y_test: Tensor

    def __init__(
        self, data: Splits, *, l1: float | None = None, l2: float | None = None, per_feature: bool = False
    ) -> None:
        super().__init__()
        data, columns = as_splits(data)
        data = Splits(*(Split(as_matrix(X, y.dtype), y) for X, y in data))
        require_parts(data)
        self.X, self.X_dev, self.X_test = (Design(X) for X, _ in data)
        for name, (_, y) in zip(("y", "y_dev", "y_test"), data, strict=True):
            self.register_buffer(name, y)
        shape = self.X.shape[1:] if per_feature else ()
        starts = {"l1": self._default_l1() if l1 is None else l1, "l2": l2}
        self._hyperparameters = {
            name: Hyperparameter(
                start, shape=shape, constraint=constraints.positive, labels=columns if per_feature else ()
            )
            for name, start in starts.items()
            if start is not None
        }

    @abstractmethod
    def data_loss(self, z: Tensor, y: Tensor) -> Tensor:
        """ℓ(z, y), the mean loss of the predictions z = X w, shape ()."""

    @property
    def l1_max(self) -> float:
        """The smallest L1 penalty at which w = 0 is the solution, max_j |∇_j ℓ| at w = 0."""
        w = self.init_params()["weight"].requires_grad_()
        with torch.enable_grad():
            (grad,) = torch.autograd.grad(self.data_loss(self.X(w), self.y), w)
        return grad.abs().max().item()

    def init_params(self) -> Tensors:
        return {"weight": self.y.new_zeros(self.X.shape[1])}

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return self._hyperparameters

    def smooth_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        w = params["weight"]
        return self.data_loss(self.X(w), self.y) + (self.l2(hparams) * w**2).sum()

    def l1(self, hparams: Tensors) -> Tensors:
        return {"weight": hparams["l1"]}

    def l2(self, hparams: Tensors) -> Tensor:
        """The L2 penalty, shape () or (p,); zero if the problem has none."""
        return hparams["l2"] if "l2" in self._hyperparameters else self.y.new_zeros(())

    def smoothness(self, hparams: Tensors) -> Tensor | None:
        return 2 * self.l2(hparams).max() + self.curvature * self.X.largest_singular_value**2 / len(self.y)

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self.data_loss(self.X_dev(params["weight"]), self.y_dev)

    def metrics(self, params: Tensors, hparams: Tensors) -> dict[str, Tensor | float]:
        return {"test_loss": self.data_loss(self.X_test(params["weight"]), self.y_test)}

    def pooled_targets(self) -> Tensor:
        return torch.cat([self.y, self.y_dev])

    def on_examples(self, train: Tensor, dev: Tensor) -> "SparseLinear":
        other, y = copy(self), self.pooled_targets()
        designs = [self.X, self.X_dev]
        set_submodules(other, submodules_of(self) | {"X": rows_of(designs, train), "X_dev": rows_of(designs, dev)})
        set_buffers(other, buffers_of(self) | {"y": y[train], "y_dev": y[dev]})
        return other

    def on_support(self, params: Tensors, support: Tensors) -> OnSupport:
        return OnColumns(self, params, support)

    def _default_l1(self) -> float:
        largest = self.l1_max
        if not largest > 0:
            raise ValueError(
                "The initial l1 needs a gradient at w = 0 that is not 0, but it is 0, so that w = 0 is the solution "
                "for every l1 > 0; see whether y is constant, or give l1."
            )
        return largest / 10


class OnColumns(OnSupport):
    """The problem with the columns of the support alone, so that a product costs n |S| operations instead of n p."""

    full: SparseLinear

    def __init__(self, full: SparseLinear, params: Tensors, support: Tensors) -> None:
        super().__init__(full, params, support)
        self.X, self.X_dev = full.X.columns(support["weight"]), full.X_dev.columns(support["weight"])

    def smooth_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        w, l2 = params["weight"], self.picked("weight", self.full.l2(hparams))
        return self.full.data_loss(self.X(w), self.full.y) + (l2 * w**2).sum()

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self.full.data_loss(self.X_dev(params["weight"]), self.full.y_dev)
