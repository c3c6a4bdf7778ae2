"""Moves of a method whose steps may be left to `step_sizes`."""

from dataclasses import replace

from hypergrad.core.autodiff import Tensors
from hypergrad.single_loop.base import Memory, Method, Move
from hypergrad.single_loop.step_sizes import step_sizes
from hypergrad.single_loop.terms import Terms

_LR = "inner_lr"
"""The name of the step in the memory, where a resumed run finds it."""


def begun(method: Method, terms: Terms, params: Tensors, hparams: Tensors) -> Memory:
    """The memory before the first move, with the inner step of `step_sizes` if the method has no solver.

    Also raised, by what it calls: ValueError if the inner loss has no positive curvature.
    """
    if method.solver is not None:
        return method.begin(terms, params, hparams)
    where = {"inner_step": terms.inner_step, "outer_step": terms.outer_step}
    lr = step_sizes(terms.problem, hparams, params, **where, outer=False).inner
    return {**method.with_inner_step(lr).begin(terms, params, hparams), _LR: lr}


def moved(method: Method, terms: Terms, params: Tensors, hparams: Tensors, memory: Memory, t: int) -> Move:
    """The move t, with the step that the memory holds if the method has no solver."""
    if method.solver is not None:
        return method.move(terms, params, hparams, memory, t)
    move = stepping(method, memory).move(terms, params, hparams, memory, t)
    return replace(move, memory={**move.memory, _LR: memory[_LR]})


def stepping(method: Method, memory: Memory) -> Method:
    """The method with the step that the memory holds, if it has no solver."""
    return method if method.solver is not None else method.with_inner_step(memory[_LR])
