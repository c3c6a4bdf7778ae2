"""The forms of an inner problem, and the check that a point solves it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten
from hypergrad.core.errors import NotOptimalError
from hypergrad.core.structure import by_name
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.function_problem import FunctionProblem, RootProblem
from hypergrad.problem.returned import require_scalar
from hypergrad.product.base import Stationarity


@dataclass(frozen=True)
class Root:
    """An inner problem φ(w, λ) = 0; a plain function g(w, λ) is minimised instead.

    Attributes:
        phi: φ, a function of w and λ in the caller's structures; its value has the structure and the shapes of w.
    """

    phi: Callable[[Any, Any], Any]


Inner = InnerProblem | Root | Callable[[Any, Any], Tensor]
"""An inner problem; a loss g(w, λ), shape (), to be minimised; or a condition φ(w, λ) = 0."""


def as_problem(
    inner: Inner,
    params: Tensors,
    hparams: Tensors,
    to_params: Callable[[Tensors], Any],
    to_hparams: Callable[[Tensors], Any],
) -> InnerProblem:
    """The inner problem on named tensors; `to_params` and `to_hparams` lead to the caller's structures.

    Raises:
        TypeError: if it is neither a problem nor a function.
    """
    if isinstance(inner, InnerProblem):
        return inner
    if isinstance(inner, Root):
        phi = inner.phi
        named = lambda w, hp: by_name("params", phi(to_params(w), to_hparams(hp)))[0]  # noqa: E731
        return RootProblem(named, params, hparams)
    loss = inner
    if isinstance(loss, type) or not callable(loss):
        raise TypeError(
            f"The inner problem must be an InnerProblem, a loss g(w, λ) or hg.Root(φ), but it is {loss!r}; of a class, "
            "make an object."
        )
    given = lambda w, hp: require_scalar(loss(to_params(w), to_hparams(hp)), "The inner loss")  # noqa: E731
    return FunctionProblem(given, given, params, hparams)


def require_optimal(stationarity: Stationarity, params: Tensors, tol: float | None) -> None:
    """Require that φ is zero to the tolerance; see `Optimum.at`.

    Raises:
        NotOptimalError: if it is not.
    """
    phi, w = stationarity.phi, flatten(params)
    size = torch.linalg.vector_norm(w)
    unit = w / size if size > 0 else torch.full_like(w, len(w) ** -0.5)
    scale = torch.linalg.vector_norm(stationarity.product(unit)).item() * max(size.item(), 1.0)
    met = torch.linalg.vector_norm(phi).item()
    allowed = (torch.finfo(w.dtype).eps ** 0.375 if tol is None else tol) * scale
    if met > allowed:
        raise NotOptimalError(
            f"The parameters must solve the inner problem, but the optimality condition has norm ‖φ(w, λ)‖ = {met:.2e} "
            f"there, and the tolerance is {allowed:.2e}. Train further, with the same λ and data, or raise `tol` "
            "if an expansion around a point near the optimum will do."
        )
