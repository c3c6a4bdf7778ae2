"""Plain functions as an inner problem."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.problem.base import InnerProblem

_Loss = Callable[[Tensors, Tensors], Tensor]


class FunctionProblem(InnerProblem):
    """Two functions and a point as an inner problem."""

    def __init__(self, inner: _Loss, outer: _Loss, params: Tensors, hparams: Tensors) -> None:
        super().__init__()
        self._inner, self._outer, self._params, self._hparams = inner, outer, params, hparams

    def init_params(self) -> Tensors:
        return self._params

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return {name: Hyperparameter(value) for name, value in self._hparams.items()}

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self._inner(params, hparams)

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self._outer(params, hparams)


class RootProblem(FunctionProblem):
    """An optimality condition φ(w, λ) = 0 and a point as an inner problem; its losses are ½ ‖φ‖²."""

    def __init__(self, phi: Callable[[Tensors, Tensors], Tensors], params: Tensors, hparams: Tensors) -> None:
        def half_square(w: Tensors, hp: Tensors) -> Tensor:
            value = flatten(phi(w, hp))
            return value @ value / 2

        super().__init__(half_square, half_square, params, hparams)
        self._phi = phi

    def optimality(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensors:
        return self._phi(params, hparams)
