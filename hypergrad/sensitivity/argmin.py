"""The optimum as a function of the hyperparameters, differentiable to any order in any mode."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import base_of, flatten, unflatten
from hypergrad.core.structure import by_name
from hypergrad.linsolve.auto import Auto
from hypergrad.linsolve.base import LinearSolver
from hypergrad.sensitivity.inner import Inner
from hypergrad.sensitivity.newton import newton
from hypergrad.sensitivity.optimum import Optimum
from hypergrad.sensitivity.transforms import (
    Inverse,
    Solved,
    differentiations,
    limited_zero,
)
from hypergrad.taylor.elementary import Elementary

_LARGEST_DENSE = 2000
"""Parameters up to which the inverse is formed. A judgement: 32 MB in float64, about a second."""


def argmin(
    inner: Inner,
    params: Any,
    hparams: Any,
    *,
    at: str = "raise",
    order: int = 1,
    linsolve: LinearSolver = Auto(tol=1e-10, max_iter=1000),  # noqa: B008 (it is frozen)
    tol: float | None = None,
    inner_step: int = 0,
) -> "Argmin":
    """λ ↦ w*(λ), differentiable by `torch.autograd` and every transform of `torch.func`, in any nesting.

    From the solution w₀, outside any graph, it makes k chord steps w ← w − (∂φ/∂w)⁻¹ φ(w, λ) with one fixed factor. The
    value does not move, and each step makes one more order of derivative exact. There is one step for each active
    transform of `torch.func`, and `order` more for `torch.autograd`, which does not announce how often it will
    differentiate.

    Args:
        inner: an inner problem, a loss g(w, λ), or `Root(φ)`.
        params: w₀ = w*(λ₀), in the structure that the inner problem or function expects; not changed.
        hparams: λ₀; not changed.
        at: what to do at another λ, also under `vmap`: "raise" refuses, "resolve" solves φ(w, λ) = 0 by
            Newton's method from w₀.
        order: highest derivative by `torch.autograd` (`backward`, `grad`), ≥ 0; a higher one is refused.
        linsolve: solves the systems with ∂φ/∂w; up to 2000 parameters the inverse is formed once.
        tol: as in `TaylorExpansion`.
        inner_step: the step whose batch is used.

    Returns:
        The function from λ to w, in the structures given here.

    Raises:
        ValueError: if `at`, `order` or `tol` is none of the above.
        TypeError: if `linsolve` is no linear solver.

    Also raised, by what it calls: NotOptimalError if φ(w₀, λ₀) is not zero.

    Examples:
        >>> a, λ = torch.tensor([1.0, 2.0]), torch.tensor(1.0, requires_grad=True)
        >>> loss = lambda w, λ: (w - a).square().sum() + λ * w.square().sum()
        >>> solution = hg.argmin(loss, a / 2, λ.detach())  # λ ↦ a / (1 + λ)
        >>> torch.autograd.grad(solution(λ).sum(), λ)
        (tensor(-0.7500),)
    """
    if at not in ("raise", "resolve"):
        raise ValueError(f'argmin\'s at must be "raise" or "resolve", but it is {at!r}.')
    if isinstance(order, bool) or not isinstance(order, int) or order < 0:
        raise ValueError(f"argmin's order must be an integer ≥ 0, but it is {order!r}.")
    if not isinstance(linsolve, LinearSolver):
        raise TypeError(f"argmin's linsolve must be a LinearSolver, such as hg.CG(), but it is {linsolve!r}.")
    if tol is not None and (isinstance(tol, bool) or not isinstance(tol, int | float) or not tol >= 0):
        raise ValueError(f"argmin's tol must be a number ≥ 0 or None, but it is {tol!r}.")
    optimum = Optimum.at(inner, params, hparams, linsolve=linsolve, tol=tol, inner_step=inner_step)
    return Argmin(optimum, at == "resolve", order, tol)


@dataclass(frozen=True)
class Argmin:
    """See `argmin`.

    Attributes:
        optimum: w₀ and λ₀.
        resolves: whether it solves for another λ.
        order: highest derivative by `torch.autograd`.
        tol: of the optimality condition.
    """

    optimum: Optimum
    resolves: bool
    order: int
    tol: float | None

    def __call__(self, hparams: Any) -> Any:
        """w*(λ).

        Raises:
            ValueError: if λ is not shaped as λ₀, or differs from it and `resolves` is false.
        """
        named, _ = by_name("hparams", hparams)
        if len(named) == 1 and len(self.optimum.hparams) == 1:
            named = {next(iter(self.optimum.hparams)): next(iter(named.values()))}
        wanted = {name: tuple(value.shape) for name, value in self.optimum.hparams.items()}
        met = {name: tuple(value.shape) for name, value in named.items()}
        if met != wanted:
            raise ValueError(f"argmin was made for hyperparameters of shapes {wanted}, but it was given {met}.")
        flat = flatten({name: named[name] for name in wanted})
        num_steps = differentiations()
        base = base_of(flat)
        if base.requires_grad and torch.is_grad_enabled():
            num_steps += self.order
            flat = flat + limited_zero(base, self.order)
        return self.optimum.to_params(unflatten(self._at(flat, num_steps), self.optimum.params))

    def _at(self, flat: Tensor, num_steps: int) -> Tensor:
        optimum = self.optimum
        if flatten(optimum.params).numel() <= _LARGEST_DENSE:
            w, inverse = Solved.apply(flat, self._solution_and_inverse)  # type: ignore[misc]
            for _ in range(num_steps):
                w = w - inverse @ self._phi(w, flat)
            return w
        return self._matrix_free(flat, num_steps)

    def _matrix_free(self, flat: Tensor, num_steps: int) -> Tensor:
        """The chord steps by iterative solves; each λ of a batch has its own."""
        found: list[Optimum] = []

        def solution(flat: Tensor) -> tuple[Tensor, Tensor]:
            found.append(self._optimum_at(flat))
            return flatten(found[-1].params), torch.tensor(len(found) - 1, device=flat.device)

        w, which = Solved.apply(flat, solution)  # type: ignore[misc]
        for _ in range(num_steps):
            w = w - Inverse.apply(self._phi(w, flat), which, found, False)  # type: ignore[operator]
        return w

    def _phi(self, w: Tensor, flat: Tensor) -> Tensor:
        """φ(w, λ) by functions that `torch.func` can transform again."""
        condition, hparams = self.optimum.condition, unflatten(flat, self.optimum.hparams)

        def objective(w: Tensor) -> Tensor:
            return condition.problem.inner_loss(unflatten(w, condition.like), hparams, condition.batch)

        with Elementary():
            if condition.problem.is_minimisation:
                return torch.func.grad(objective)(w)
            return flatten(condition.problem.optimality(unflatten(w, condition.like), hparams, condition.batch))

    def _solution_and_inverse(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """w*(λ), shape (n,), and (∂φ/∂w)⁻¹ there, shape (n, n), at a λ that no transform wraps."""
        optimum = self._optimum_at(flat)
        w = flatten(optimum.params)
        return w, optimum.solve(torch.eye(len(w), dtype=w.dtype, device=w.device))

    def _optimum_at(self, flat: Tensor) -> Optimum:
        here = self.optimum
        away = torch.linalg.vector_norm(flat - flatten(here.hparams)).item()
        size = max(1.0, torch.linalg.vector_norm(flatten(here.hparams)).item())
        if away <= torch.finfo(flat.dtype).eps ** 0.5 * size:
            return here
        if not self.resolves:
            raise ValueError(
                f"argmin knows the solution only at λ₀, but it was evaluated {away:.2e} away from it. Evaluate it at "
                'λ₀, make it with at="resolve", or predict with TaylorExpansion.'
            )
        return newton(here, unflatten(flat, here.hparams), self.tol)
