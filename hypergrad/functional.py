"""One hypergradient at a solution that the caller has computed, from two plain functions."""

import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from hypergrad.core.autodiff import Tensors, flatten
from hypergrad.core.errors import NotConvergedWarning
from hypergrad.core.structure import by_name, numbers_as_tensors
from hypergrad.data.batch import noted
from hypergrad.estimator.base import Hypergradient
from hypergrad.estimator.implicit import Implicit
from hypergrad.estimator.inexact import inexactness
from hypergrad.estimator.sampling import BatchSpread
from hypergrad.linsolve.base import LinearSolver
from hypergrad.linsolve.cg import CG
from hypergrad.model.lent_check import LentLoss
from hypergrad.model.lent_module import LentModule
from hypergrad.problem.function_problem import FunctionProblem
from hypergrad.problem.mean_loss import MeanLoss, require_arguments, require_repeatable
from hypergrad.problem.precision import in_precision, matrix_products, require_parameters, require_precision
from hypergrad.problem.returned import require_scalar
from hypergrad.product.base import Product
from hypergrad.product.differences import CentredDifferences
from hypergrad.product.gauss_newton import GaussNewton
from hypergrad.product.reverse import Reverse

H = TypeVar("H")
_REPORTED: set[str] = set()
"""The reasons for which a warning was given in this process."""


def hypergradient(
    inner_loss: Callable[..., Tensor],
    outer_loss: Callable[..., Tensor],
    params: Any,
    hparams: H,
    *,
    linsolve: LinearSolver = CG(),  # noqa: B008 (it is frozen)
    product: Product = Reverse(),  # noqa: B008
    damping: float = 0.0,
    error_bar: bool = True,
    batches: Iterable[Any] | None = None,
    seed: int = 0,
    precision: str | None = None,
) -> Hypergradient[H, Any]:
    """dF/dλ by the implicit function theorem, for users who train with their own loop.

    `params` must solve the inner problem at `hparams`. There is no training here, and the error grows with
    ‖∇_w g(w, λ)‖, which is `stats["inner_grad_norm"]`.

    `params` is a module, a tensor, a list or tuple of tensors, or a dict of tensors by name. The losses are called with
    that structure, and `grad` and `params` are returned in it. A module is called by the losses as always, by its
    argument or by any other name. w are its parameters that require a gradient, and `params` in the result is a dict of
    them by name. The module, its buffers, flags and `.grad`, and torch's random state are afterwards what they were.

    A loss must give the same value at each call. If it draws a mini-batch, dropout or other noise, give `batches`.
    Then the losses are called with each batch as a third argument, and what they draw depends on `seed` and the number
    of the batch. The result is the hypergradient of the two mean losses, and `sampling` in it has the standard error.

    Args:
        inner_loss: the training loss g(w, λ), shape (); it must compute from its arguments, as
            `torch.func.functional_call` does with tensors, or from the module.
        outer_loss: the dev loss f(w, λ), shape ().
        params: w; not changed, and no `.grad` is written.
        hparams: λ in natural units; not changed, and no `.grad` is written. It is a tensor or number, a list or tuple,
            or a dict by name. The losses receive a number as a tensor of shape (), and `grad` has a float in its place.
        linsolve: how the adjoint system is solved.
        product: how products with the Hessian are formed.
        damping: δ ≥ 0, in units of the Hessian; solves with the Hessian plus δI, which biases the hypergradient.
        error_bar: whether to estimate the error, which is `stats["error_estimate"]`; it costs about as much again.
        batches: finitely many, such as a DataLoader; read once, and each counts the same. For batches of train and of
            dev data, zip two loaders. The losses of all batches are in memory at once.
        seed: of what the losses draw, with `batches`.
        precision: of the losses and their gradients: "float32", "tf32" or "bf16-mixed", for parameters in float32; None
            leaves them as they are. See docs/precision.md.

    Returns:
        The hypergradient and its statistics; "not converged" is a status in them. There is a NotConvergedWarning, once
        in a process for each reason, if the adjoint system is not solved, if its relative residual exceeds 0.1, if the
        error is unknown, or if its estimate exceeds the norm of the hypergradient. Errors name the entries of a list by
        their index, and a single tensor "params" or "hparams".

    Raises:
        ValueError: if the product needs the outputs of a model, or the precision needs data in another dtype.

    Also raised, by what it calls: TypeError if an argument is no such structure of floating-point tensors, or a loss is
    not a tensor; ValueError if a structure or `batches` is empty, a loss is not a scalar, depends on none of its
    arguments, draws random numbers, or is not a function of the registered parameters of the module; NonFiniteError if
    a loss, gradient or product is NaN or infinite; IndefiniteError if a linear solver that needs a positive definite
    Hessian meets another one; UnusedHyperparameterError if the estimate could not depend on a hyperparameter.

    Examples:
        >>> a, λ = torch.tensor([1.0, 2.0]), torch.tensor(1.0)
        >>> inner = lambda w, λ: (w - a).square().sum() + λ * w.square().sum()
        >>> outer = lambda w, λ: (w - 1).square().sum() / 2
        >>> w = a / (1 + λ)  # the minimum of the inner loss
        >>> hg.hypergradient(inner, outer, w, λ).grad
        tensor(0.1250)
    """
    if isinstance(product, GaussNewton):
        raise ValueError("hypergradient knows no outputs of a model, which GaussNewton needs; use product=Reverse().")
    lent = LentModule(params) if isinstance(params, nn.Module) else None
    w, to_params = by_name("params", params) if lent is None else (lent.params(), dict)
    tensors, to_grad = numbers_as_tensors(hparams, next(iter(w.values()), None))
    hp, to_hparams = by_name("hparams", tensors)
    require_arguments({"inner_loss": inner_loss, "outer_loss": outer_loss}, {"params": w, "hparams": hp}, batches)
    given = None if batches is None else list(batches)

    def mean(name: str, loss: Callable[..., Tensor]) -> MeanLoss:
        def named(w: Tensors, hp: Tensors, *batch: Any) -> Tensor:
            if lent is None:
                return loss(to_params(w), to_hparams(hp), *batch)
            return lent.call(loss, w, to_hparams(hp), *batch)

        return MeanLoss(name, lambda *args: require_scalar(named(*args), name), given, seed)

    inner, outer = mean("inner_loss", inner_loss), mean("outer_loss", outer_loss)
    like = next(iter(w.values()))
    require_parameters(like, "hypergradient")
    _require_uncast(precision, like)
    problem, device = in_precision(FunctionProblem(inner, outer, w, hp), precision), like.device
    with ExitStack() as stack:
        stack.enter_context(matrix_products(precision, device))
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        if lent is not None:
            stack.enter_context(lent.lent())
        for loss in (inner, outer):
            with noted(f"calling {loss.name}(params, hparams{', batch' if batches is not None else ''})"):
                require_repeatable(loss, w, hp)
        if lent is not None:
            _require_functional(lent, (inner, outer), hp, product)
        found = Implicit(
            linsolve=linsolve, product=product, inner_steps=0, damping=damping, error_bar=error_bar
        ).estimate(problem, hp, w)
        if given is not None:
            each = [
                in_precision(FunctionProblem(inner.of_batch(b), outer.of_batch(b), w, hp), precision)
                for b in range(len(given))
            ]
            sampling = BatchSpread(problem, each, hp, w, product, linsolve, damping).report(found.carry)
            sampling = replace(sampling, standard_errors=to_grad(to_hparams(sampling.standard_errors)))
            found = replace(found, sampling=sampling)
    _warn(found)
    result: Any = replace(found, grad=to_grad(to_hparams(found.grad)), params=to_params(found.params), carry=None)
    return result


