"""The promise of a problem with an L1 penalty: its smooth loss and its penalties."""

from abc import abstractmethod
from typing import Any

from torch import Tensor

from hypergrad.core.autodiff import Tensors, value_and_gradient
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.returned import require_scalar


class Penalized(InnerProblem):
    """A training loss g(w, λ) = s(w, λ) + Σ_j l1_j |w_j| with s smooth; see `L1Problem` for its solutions."""

    @abstractmethod
    def smooth_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        """The smooth part s(w, λ) of the training loss, shape ()."""

    @abstractmethod
    def l1(self, hparams: Tensors) -> Tensors:
        """The penalties l1 ≥ 0 by the names of their parameters, each of a shape that expands to its parameter."""

    def smoothness(self, hparams: Tensors) -> Tensor | None:
        """An upper bound, shape (), of the largest eigenvalue of ∇²s at any w; None if none is known."""
        return None

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        penalties = [(l1 * params[name].abs()).sum() for name, l1 in self.l1(hparams).items()]
        return sum(penalties, start=self.smooth_loss(params, hparams, batch))

    def smooth_loss_and_gradient(self, params: Tensors, hparams: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
        """s(w, λ) and ∇_w s(w, λ), differentiable if grad mode is enabled."""
        name = f"{type(self).__name__}.smooth_loss"
        return value_and_gradient(lambda w: require_scalar(self.smooth_loss(w, hparams, batch), name), params, name)

    def prox(self, params: Tensors, hparams: Tensors, lr: float | Tensor) -> Tensors:
        """argmin_z ½ ‖z − w‖² + lr Σ_j l1_j |z_j|: w moves towards zero by lr l1, and stops at zero."""
        return params | {name: soft_threshold(params[name], lr * l1) for name, l1 in self.l1(hparams).items()}

    @property
    def is_smooth(self) -> bool:
        return False


def soft_threshold(x: Tensor, threshold: Tensor) -> Tensor:
    """sign(x) max(|x| − threshold, 0), zero exactly where |x| ≤ threshold ≥ 0."""
    return x - x.clamp(-threshold, threshold)
