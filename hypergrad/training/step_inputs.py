"""The inputs of compiled steps besides state and λ, as tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, detach
from hypergrad.solver.coefficient import Coefficient, coefficient, root
from hypergrad.solver.schedule import Schedule
from hypergrad.training.dynamics import Dynamics


class StepInputs(NamedTuple):
    """The inputs of one step.

    Attributes:
        t: its number, shape ().
        coefficients: by field, the values of those that change from step to step, of shape () or (G,) for G groups.
        batch: the tensors of its batch.
    """

    t: Tensor
    coefficients: Tensors
    batch: list[Tensor]


@dataclass(frozen=True)
class StepTable:
    """Numbers and coefficients of T consecutive steps, on the device of λ, where nothing waits for them.

    Attributes:
        begin: the number of the first step.
        t: the numbers of the steps, shape (T,).
        numbers: by field, the coefficients that no hyperparameter enters, shape (T,).
        tuned: by field, what those are made of that one enters: its name, the row of it in each step, and the factor of
            the schedule in each step; shapes (T,).
    """

    begin: int
    t: Tensor
    numbers: Tensors
    tuned: dict[str, tuple[str, Tensor, Tensor | None]]

    @classmethod
    def of(cls, dynamics: Dynamics, steps: range) -> "StepTable":
        """The table of some steps of a run."""
        like, numbers, tuned = next(iter(dynamics.hparams.values())), {}, {}
        count = torch.arange(steps.start, steps.stop, device=like.device)
        for field, value in _changing(dynamics).items():
            name = root(value)
            if isinstance(name, str):
                rows = len(dynamics.hparams[name]) if dynamics.hparams[name].ndim else 1
                factors = _column([_factor(value, t) for t in steps], like) if isinstance(value, Schedule) else None
                tuned[field] = (name, count % rows, factors)
            else:
                numbers[field] = _column([float(coefficient(value, {}, t)) for t in steps], like)
        return cls(steps.start, count.to(like.dtype), numbers, tuned)

    def coefficients(self, hparams: Tensors, steps: range) -> Tensors:
        """By field, the coefficients in some steps, (K,) or (K, G), differentiable in λ if grad mode is enabled."""
        here = self._slice(steps)
        found = {field: values[here] for field, values in self.numbers.items()}
        for field, (name, index, factors) in self.tuned.items():
            x = hparams[name]
            rows = x.reshape(1, *x.shape[1:]) if x.ndim == 0 else x
            rows = rows.index_select(0, index[here])
            found[field] = rows if factors is None else factors[here].view(-1, *[1] * (rows.ndim - 1)) * rows
        return found

    def columns(self, hparams: Tensors, steps: range) -> list[Tensor]:
        """The numbers of some steps and their coefficients, outside any graph."""
        found = self.coefficients(detach(hparams), steps)
        return [self.t[self._slice(steps)], *(found[field] for field in self.order)]

    def at(self, hparams: Tensors, t: int, batch: list[Tensor]) -> StepInputs:
        """The inputs of step t."""
        # As in a stack of several: a compiler may not rely on the place of the first in memory.
        number, *values = (torch.cat([column, column])[1] for column in self.columns(hparams, range(t, t + 1)))
        return StepInputs(number, dict(zip(self.order, values, strict=True)), batch)

    def _slice(self, steps: range) -> slice:
        return slice(steps.start - self.begin, steps.stop - self.begin)

    @property
    def order(self) -> list[str]:
        """The fields in the order of `columns`."""
        return [*self.numbers, *self.tuned]


def fixed_coefficients(dynamics: Dynamics, hparams: Tensors) -> Mapping[str, float | Tensor]:
    """The coefficients that are the same number or entry of λ at all steps, by field; see `InnerSolver.values_at`."""
    changing = _changing(dynamics)
    declared = dynamics.solver.coefficients().items()
    return {field: coefficient(value, hparams, 0) for field, value in declared if field not in changing}


def changing_coefficients(dynamics: Dynamics) -> dict[str, bool]:
    """For each coefficient that may change from step to step or differ by group, by field: whether it depends on λ."""
    return {field: isinstance(root(value), str) for field, value in _changing(dynamics).items()}


def _changing(dynamics: Dynamics) -> dict[str, Coefficient]:
    return {
        field: value
        for field, value in dynamics.solver.coefficients().items()
        if isinstance(value, Schedule) or isinstance(value, str) and dynamics.hparams[value].ndim > 0
    }


def _column(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)


def _factor(value: Coefficient, t: int) -> float:
    """What multiplies the number or hyperparameter at the bottom of a coefficient in step t."""
    return value.factor(t) * _factor(value.base, t) if isinstance(value, Schedule) else 1.0
