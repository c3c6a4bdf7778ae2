"""States of a solver as tensors to differentiate: their entries, leaves and vector-Jacobian products."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, detach
from hypergrad.solver.base import State

Partial = Mapping[str, Tensor | None]
"""A term of dF/dλ by name; None if the term does not depend on a hyperparameter."""

Key = TypeVar("Key")


def state_vjp(
    outputs: State, cotangents: State, state: State, hparams: Mapping[Key, Tensor]
) -> tuple[Mapping[str, Partial], Mapping[Key, Tensor | None]]:
    """(∂outputs/∂s)ᵀ c and (∂outputs/∂λ)ᵀ c, shaped as s and λ; None for a tensor on which no output depends.

    It is None too for a tensor that requires no gradient. The cotangents c are shaped as the outputs, or have one more
    axis in front, of size m, for m of them at once; the results then have that axis too.
    """
    reached = [(group, name) for group in outputs for name, x in outputs[group].items() if x.requires_grad]
    wanted = [x for x in (*entries(state), *hparams.values()) if x.requires_grad]
    grads: Sequence[Tensor | None] = (None,) * len(wanted)
    if reached and wanted:
        ys, cs = ([tensors[group][name] for group, name in reached] for tensors in (outputs, cotangents))
        pull = torch.autograd.grad if cs[0].shape == ys[0].shape else _grads_of_several
        grads = pull(ys, wanted, cs, allow_unused=True)
    remaining = iter(grads)

    def shaped(tensors: Mapping[Any, Tensor]) -> dict[Any, Tensor | None]:
        return {name: next(remaining) if x.requires_grad else None for name, x in tensors.items()}

    adjoint = {group: shaped(tensors) for group, tensors in state.items()}
    return adjoint, shaped(hparams)


def _grads_of_several(
    ys: Sequence[Tensor], xs: Sequence[Tensor], cs: Sequence[Tensor], allow_unused: bool
) -> Sequence[Tensor | None]:
    """(∂y/∂x)ᵀ c for m cotangents, by one batched walk if every operation of the graph has a batched rule."""
    pull = partial(torch.autograd.grad, ys, xs, retain_graph=True, allow_unused=allow_unused)
    try:
        return pull(cs, is_grads_batched=True)
    except RuntimeError:  # no batched rule
        each = [pull([c[k] for c in cs]) for k in range(len(cs[0]))]
        return [None if column[0] is None else torch.stack(column) for column in zip(*each, strict=True)]


def filled(adjoint: Mapping[str, Partial], like: State) -> State:
    """The adjoint of a state with zeros for None, shaped as in `like`."""
    return {
        group: {name: torch.zeros_like(like[group][name]) if g is None else g for name, g in grads.items()}
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


def again(hparams: Tensors) -> Tensors:
    """λ as new leaves, of which those require gradients that do now."""
    return {name: x.detach().requires_grad_(x.requires_grad) for name, x in hparams.items()}


def detached(state: State) -> State:
    """The same state outside any graph."""
    return {group: detach(tensors) for group, tensors in state.items()}
