"""K-FAC and EK-FAC, as solvers and as preconditioners."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import ClassVar

import torch
from torch import Tensor

from hypergrad.core.kronecker import KroneckerSettings, Layer
from hypergrad.core.operator import CannotApproximateError, Matvec, Operator
from hypergrad.core.status import Status
from hypergrad.core.validation import require_instance, require_int, require_real
from hypergrad.linsolve.base import LinearSolution, LinearSolver, Preconditioner
from hypergrad.linsolve.jacobi import Jacobi
from hypergrad.linsolve.krylov import norm

_FISHERS = ("type-2", "mc", "empirical")
_APPROXIMATIONS = ("expand", "reduce")
_OF_LARGEST = 0.1
"""Part of the largest eigenvalue that damps a preconditioner. Measured on problem (c) of benchmarks.implicit, where it
is 6.8: CG needs 61 products, and with EK-FAC more than 80, 60, 53, 49 and 54 for a damping of 0, 0.1, 0.3, 1 and 3."""
_PROBES = 2
"""Products for the diagonal of what has no Kronecker factors, as in `Auto`."""


@dataclass(frozen=True, kw_only=True)
class KFAC(LinearSolver, Preconditioner):
    """x = M⁻¹ b with M ≈ A block-diagonal by layers, each block a Kronecker product of two small matrices.

    The block of a linear or convolutional layer is the mean of ∂z/∂θᵀ (∂²ℓ/∂z²) ∂z/∂θ over examples, in which the
    second moments of the layer's inputs and of the gradients by its outputs are taken as independent. Penalties and the
    damping of A are added in the eigenbasis of the block. Other parameters have the diagonal of A, estimated from two
    products; see docs/kfac.md. As a preconditioner of `CG` it changes only the way to the solution of A x = b. As a
    solver it makes no iterations: one product gives the residual, and the status is "max_iter" unless it is ≤ tol. It
    serves `Supervised` problems, and requires the package curvlinops (`torch-hypergrad[curvature]`).

    Attributes:
        damping: δ ≥ 0, added to M alone, in units of A. None takes a tenth of the mean eigenvalue of each layer, and
            for a preconditioner a tenth of the largest eigenvalue of all.
        heuristic: whether to damp the two factors instead of their product.
        fisher: ∂²ℓ/∂z² exactly ("type-2", a backward pass for each output), by targets drawn from the model ("mc", one
            pass), or by the targets of the data ("empirical", one pass).
        approximation: for layers applied at several places, such as convolutions, "expand" or "reduce".
        num_batches: inner batches that the factors are made from, ≥ 1.
        refresh: outer steps for which factors are used before new ones are made, ≥ 1.
        tol: the solution counts as converged if ‖b − A x‖ ≤ tol ‖b‖ (dimensionless), ≥ 0.

    Source: Martens & Grosse, "Optimizing neural networks with Kronecker-factored approximate curvature", ICML (2015);
    Eschenhagen, Immer, Turner, Schneider & Hennig, "Kronecker-factored approximate curvature for modern neural network
    architectures", NeurIPS (2023).
    """

    takes_columns: ClassVar[bool] = True
    corrected: ClassVar[bool] = False
    damping: float | None = None
    heuristic: bool = False
    fisher: str = "type-2"
    approximation: str = "expand"
    num_batches: int = 1
    refresh: int = 1
    tol: float = 1e-6

    def __post_init__(self) -> None:
        if self.damping is not None:
            require_real(self, "damping", least=0)
        require_instance(self, "heuristic", bool)
        for name, values in (("fisher", _FISHERS), ("approximation", _APPROXIMATIONS)):
            if getattr(self, name) not in values:
                raise ValueError(
                    f"{type(self).__name__}.{name} must be one of {', '.join(values)}, but it is "
                    f"{getattr(self, name)!r}."
                )
        require_int(self, "num_batches", least=1)
        require_int(self, "refresh", least=1)
        require_real(self, "tol", least=0)

    def solve_unit(self, A: Operator, b: Tensor, x0: Tensor | None) -> LinearSolution:
        inverse, spent = self.made(A, b if b.ndim == 1 else b[:, 0], preconditions=False)
        found = _Made(inverse, type(self).__name__, self.tol).solve_unit(A, b, None)
        return replace(found, num_matvecs=found.num_matvecs + spent)

    def inverse(self, matvec: Matvec, like: Tensor) -> Callable[[Tensor], LinearSolution]:
        A = Operator.of(matvec)
        inverse, _ = self.made(A, like, preconditions=False)
        return partial(_Made(inverse, type(self).__name__, self.tol).solve, A)

    def prepare(self, A: Operator, like: Tensor) -> tuple[Matvec, int]:
        """As promised.

        Also raised, by what it calls: ValueError if nothing is known of the layers of A; IndefiniteError if a layer's
        block is singular, or the mean curvature of the other parameters is not positive; NonFiniteError if a factor is
        NaN or infinite; ImportError if curvlinops is not installed.
        """
        return self.made(A, like, preconditions=True)

    def made(self, A: Operator, like: Tensor, *, preconditions: bool, layers_only: bool = False) -> tuple[Matvec, int]:
        """v ↦ M⁻¹ v, and the products with A spent on it.

        Args:
            A: the operator.
            like: a vector of its dtype, shape (n,).
            preconditions: chooses a damping that is None.
            layers_only: whether M⁻¹ v is 0 where there are no Kronecker factors; a warning says how much that is.
        """
        layers = self._damped(self._layers(A), A, like, preconditions=preconditions)
        rest = _outside(layers, A.shapes or ())
        if rest and layers_only:
            left_out = sum(math.prod(shape) for _, shape in rest)
            warnings.warn(
                f"{type(self).__name__} leaves out {left_out} of {len(like)} parameters, in {len(rest)} tensors "
                "that are not of linear or convolutional layers; layers_only=False counts them by a diagonal.",
                UserWarning,
                stacklevel=2,
            )
        if not rest or layers_only:
            return lambda v: _solved_by_layers(layers, v, torch.zeros_like(v)), 0
        index = torch.cat([torch.arange(start, start + math.prod(shape)) for start, shape in rest]).to(like.device)

        def within(v: Tensor) -> Tensor:
            return A(torch.zeros_like(like).index_copy_(0, index, v))[index]

        block = Operator(within, shapes=tuple(shape for _, shape in rest), dtype=like.dtype)
        found = Jacobi(num_probes=_PROBES, per="slice").diagonal(block, like[index])
        others = torch.ones_like(like).index_copy_(0, index, found + (self.damping or 0.0))
        return lambda v: _solved_by_layers(layers, v, v / others), _PROBES

    def _layers(self, A: Operator) -> list[Layer]:
        """The layers without penalties and damping.

        Raises:
            ValueError: if nothing is known of the layers of A.
        """
        name = type(self).__name__
        if A.kronecker is None or A.shapes is None:
            raise ValueError(
                f"{name} needs the layers of a network, which hg.Supervised and its kin know of their model, but "
                "nothing is known here but products. Use hg.CG (linsolve=cg) or hg.Auto (linsolve=auto)."
            )
        settings = KroneckerSettings(self.corrected, self.fisher, self.approximation, self.num_batches, self.refresh)
        try:
            return A.kronecker.factors(settings)
        except CannotApproximateError as reason:
            raise ValueError(
                f"{name} cannot serve this problem: {reason}. Use hg.CG (linsolve=cg) or hg.Auto (linsolve=auto)."
            ) from reason

    def _damped(self, layers: list[Layer], A: Operator, like: Tensor, *, preconditions: bool) -> list[Layer]:
        """The layers in the dtype of `like`, with what A is besides and with damping."""
        assert A.kronecker is not None
        diagonal, damping = A.kronecker.diagonal().to(like) + A.kronecker.shift, self.damping
        if damping is None and preconditions:
            damping = _OF_LARGEST * torch.stack([layer.values.max() for layer in layers]).max().item()
        return [layer.to(like).damped(diagonal, damping, heuristic=self.heuristic) for layer in layers]


@dataclass(frozen=True, kw_only=True)
class EKFAC(KFAC):
    """K-FAC whose eigenvalues are corrected: along each pair of eigenvectors, the curvature is that of the examples.

    Nothing is taken as independent there. It needs twice the backward passes of `KFAC`, and outputs of shape (n, k).

    Source: George, Laurent, Bouthillier, Ballas & Vincent, "Fast approximate natural gradient descent in a
    Kronecker-factored eigenbasis", NeurIPS (2018); Grosse et al., "Studying large language model generalization with
    influence functions" (2023), for the damping.
    """

    corrected: ClassVar[bool] = True


@dataclass(frozen=True)
class _Made(LinearSolver):
    """x = M⁻¹ b with a product that was made before."""

    takes_columns: ClassVar[bool] = True
    product: Matvec
    name: str
    tol: float

    def solve_unit(self, A: Operator, b: Tensor, x0: Tensor | None) -> LinearSolution:
        x = self.product(b) if b.ndim == 1 else torch.stack([self.product(column) for column in b.T], dim=1)
        products = 1 if b.ndim == 1 else b.shape[1]
        residual = norm(b - A(x), products)
        status = Status.CONVERGED if residual <= self.tol else Status.MAX_ITER
        return LinearSolution(x, residual, products, status, f"{self.name}'s approximation, without iterations")


def _outside(layers: list[Layer], shapes: tuple[tuple[int, ...], ...]) -> list[tuple[int, tuple[int, ...]]]:
    """Where each tensor without Kronecker factors begins in the flat vector, and its shape."""
    inside = {start for layer in layers for start in (layer.weight, layer.bias)}
    starts = accumulate((math.prod(shape) for shape in shapes), initial=0)
    return [(start, shape) for start, shape in zip(starts, shapes, strict=False) if start not in inside]


def _solved_by_layers(layers: list[Layer], v: Tensor, x: Tensor) -> Tensor:
    """`x` with the entries of the layers replaced by the solutions for v."""
    for layer in layers:
        layer.write(layer.solve(v), x)
    return x
