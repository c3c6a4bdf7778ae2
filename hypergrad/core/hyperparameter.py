"""Hyperparameters: an initial value, a shape, and a constraint."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform


@dataclass(frozen=True, eq=False)
class Hyperparameter:
    """A value λ to tune, kept inside a constraint by optimising u with λ = transform(u).

    Attributes:
        init: where to start, in natural units: a number, or a tensor that gives the shape.
        shape: the shape of λ when `init` is a number that all entries share; () is a scalar.
        constraint: from `torch.distributions.constraints`: `real` (default), `positive`, `interval(a, b)`, `simplex`, …
        labels: names of the entries of a vector, such as the columns of a table, for tables and plots; () for none.

    Raises:
        TypeError: if init is not a number or tensor of real numbers, or the constraint is none.
        ValueError: if init is not finite, does not fit the shape, violates the constraint, or lies on its boundary
            (which no step could leave), or if the constraint has no bijection to unconstrained values, or if there are
            labels, but not one for each entry of a vector.

    Examples:
        >>> rate = hg.Hyperparameter(0.1, constraint=hg.positive)
        >>> u = rate.to_unconstrained(torch.tensor(0.1))  # log λ
        >>> print(f"{u:.4f}, {rate.to_natural(u - 1):.4f}")
        -2.3026, 0.0368
        >>> rates = hg.Hyperparameter(0.1, shape=(100,), constraint=hg.positive)  # one for each of 100 steps
        >>> rates.value(torch.float64).shape
        torch.Size([100])
    """

    init: float | Tensor
    shape: tuple[int, ...] | None = None
    constraint: Constraint = constraints.real
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_constraint(self.constraint)
        value = self.value(torch.float64)
        if not value.isfinite().all():
            raise ValueError(f"A hyperparameter must start at a finite value, but init is {shown(value)}; choose one.")
        if not torch.as_tensor(self.constraint.check(value)).all():
            raise ValueError(
                f"init = {shown(value)} violates the constraint {self.constraint}; start from a value inside it."
            )
        if self._is_on_boundary(value):
            raise ValueError(
                f"init = {shown(value)} lies on the boundary of the constraint {self.constraint}, where the "
                "gradient vanishes, so no step could leave it; start from a value strictly inside it."
            )
        if self.labels and value.shape != (len(self.labels),):
            raise ValueError(
                f"A hyperparameter of shape {tuple(value.shape)} needs one label for each entry of a vector, or none, "
                f"but it has {len(self.labels)}."
            )

    def to_natural(self, unconstrained: Tensor) -> Tensor:
        """λ = transform(u), differentiable; u has the shape that `to_unconstrained` gives it."""
        return cast(Tensor, self._transform(unconstrained))

    def to_unconstrained(self, natural: Tensor) -> Tensor:
        """u = transform⁻¹(λ), shaped as λ except for constraints that couple the entries, such as simplex."""
        return cast(Tensor, self._transform.inv(natural))

    @cached_property
    def _transform(self) -> Transform:
        try:
            return biject_to(self.constraint)
        except NotImplementedError:
            raise ValueError(
                f"torch.distributions has no bijection onto the constraint {self.constraint}; use one that biject_to "
                "supports, such as positive, interval or simplex."
            ) from None

    def value(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
        """The initial value in natural units, as a tensor of this hyperparameter's shape.

        Raises:
            TypeError: if init is neither a number nor a tensor of real numbers.
            ValueError: if it does not fit the shape.
        """
        is_number = isinstance(self.init, int | float) and not isinstance(self.init, bool)
        if not is_number and (not isinstance(self.init, Tensor) or self.init.is_complex()):
            raise TypeError(
                f"init must be a number or a tensor, but it is {self.init!r} of {type(self.init).__name__}; write a "
                "real number such as 0.1, or torch.tensor([…]) for several."
            )
        value = torch.as_tensor(self.init).detach().to(device=device, dtype=dtype)
        if self.shape is None:
            return value.clone()
        try:
            return value.expand(self.shape).clone()
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"A hyperparameter of shape {self.shape!r} must start at a number or a tensor of that shape, but init "
                f"has shape {tuple(value.shape)}; leave out the shape of a tensor."
            ) from error

    def _is_on_boundary(self, value: Tensor) -> bool:
        # torch's transforms clamp at the boundary, so their values do not show it.
        is_simplex = self.constraint is constraints.simplex
        low = 0.0 if is_simplex else getattr(self.constraint, "lower_bound", -math.inf)
        high = getattr(self.constraint, "upper_bound", math.inf)
        return bool(((value <= low) | (value >= high)).any()) or not bool(self.to_unconstrained(value).isfinite().all())


def _require_constraint(constraint: object) -> None:
    """Require a constraint.

    Raises:
        TypeError: if it is none.
    """
    if not isinstance(constraint, Constraint):
        raise TypeError(
            f"A constraint of a hyperparameter must be one of torch.distributions.constraints, but it is "
            f"{constraint!r} of {type(constraint).__name__}; choose hg.positive, hg.unit_interval or "
            "hg.interval(a, b), or leave it out for any real number."
        )


def shown(value: Tensor) -> str:
    """A value as short text: its entries, or their range if there are many."""
    if value.numel() == 1:
        return f"{value.item():.4g}"
    if value.numel() <= 4:
        return str([float(f"{x:.4g}") for x in value.flatten().tolist()])
    return f"{value.numel()} values from {value.min().item():.3g} to {value.max().item():.3g}"
