"""The gradient with respect to the start of training."""

from collections.abc import Iterator, Mapping
from functools import cached_property

import torch

from hypergrad.core.autodiff import Tensors
from hypergrad.estimator.differentiated_run import DifferentiatedRun
from hypergrad.solver.base import State


class StartGradient(Mapping[str, Tensors]):
    """dF/ds₀ by group and name, computed when it is first read.

    It costs the first steps again, and a Hessian product, which dF/dλ does not need if λ does not move the start.

    Args:
        run: from s₀.
        adjoint: a_length = ∂F/∂s_length.
        length: the number of first steps that are left to pull back.
    """

    def __init__(self, run: DifferentiatedRun, adjoint: State, length: int) -> None:
        self._run, self._adjoint, self._length = run, adjoint, length

    def __getitem__(self, group: str) -> Tensors:
        return self._state[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    @cached_property
    def _state(self) -> State:
        with torch.no_grad():
            start = self._run.start()
        adjoint, _ = self._run.dynamics.linearize(start, 0, self._length).pull_back(self._adjoint)
        return self._run.at_start(adjoint)
