"""The promise of a problem with an L1 penalty: a smooth loss, the penalties, and what follows from them."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from hypergrad.autodiff import Tensors, value_and_gradient
from hypergrad.problem.base import InnerProblem, Restriction, require_scalar
from hypergrad.problem.support import OnSupport


class L1Problem(InnerProblem):
    """A problem of which the L1 penalty makes the solution sparse: g(w, λ) = s(w, λ) + Σ_j l1_j |w_j|, with s smooth.

    w is a solution, for convex s, exactly where with its support S = {j : w_j ≠ 0}

        ∇_S s + l1_S sign(w_S) = 0    and    |∇_j s| ≤ l1_j for j ∉ S.

    Where the second holds strictly, S and the signs stay as λ moves a little: ∂w*_j/∂λ = 0 off the support, and w*_S
    is the solution of a smooth problem in |S| parameters, in which implicit estimators work. Where it holds with
    equality, F has one derivative to the left and another to the right; the error of the estimate is then unknown.

    A subclass gives `smooth_loss`, `l1`, and what every problem gives except `inner_loss`.

    Source: Bertrand, Klopfenstein, Blondel, Vaiter, Gramfort & Salmon, "Implicit differentiation of Lasso-type models
    for hyperparameter optimization", ICML (2020).
    """

    @abstractmethod
    def smooth_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        """The smooth part s(w, λ) of the training loss, shape ()."""

    @abstractmethod
    def l1(self, hparams: Tensors) -> Tensors:
        """The penalties l1 ≥ 0 by the names of the parameters that they are for, each of a shape that expands to it."""

    def smoothness(self, hparams: Tensors) -> Tensor | None:
        """An upper bound, shape (), of the largest eigenvalue of ∇²s at any w; None where none is known."""
        return None

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        penalties = [(l1 * params[name].abs()).sum() for name, l1 in self.l1(hparams).items()]
        return sum(penalties, start=self.smooth_loss(params, hparams, batch))

    def smooth_loss_and_gradient(self, params: Tensors, hparams: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
        """s(w, λ) and ∇_w s(w, λ), differentiable where grad mode is enabled."""
        name = f"{type(self).__name__}.smooth_loss"
        return value_and_gradient(lambda w: require_scalar(self.smooth_loss(w, hparams, batch), name), params, name)

    def optimality(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensors:
        """The subgradient of g of the smallest norm.

        φ_j = ∇_j s + l1_j sign(w_j) where w_j ≠ 0, and soft(∇_j s, l1_j) + w_j where w_j = 0: there the last term is
        zero, and gives the Jacobian a row of the identity, so that it is regular, though not symmetric. A proximal
        residual w − prox(w − ∇s) vanishes at the same w, but is as small as w_j in a wrong coordinate.

        Raises:
            ValueError: if a penalty is negative or NaN.
        """
        _, phi = self.smooth_loss_and_gradient(params, hparams, batch)
        for name, l1 in self.l1(hparams).items():
            if not (l1 >= 0).all():
                raise ValueError(
                    f"The L1 penalty of {name!r} must be at least 0, but its smallest is {l1.min().item():.3g}."
                )
            w, grad = params[name], phi[name]
            phi[name] = torch.where(w != 0, grad + l1 * w.sign(), soft_threshold(grad, l1) + w)
        return phi

    def prox(self, params: Tensors, hparams: Tensors, lr: float | Tensor) -> Tensors:
        """argmin_z ½ ‖z − w‖² + lr Σ_j l1_j |z_j|: w moved towards zero by lr l1, and exactly zero if it gets there."""
        return params | {name: soft_threshold(params[name], lr * l1) for name, l1 in self.l1(hparams).items()}

    @property
    def is_smooth(self) -> bool:
        return False

    def restriction(self, params: Tensors, hparams: Tensors) -> Restriction:
        penalised = self.l1(hparams)
        support, offset, index = {}, 0, []
        for name, w in params.items():
            moves = w.reshape(-1) != 0 if name in penalised else torch.ones_like(w, dtype=torch.bool).reshape(-1)
            support[name] = moves.nonzero().reshape(-1)
            index.append(support[name] + offset)
            offset += w.numel()
        kept = {name: w.detach().reshape(-1)[support[name]] for name, w in params.items()}
        return Restriction(self.on_support(params, support), kept, offset, torch.cat(index))

    def on_support(self, params: Tensors, support: Tensors) -> OnSupport:
        """The smooth problem in the entries at `support` of each flat parameter; override it for a cheaper one."""
        return OnSupport(self, params, support)


def soft_threshold(x: Tensor, threshold: Tensor) -> Tensor:
    """sign(x) max(|x| − threshold, 0), zero exactly where |x| ≤ threshold ≥ 0."""
    return x - x.clamp(-threshold, threshold)
