"""The promise of a problem: what is trained, what is tuned, and the two losses."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from hypergrad.autodiff import Tensors, value_and_gradient
from hypergrad.hyperparameter import Hyperparameter


class InnerProblem(nn.Module, ABC):
    """What is tuned: w*(λ) = argmin_w g(w, λ), judged by the dev loss f(w, λ).

    Holds the data (as buffers, so that `.to(device)` and `.double()` move it), and never w or λ, which come in as
    named tensors. Every method is a pure function of its arguments: a batch, a dropout mask, any random draw is a
    function of the step alone, because recomputing and resuming rely on it.
    """

    @abstractmethod
    def init_params(self) -> Tensors:
        """The parameters w₀ from which training starts; the same at every call."""

    @abstractmethod
    def hyperparameters(self) -> dict[str, Hyperparameter]:
        """The hyperparameters λ by name."""

    @abstractmethod
    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        """The training loss g(w, λ), shape ()."""

    @abstractmethod
    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        """The dev loss f(w, λ), shape ()."""

    def inner_batch(self, step: int) -> Any:
        """The batch of inner step `step` ≥ 0; None where the losses read all of the problem's own data."""
        return None

    def outer_batch(self, step: int) -> Any:
        """The batch of outer step `step` ≥ 0; None where the losses read all of the problem's own data."""
        return None

    def inner_loss_and_gradient(self, params: Tensors, hparams: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
        """g(w, λ) and ∇_w g(w, λ), differentiable where grad mode is enabled."""
        return value_and_gradient(lambda w: self.inner_loss(w, hparams, batch), params)

    def optimality(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensors:
        """φ(w, λ), zero exactly at w*(λ) and shaped as w: by default ∇_w g.

        Override it for a root, a fixed point or a proximal condition; it must be differentiable in w and λ.
        """
        return self.inner_loss_and_gradient(params, hparams, batch)[1]

    def solution(self, hparams: Tensors) -> Tensors:
        """The best response w*(λ) in closed form, for problems that have one."""
        raise NotImplementedError(f"{type(self).__name__} knows no closed form of its solution.")

    def metrics(self, params: Tensors, hparams: Tensors) -> dict[str, Tensor | float]:
        """Further numbers to record at each outer step; `test_loss` is shown beside the inner and dev loss."""
        return {}

    def init_hparams(self) -> Tensors:
        """The initial λ in natural units, in the dtype and on the device of `init_params()`."""
        like = next(iter(self.init_params().values()))
        return {name: h.value(like.dtype, like.device) for name, h in self.hyperparameters().items()}
