"""The inputs of compiled steps besides state and λ, as tensors."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.solver.coefficient import Coefficient, coefficient, root
from hypergrad.solver.schedule import Schedule
from hypergrad.training.batches import Batches
from hypergrad.training.dynamics import Dynamics


class StepInputs(NamedTuple):
    """The inputs of some consecutive steps, or of one of them.

    Attributes:
        t: the number of the first step, shape ().
        coefficients: by field, the values of those that change from step to step, stacked: of shape (T,) for T steps,
            or (T, G) for G groups; of shape () or (G,) for one step.
        batch: the tensors of the batches, stacked where they differ from step to step.
    """

    t: Tensor
    coefficients: Tensors
    batch: list[Tensor]


def step_inputs(dynamics: Dynamics, batches: Batches, steps: range) -> StepInputs:
    """The inputs of `steps`."""
    like = next(iter(dynamics.hparams.values()))
    return StepInputs(
        t=torch.tensor(steps.start, dtype=like.dtype, device=like.device),
        coefficients=stacked_coefficients(dynamics, steps),
        batch=batches.tensors([dynamics.batch(t) for t in steps]) if batches.is_stacked else [],
    )


def select_step(batches: Batches, inputs: StepInputs, k: int) -> StepInputs:
    """The inputs of the step that is k steps after the first."""
    values = {field: stacked[k] for field, stacked in inputs.coefficients.items()}
    return StepInputs(inputs.t + k, values, batches.at(inputs.batch, k))


def stacked_coefficients(dynamics: Dynamics, steps: range) -> Tensors:
    """`StepInputs.coefficients`, differentiable with respect to λ if grad mode is enabled."""
    like, found = next(iter(dynamics.hparams.values())), {}
    for field, value in _changing(dynamics).items():
        rows = [coefficient(value, dynamics.hparams, t) for t in steps]
        found[field] = torch.stack([torch.as_tensor(row, dtype=like.dtype, device=like.device) for row in rows])
    return found


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
