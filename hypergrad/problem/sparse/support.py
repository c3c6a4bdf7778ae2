"""An L1 problem on the support of a solution, where it is smooth."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.sparse.base import Penalized

_DEGENERATE = 1e-6
"""A gradient this close to the penalty, or an entry this close to zero, relatively, may leave or join the support."""


class OnSupport(InnerProblem):
    """g(w_S, λ) = s(w_S, λ) + Σ_{j ∈ S} l1_j σ_j w_j with the signs σ of the solution: smooth, same F(λ) nearby.

    Args:
        full: the problem.
        params: its solution w; only its zeros and signs are used.
        support: S, the positions of the nonzero entries in each flat parameter.
    """

    def __init__(self, full: Penalized, params: Tensors, support: Tensors) -> None:
        super().__init__()
        self.full, self.support = full, support
        self.shapes = {name: w.shape for name, w in params.items()}
        self.signs = {name: w.detach().reshape(-1)[support[name]].sign() for name, w in params.items()}

    def init_params(self) -> Tensors:
        return {name: torch.zeros_like(signs) for name, signs in self.signs.items()}

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return self.full.hyperparameters()

    def smooth_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        """s(w_S, λ), shape ()."""
        return self.full.smooth_loss(self.whole(params), hparams, batch)

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        terms = [
            (self.picked(name, l1) * self.signs[name] * params[name]).sum()
            for name, l1 in self.full.l1(hparams).items()
        ]
        return sum(terms, start=self.smooth_loss(params, hparams, batch))

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self.full.outer_loss(self.whole(params), hparams, batch)

    def whole(self, params: Tensors) -> Tensors:
        """W with the shapes of the full problem, and zeros off the support."""
        return {
            name: w.new_zeros(self.shapes[name].numel()).index_copy(0, self.support[name], w).view(self.shapes[name])
            for name, w in params.items()
        }

    def picked(self, name: str, penalty: Tensor) -> Tensor:
        """The penalties of the support, shape (|S|,) or (), out of those of parameter `name`."""
        return penalty if penalty.ndim == 0 else penalty.expand(self.shapes[name]).reshape(-1)[self.support[name]]

    def objection(self, params: Tensors, ahead: Tensors, hparams: Tensors, batch: Any) -> str:
        """Why the support or a sign may change on the way to the solution, which `ahead` estimates.

        For a convex s, the optimality conditions at `ahead` prove the support and the signs. Each entry, and each
        gradient off the support, must be farther from its bound at `ahead` than it moved from `params`.
        """
        penalties = self.full.l1(hparams)
        return self._vanishing(params, ahead, penalties) or self._appearing(params, ahead, hparams, batch)

    def _vanishing(self, params: Tensors, ahead: Tensors, penalised: Iterable[str]) -> str:
        """Which nonzero entries may be zero at the solution; "" if none."""
        for name in penalised:
            step = (ahead[name] - params[name]).abs()
            least = step + _DEGENERATE * ahead[name].abs().amax() if len(step) else step
            unsure = int((ahead[name] * self.signs[name] <= least).sum())
            if unsure:
                return f"{unsure} of {len(self.signs[name])} nonzero entries of {name!r} may be zero at the solution"
        return ""

    def _appearing(self, params: Tensors, ahead: Tensors, hparams: Tensors, batch: Any) -> str:
        """Which zeros may not be zero at the solution; "" if none."""
        with torch.no_grad():
            _, before = self.full.smooth_loss_and_gradient(self.whole(params), hparams, batch)
            _, after = self.full.smooth_loss_and_gradient(self.whole(ahead), hparams, batch)
        for name, l1 in self.full.l1(hparams).items():
            off = torch.ones(self.shapes[name].numel(), dtype=torch.bool, device=l1.device)
            off[self.support[name]] = False
            moved = (after[name] - before[name]).abs()
            unsure = (l1 * (1 - _DEGENERATE) - after[name].abs() <= moved).reshape(-1) & off
            if unsure.any():
                return (
                    f"{int(unsure.sum())} of {int(off.sum())} zeros of {name!r} may not be zero at the solution, or "
                    "only on one side of these hyperparameters, so that dF/dλ jumps"
                )
        return ""
