"""Problems with an L1 penalty: optimality condition and support, from a smooth loss and the penalties."""

from typing import Any

import torch

from hypergrad.core.autodiff import Tensors, base_of
from hypergrad.problem.base import Restriction
from hypergrad.problem.sparse.base import Penalized, soft_threshold
from hypergrad.problem.sparse.support import OnSupport


class L1Problem(Penalized):
    """A problem with an L1 penalty, which makes the solution sparse: g(w, λ) = s(w, λ) + Σ_j l1_j |w_j|, with s smooth.

    For convex s, w with the support S = {j : w_j ≠ 0} is a solution if and only if

        ∇_S s + l1_S sign(w_S) = 0    and    |∇_j s| ≤ l1_j for j ∉ S.

    If the second condition holds strictly, S and the signs do not change for small changes of λ. Then ∂w*_j/∂λ = 0 off
    the support, and w*_S is the solution of a smooth problem in |S| parameters, which implicit estimators use. If it
    holds with equality, F has different derivatives to the left and to the right, and the error estimate is unknown.

    A subclass defines `smooth_loss`, `l1`, and everything that a problem defines except `inner_loss`.

    Source: Bertrand, Klopfenstein, Blondel, Vaiter, Gramfort & Salmon, "Implicit differentiation of Lasso-type models
    for hyperparameter optimization", ICML (2020).
    """

    def optimality(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensors:
        """The subgradient of g with the smallest norm.

        φ_j = ∇_j s + l1_j sign(w_j) if w_j ≠ 0, and soft(∇_j s, l1_j) + w_j if w_j = 0. There the last term is zero,
        but gives the Jacobian a row of the identity, so that it is regular, though not symmetric. The proximal residual
        w − prox(w − ∇s) vanishes at the same w, but it is only as large as w_j in a coordinate that should be zero.

        Raises:
            ValueError: if a penalty is negative or NaN.
        """
        _, phi = self.smooth_loss_and_gradient(params, hparams, batch)
        for name, l1 in self.l1(hparams).items():
            known = base_of(l1)
            if not (known >= 0).all():
                raise ValueError(
                    f"The L1 penalty of {name!r} must be at least 0, but its smallest is {known.min().item():.3g}; "
                    "give the hyperparameter the constraint hg.positive."
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
        """The smooth problem in the entries at `support` of each flat parameter; override it for a faster one."""
        return OnSupport(self, params, support)
