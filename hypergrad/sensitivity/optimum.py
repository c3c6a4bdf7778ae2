"""A solution w*(λ₀) of an inner problem, and what all of its derivatives share."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, detach, flatten, leaves, unflatten, vjp
from hypergrad.core.errors import NotConvergedWarning
from hypergrad.core.operator import Operator
from hypergrad.core.structure import by_name
from hypergrad.linsolve.base import LinearSolution, LinearSolver
from hypergrad.problem.oracle import Oracle
from hypergrad.product.base import Stationarity
from hypergrad.product.reverse import Reverse
from hypergrad.sensitivity.condition import Condition, require_finite_coefficients
from hypergrad.sensitivity.inner import Inner, as_problem, require_optimal


@dataclass(frozen=True)
class Optimum:
    """w₀ = w*(λ₀), where φ(w₀, λ₀) = 0.

    Attributes:
        condition: φ.
        params: w₀ by name.
        hparams: λ₀ by name.
        stationarity: φ, linearised there.
        linsolve: solves the systems with ∂φ/∂w.
        inner: the inner problem as the caller gave it.
        to_params: from named tensors to the caller's structure, for w.
        to_hparams: the same for λ.
    """

    condition: Condition
    params: Tensors
    hparams: Tensors
    stationarity: Stationarity
    linsolve: LinearSolver
    inner: Inner
    to_params: Callable[[Tensors], Any]
    to_hparams: Callable[[Tensors], Any]

    @classmethod
    def at(
        cls, inner: Inner, params: Any, hparams: Any, *, linsolve: LinearSolver, tol: float | None, inner_step: int = 0
    ) -> "Optimum":
        """The optimum of `inner` at `hparams`.

        Args:
            inner: the inner problem.
            params: its solution, in the structure that the inner problem or function expects; not changed.
            hparams: λ₀; not changed.
            linsolve: solves the systems with ∂φ/∂w.
            tol: largest ‖φ‖ relative to that at a point one unit of length (or ‖w‖, if larger) away, to first order;
                None means ε^⅜ of the dtype, 1.3e-6 in float64, 2.5e-3 in float32.
            inner_step: the step whose batch is used.

        Returns:
            The optimum.

        Also raised, by what it calls: NotOptimalError if φ is not zero there.
        """
        w, to_params = by_name("params", params)
        hp, to_hparams = by_name("hparams", hparams)
        w, hp = detach(w), detach(hp)
        problem = as_problem(inner, w, hp, to_params, to_hparams)
        batch = problem.inner_batch(inner_step)
        stationarity = Reverse().linearize(Oracle(problem, hp, batch), w)
        require_optimal(stationarity, w, tol)
        return cls(Condition(problem, batch, w), w, hp, stationarity, linsolve, inner, to_params, to_hparams)

    @cached_property
    def inverse(self) -> Callable[[Tensor], LinearSolution]:
        """b ↦ (∂φ/∂w)⁻¹ b, with one factorisation or preconditioner for all derivatives."""
        product = self.stationarity.product
        return self.linsolve.inverse(product if product.symmetric else self._forward(), self.stationarity.phi)

    @cached_property
    def adjoint_inverse(self) -> Callable[[Tensor], LinearSolution]:
        """b ↦ (∂φ/∂w)⁻ᵀ b."""
        product = self.stationarity.product
        return self.inverse if product.symmetric else self.linsolve.inverse(product, self.stationarity.phi)

    def solve(self, b: Tensor, *, adjoint: bool = False) -> Tensor:
        """(∂φ/∂w)⁻¹ b, or (∂φ/∂w)⁻ᵀ b, for b of shape (n,) or (n, k); it warns if the solver does not converge."""
        solved = (self.adjoint_inverse if adjoint else self.inverse)(b)
        if not solved.converged:
            warnings.warn(
                f"A linear system with ∂φ/∂w was left at a relative residual of {solved.residual:.1e} "
                f"({solved.status}); raise max_iter or tol of {type(self.linsolve).__name__}.",
                NotConvergedWarning,
                stacklevel=4,
            )
        return solved.x

    def terms(self, direction: Tensors, order: int) -> list[Tensor]:
        """The terms w₁, …, w_K of the Taylor series along δ by name, each of shape (n,) or (m, n).

        Also raised, by what it calls: NonFiniteError if one is NaN or infinite.
        """

        def solve(rest: Tensor) -> Tensor:
            require_finite_coefficients(rest)
            return self.solve(rest) if rest.ndim == 1 else self.solve(rest.T).T

        return self.condition.path(flatten(self.params), self.hparams, direction, order, solve)

    def direction(self, given: Any) -> Tensors:
        """A direction δ, or several along a first axis, by name.

        Raises:
            ValueError: if it is not shaped as λ.
        """
        named, _ = by_name("direction", given)
        if len(self.hparams) == 1 and len(named) == 1:  # a single tensor's name is that of the argument
            named = dict(zip(self.hparams, named.values(), strict=True))
        if not _is_shaped_as(self.hparams, named):
            shapes, met = ({name: tuple(x.shape) for name, x in xs.items()} for xs in (self.hparams, named))
            raise ValueError(
                f"A direction must have the shapes of the hyperparameters, {shapes}, or one more axis in front for "
                f"several at once, but it has {met}."
            )
        return {name: named[name].detach().to(value) for name, value in self.hparams.items()}

    def unflattened(self, rows: Tensor) -> Tensors:
        """m directions in flat λ, shape (m, d), by name."""
        pieces = zip(self.hparams.items(), rows.split([x.numel() for x in self.hparams.values()], dim=1), strict=True)
        return {name: piece.reshape(-1, *x.shape) for (name, x), piece in pieces}

    def _forward(self) -> Operator:
        """v ↦ (∂φ/∂w) v, the derivative of the linear u ↦ (∂φ/∂w)ᵀ u."""
        condition = self.condition
        w = leaves(self.params)
        with torch.enable_grad():
            phi = flatten(Oracle(condition.problem, self.hparams, condition.batch).optimality(w))
            u = torch.zeros_like(phi).requires_grad_()
            pulled = torch.autograd.grad(
                phi, tuple(w.values()), u, create_graph=True, allow_unused=True, materialize_grads=True
            )
            forward = vjp(flatten(dict(zip(w, pulled, strict=True))), {"u": u})
        return Operator(forward, forward, symmetric=False, dtype=phi.dtype)

    def shaped(self, flat: Tensor) -> Any:
        """A vector of shape (n,), or m of them in (m, n), in the caller's structure of w."""
        if flat.ndim == 1:
            return self.to_params(unflatten(flat, self.params))
        pieces = flat.split([p.numel() for p in self.params.values()], dim=1)
        named = zip(self.params.items(), pieces, strict=True)
        return self.to_params({name: piece.reshape(-1, *p.shape) for (name, p), piece in named})


def _is_shaped_as(like: Tensors, given: Tensors) -> bool:
    """Whether all tensors have the shapes of `like`, or all have the same axis in front, of at least one entry."""
    if given.keys() != like.keys():
        return False
    pairs = [(given[name].shape, x.shape) for name, x in like.items()]
    in_front = {met[: len(met) - len(shape)] for met, shape in pairs}
    if (0,) in in_front:
        return False
    return all(met[len(met) - len(shape) :] == shape for met, shape in pairs) and in_front in ({()}, {pairs[0][0][:1]})
