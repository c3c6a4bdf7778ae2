"""The requirements on a solver and its coefficients; an error names what fails."""

from collections.abc import Iterable
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.validation import require_real, require_representable
from hypergrad.solver.coefficient import Coefficient, Range, root
from hypergrad.solver.schedule import Schedule

_LEFT_OUT = {
    "maximize": "an inner problem is minimised; change the sign of its inner loss",
    "amsgrad": "its running maximum has a kink at every new maximum; leave it out",
    "betas": "each decay can be tuned; give them as beta1 and beta2",
}
"""Options of `torch.optim` that do not exist here, and what to do instead."""

_CONTRACT = {
    "step": "step(self, oracle, state, coefficients, t), where oracle(params) is (loss, gradient) at this λ and batch, "
    "which are oracle.hparams and oracle.batch of oracle.problem",
    "update": "update(self, state, grad, coefficients, t)",
    "largest_lr": "largest_lr(self, curvature, values)",
}
"""The methods that a training step calls, and how to define them."""

_TIMES_ROOT = 32.0
"""A gradient below so many roots of the smallest normal number has a mean square, times 1 − β₂ = 1e-3, that is none."""

_EARLIER_PARAMETERS = {"problem", "hparams", "first_step"}
"""Parameters of these methods in earlier versions."""


def require_known(solver: type, options: Iterable[str]) -> None:
    """Refuse the options of `torch.optim` that do not exist here, with the reason.

    Raises:
        TypeError: if such an option is given.
    """
    for name in _LEFT_OUT.keys() & set(options):
        raise TypeError(f"{solver.__name__} has no option {name}: {_LEFT_OUT[name]}.")


def require_contract(solver: type) -> None:
    """Require that the methods of a class have no parameters of earlier versions.

    Raises:
        TypeError: if `step`, `update` or `largest_lr` has a parameter `problem`, `hparams` or `first_step`.
    """
    for method in _CONTRACT.keys() & vars(solver).keys():
        for name in signature(vars(solver)[method]).parameters.keys() & _EARLIER_PARAMETERS:
            raise TypeError(
                f"{solver.__name__}.{method} has a parameter {name!r}, but a training step does not pass it. Define "
                f"it as {_CONTRACT[method]}. A coefficient such as lr is a field made by `hg.ranged`, and its value in "
                'a step is coefficients["lr"][name] for each parameter tensor, a number or a tensor of shape ().'
            )


def require_coefficient(owner: object, name: str, limits: Range) -> None:
    """Require that field `name` is the name of a hyperparameter, a finite number in range, or a schedule over either.

    Raises:
        ValueError: if the number is out of range.

    Also raised, by what it calls: TypeError if it is none of these.
    """
    value = getattr(owner, name)
    base = root(value)
    if isinstance(base, str):
        return
    if value is base:
        require_real(owner, name, above=limits.above, least=limits.least, below=limits.below)
    elif not limits.holds(base):
        raise ValueError(f"{type(owner).__name__}.{name} must be {limits}, but the base of {value} is {base:g}.")


def require_fitting(
    where: str, value: Coefficient, limits: Range, hparams: Tensors, num_steps: int, num_groups: int
) -> None:
    """Require that a coefficient fits a run of `num_steps` inner steps with `num_groups` groups of tensors.

    Args:
        where: what an error calls the coefficient.
        value: the coefficient.
        limits: the range of its values.
        hparams: λ.
        num_steps: T, ≥ 0.
        num_groups: G, ≥ 1.

    Raises:
        ValueError: if a schedule is longer than the run, a name is not that of a hyperparameter, its shape is none of
            (), (T,), (1, G) and (T, G), or one of its values is out of range.

    Also raised, by what it calls: ValueError if a number is infinite or zero in the dtype of λ.
    """
    layer = value
    while isinstance(layer, Schedule):
        if layer.length > num_steps > 0:
            raise ValueError(
                f"{where} = {layer} takes {layer.length} steps, but training has {num_steps}, which would cut it off; "
                f"shorten it, or raise inner_steps to {layer.length}."
            )
        layer = layer.base
    if not isinstance(layer, str):
        for x in list(hparams.values())[:1]:  # which have the dtype of the parameters
            require_representable(where, layer, x.dtype)
        return
    where = f"{where} = {layer!r}"
    if layer not in hparams:
        raise ValueError(
            f"{where} is neither a number nor the name of a hyperparameter; the problem has "
            f"{', '.join(sorted(hparams))}. To tune it, add a hyperparameter of that name, such as "
            f"{layer!r}: hg.Hyperparameter(0.1, constraint=hg.positive)."
        )
    shape = tuple(hparams[layer].shape)
    if shape not in ((), (num_steps,), (1, num_groups), (num_steps, num_groups)):
        raise ValueError(
            f"{where} has shape {shape}, but a coefficient has shape () for one value, shape ({num_steps},) for "
            f"one per inner step, shape (1, {num_groups}) for one per group of tensors, or shape ({num_steps}, "
            f"{num_groups}) for one per step and group; without `groups`, each tensor is a group of its own, and "
            'with groups="entry" each entry.'
        )
    least, most = hparams[layer].min().item(), hparams[layer].max().item()
    for met in (least, most):
        if not limits.holds(met):
            raise ValueError(
                f"{where} must be {limits}, but it holds {met:.4g}; give the hyperparameter a constraint that keeps it "
                "there, such as hg.positive, hg.unit_interval or hg.interval(a, b)."
            )


def require_normal_squares(solver: Any, state: dict[str, Tensors], hparams: Tensors, grad_norm: float) -> None:
    """Require that the format can hold the squares of the gradient that some solvers keep.

    If they are infinite, the steps are 0. If they are 0, the root of their mean is not |d|, which matters unless both
    are negligible beside eps.

    Args:
        solver: with its name and coefficients.
        state: at the start of training.
        hparams: λ.
        grad_norm: of the inner gradient there.

    Raises:
        ValueError: if it cannot.
    """
    if not {"second_moment", "sum_of_squares"} & state.keys():
        return
    dtype = next(iter(state["params"].values())).dtype
    limits, remedy = torch.finfo(dtype), "Change the unit of the inner loss"
    squares = f"{type(solver).__name__} squares the gradient, whose norm of {grad_norm:.1e} at the start of training is"
    if grad_norm > limits.max**0.5:
        raise ValueError(
            f"{squares} too large for that in {dtype}: training would stand still. {remedy}, or compute in float64."
        )
    least = _TIMES_ROOT * limits.tiny**0.5
    if 0 < grad_norm < least and "eps" in solver.coefficients():
        eps = solver.values_at(hparams, 0)["eps"]
        eps = eps.min().item() if isinstance(eps, Tensor) else eps
        if eps < least / limits.eps:
            raise ValueError(
                f"{squares} too small for that in {dtype}, where the square is 0, and eps = {eps:.1e} does not hide "
                f"it. {remedy}, set eps to {least / limits.eps:.0e} or more, or compute in float64."
            )