def _require_uncast(precision: str | None, like: Tensor) -> None:
    """Require a precision that needs no cast of what the losses hold.

    Raises:
        ValueError: if it does.
    """
    if precision is not None:
        require_precision(precision)
        if precision == "bf16-true" or like.dtype != torch.float32:
            raise ValueError(
                f"hypergradient cannot cast the data inside the losses, as precision={precision!r} with parameters in "
                f"{like.dtype} requires. Use 'bf16-mixed' with parameters and data in float32."
            )


def _require_functional(lent: LentModule, losses: tuple[MeanLoss, MeanLoss], hp: Tensors, product: Product) -> None:
    """Require that the losses are functions of the registered parameters of a module, as `LentLoss` checks."""
    inner, outer = (LentLoss(loss.name, lent, partial(loss, hparams=hp)) for loss in losses)
    inner.require_gradient()
    outer.require_gradient()
    if not isinstance(product, CentredDifferences):
        inner.require_product()


def _warn(found: Hypergradient) -> None:
    """Warn that an estimate is inexact, once in this process for each reason."""
    reasons = inexactness(found)
    if "error_status" in reasons:
        reasons["error_status"] = (
            f"the error of the hypergradient is {found.stats['error_status']}. Minimise the inner loss further before "
            "this call, and use less damping or a smaller tol of the linear solver. If it stays unknown, compare with "
            "a difference of trainings: In your own loop (start/loop), in the documentation."
        )
    if found.error_bar is not None and found.training is not None:
        error, norm = found.error_bar.estimate, torch.linalg.vector_norm(flatten(found.grad)).item()
        if error > norm:
            reasons["error_estimate"] = (
                f"the hypergradient may be wrong: its norm is {norm:.2e} and its error estimate {error:.2e}, at a "
                f"‖∇_w g‖ of {found.training.grad_norm:.2e}. Solve the inner problem further, or use less damping."
            )
    for reason, message in reasons.items():
        if reason not in _REPORTED:
            _REPORTED.add(reason)
            warnings.warn(f"{message[0].upper()}{message[1:]}", NotConvergedWarning, stacklevel=3)
