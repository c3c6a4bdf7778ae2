"""One hypergradient at a solution that the caller has computed, from two plain functions."""

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from hypergrad.core.autodiff import flatten
from hypergrad.core.errors import NotConvergedWarning
from hypergrad.core.structure import by_name
from hypergrad.estimator.base import Hypergradient
from hypergrad.estimator.implicit import Implicit
from hypergrad.linsolve.base import LinearSolver
from hypergrad.linsolve.cg import CG
from hypergrad.problem.function_problem import FunctionProblem

P = TypeVar("P")
H = TypeVar("H")


def hypergradient(
    inner_loss: Callable[[P, H], Tensor],
    outer_loss: Callable[[P, H], Tensor],
    params: P,
    hparams: H,
    *,
    linsolve: LinearSolver = CG(),  # noqa: B008 (it is frozen)
    damping: float = 0.0,
) -> Hypergradient[H, P]:
    """dF/dλ by the implicit function theorem, for users who train with their own loop.

    `params` must solve the inner problem at `hparams`. There is no training here, and the error grows with
    ‖∇_w g(w, λ)‖, which is `stats["inner_grad_norm"]`. Each of the two is a tensor, a list or tuple of tensors, or a
    dict of tensors by name. The losses are called with that structure, and `grad` and `params` are returned in it.

    Args:
        inner_loss: the training loss g(w, λ), shape (); it must compute from its arguments, as
            `torch.func.functional_call` does with the parameters of a module.
        outer_loss: the dev loss f(w, λ), shape ().
        params: w; not changed, and no `.grad` is written.
        hparams: λ in natural units; not changed, and no `.grad` is written.
        linsolve: how the adjoint system is solved.
        damping: δ ≥ 0, in units of the Hessian; solves with the Hessian plus δI, which biases the hypergradient.

    Returns:
        The hypergradient and its statistics; "not converged" is a status in them. There is a NotConvergedWarning if the
        error estimate exceeds the norm of the hypergradient, for example because w is not a solution. Errors name the
        entries of a list by their index, and a single tensor "params" or "hparams".

    Also raised, by what it calls: TypeError if an argument is no such structure of floating-point tensors, or a loss is
    not a tensor; ValueError if a structure is empty, or a loss is not a scalar or depends on none of its arguments;
    NonFiniteError if a loss, gradient or product is NaN or infinite; IndefiniteError if a linear solver that needs a
    positive definite Hessian meets another one; UnusedHyperparameterError if the estimate could not depend on a
    hyperparameter.
    """
    w, to_params = by_name("params", params)
    hp, to_hparams = by_name("hparams", hparams)
    problem = FunctionProblem(
        lambda w, hp: inner_loss(to_params(w), to_hparams(hp)),
        lambda w, hp: outer_loss(to_params(w), to_hparams(hp)),
        w,
        hp,
    )
    found = Implicit(linsolve=linsolve, inner_steps=0, damping=damping).estimate(problem, hp, w)
    _warn_of_error(found)
    return Hypergradient(
        to_hparams(found.grad),
        to_params(found.params),
        found.outer_loss,
        training=found.training,
        adjoint_system=found.adjoint_system,
        error_bar=found.error_bar,
    )


def _warn_of_error(found: Hypergradient) -> None:
    """Warn if the error estimate exceeds the norm of the hypergradient."""
    assert found.error_bar is not None  # by the default of Implicit, as is the report on training
    assert found.training is not None
    error, norm = found.error_bar.estimate, torch.linalg.vector_norm(flatten(found.grad)).item()
    if error > norm:
        warnings.warn(
            f"The hypergradient may be wrong: its norm is {norm:.2e} and its error estimate {error:.2e}, at a "
            f"‖∇_w g‖ of {found.training.grad_norm:.2e}. Solve the inner problem further, or use less damping.",
            NotConvergedWarning,
            stacklevel=3,
        )
