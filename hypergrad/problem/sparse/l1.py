"""Problems with an L1 penalty: what follows from a smooth loss and the penalties."""

from typing import Any

import torch

from hypergrad.core.autodiff import Tensors
from hypergrad.problem.base import Restriction
from hypergrad.problem.sparse.base import Penalized, soft_threshold
from hypergrad.problem.sparse.support import OnSupport


class L1Problem(Penalized):
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
