"""States of a solver as tensors to differentiate: their entries, leaves and vector-Jacobian products."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from hypergrad.core.autodiff import detach
from hypergrad.solver.base import State

Partial = Mapping[str, Tensor | None]
"""A term of dF/dλ by name; None if the term does not depend on a hyperparameter."""

Key = TypeVar("Key")


def state_vjp(
    outputs: State, cotangents: State, state: State, hparams: Mapping[Key, Tensor]
) -> tuple[Mapping[str, Partial], Mapping[Key, Tensor | None]]:
    """(∂outputs/∂s)ᵀ c and (∂outputs/∂λ)ᵀ c, shaped as s and λ; None for a tensor on which no output depends."""
    reached = [(group, name) for group in outputs for name, x in outputs[group].items() if x.requires_grad]
    inputs = [x for x in entries(state) if x.requires_grad]
    wanted = (*inputs, *hparams.values())
    grads: Sequence[Tensor | None] = (None,) * len(wanted)
    if reached:
        ys, cs = ([tensors[group][name] for group, name in reached] for tensors in (outputs, cotangents))
        grads = torch.autograd.grad(ys, wanted, cs, allow_unused=True)
    remaining = iter(grads)
    adjoint = {
        group: {name: next(remaining) if x.requires_grad else None for name, x in tensors.items()}
        for group, tensors in state.items()
    }
    return adjoint, dict(zip(hparams, remaining, strict=True))


def filled(adjoint: Mapping[str, Partial], state: State) -> State:
    """The adjoint of a state with zeros for None."""
    return {
        group: {name: torch.zeros_like(state[group][name]) if g is None else g for name, g in grads.items()}
        for group, grads in adjoint.items()
    }


def entries(state: State) -> list[Tensor]:
    """The tensors of a state, in order."""
    return [x for tensors in state.values() for x in tensors.values()]


def as_leaves(state: State) -> State:
    """The same state as new leaves; those of floating-point numbers require gradients."""
    return {
        group: {name: x.detach().requires_grad_(x.is_floating_point()) for name, x in tensors.items()}
        for group, tensors in state.items()
    }


def detached(state: State) -> State:
    """The same state outside any graph."""
    return {group: detach(tensors) for group, tensors in state.items()}
