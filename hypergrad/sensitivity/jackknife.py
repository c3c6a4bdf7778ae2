"""The infinitesimal jackknife: how the optimum depends on each training example."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.validation import require_instance, require_int, require_real
from hypergrad.linsolve.auto import Auto
from hypergrad.linsolve.base import LinearSolver
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.distributed.data_parallel import DataParallel
from hypergrad.problem.supervised.supervised import Supervised
from hypergrad.sensitivity.inner import Inner
from hypergrad.sensitivity.optimum import Optimum
from hypergrad.sensitivity.weighted_fit import WeightedFit


@dataclass(frozen=True, kw_only=True)
class InfinitesimalJackknife:
    """w*(ω) by its Taylor series in the weights ω of the training examples, g(w, ω) = Σ_i ω_i ℓ_i(w) + ….

    Leaving example i out means ω_i = 0. So the series around the fit of all examples predicts w*(ω) at the weights of a
    cross-validation or a bootstrap, without a refit.

    The weights are a hyperparameter of the problem. If a `Supervised` has none, all are 1, as in `Supervised.weighted`:
    they multiply the terms of its loss, which keeps its own denominator.

    Attributes:
        order: of the series, ≥ 1.
        weights: the name of the hyperparameter ω, shape (n,).
        linsolve: solves the systems with the Hessian.
        tol: as in `TaylorExpansion`.
        chunk: fits to predict at once at orders above 1, ≥ 1; each needs the memory of several evaluations of the loss.

    Examples:
        >>> y, ones = torch.tensor([1.0, 2.0, 6.0]), torch.ones(3)
        >>> loss = lambda w, weights: (weights * (w - y).square()).sum()
        >>> for order in (1, 2, 8):
        ...     print(hg.InfinitesimalJackknife(order=order).at(loss, y.mean(), ones).leave_out())
        tensor([3.6667, 3.3333, 2.0000])
        tensor([3.8889, 3.4444, 1.6667])
        tensor([3.9998, 3.4999, 1.5002])

    Source: Giordano, Stephenson, Liu, Jordan & Broderick, "A Swiss Army infinitesimal jackknife", AISTATS (2019);
    Giordano, Jordan & Broderick, "A higher-order Swiss Army infinitesimal jackknife" (2019).
    """

    order: int = 1
    weights: str = "weights"
    linsolve: LinearSolver = field(default_factory=lambda: Auto(tol=1e-10, max_iter=1000))
    tol: float | None = None
    chunk: int = 64

    def __post_init__(self) -> None:
        require_int(self, "order", least=1)
        require_int(self, "chunk", least=1)
        require_instance(self, "linsolve", LinearSolver)
        if self.tol is not None:
            require_real(self, "tol", least=0)

    def at(self, inner: Inner, params: Any, hparams: Any, *, inner_step: int = 0) -> WeightedFit:
        """Expand around a fit in weights of shape (n,), one for each example; see `TaylorExpansion.at`.

        Raises:
            ValueError: if there is no hyperparameter of that name with one axis, and the problem is no `Supervised`.

        Also raised, by what it calls: NotOptimalError if the parameters are not the solution; ValueError if a
        `Supervised` draws random numbers in training, or its loss has no term for each example.
        """
        if _is_supervised(inner) and self.weights not in hparams:
            inner = _weighted(inner, self.weights)
            hparams = hparams | {self.weights: torch.ones_like(inner.init_hparams()[self.weights])}
        optimum = Optimum.at(inner, params, hparams, linsolve=self.linsolve, tol=self.tol, inner_step=inner_step)
        weights = optimum.hparams.get(self.weights)
        if weights is None and len(optimum.hparams) == 1 and isinstance(hparams, Tensor):
            name, weights = next(iter(optimum.hparams.items()))
        else:
            name = self.weights
        if weights is None or weights.ndim != 1:
            met = {name: tuple(value.shape) for name, value in optimum.hparams.items()}
            raise ValueError(
                f"InfinitesimalJackknife needs a hyperparameter {self.weights!r} of shape (n,), one weight for each "
                f"example, but the hyperparameters are {met}. Give its name as weights=…."
            )
        return WeightedFit(optimum, name, self.order, self.chunk)


def _is_supervised(inner: Any) -> bool:
    """Whether it is a `Supervised`, also one that several processes share."""
    return isinstance(inner.problem if isinstance(inner, DataParallel) else inner, Supervised)


def _weighted(inner: Any, name: str) -> InnerProblem:
    """The same with a weight for each example."""
    if not isinstance(inner, DataParallel):
        return inner.weighted(name)
    whole: Any = inner.problem
    return inner.around(whole.weighted(name))
