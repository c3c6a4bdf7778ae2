"""A joint move as a function of tensors: its batches, and the values of schedules, are arguments."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from hypergrad.problem.base import InnerProblem
from hypergrad.problem.batch_place import BatchPlace
from hypergrad.single_loop.base import Method
from hypergrad.single_loop.terms import Terms
from hypergrad.solver.base import InnerSolver
from hypergrad.solver.coefficient import root
from hypergrad.solver.schedule import Schedule
from hypergrad.training.batches import Batches

T = TypeVar("T", Method, InnerSolver)


class Placed(NamedTuple):
    """A batch of any kind with its place."""

    batch: Any
    place: BatchPlace


@dataclass(frozen=True)
class BatchKind:
    """What the batches of some moves have in common.

    Attributes:
        batches: their structure and shapes.
        num_batches: as in `BatchPlace`.
        is_fixed: as in `BatchPlace`.
    """

    batches: Batches
    num_batches: int
    is_fixed: bool

    @classmethod
    def of(cls, placed: Placed) -> "BatchKind | None":
        """The kind of a batch; None if it holds something other than tensors, numbers and strings."""
        batches, place = Batches.of(placed.batch), placed.place
        return None if batches is None else cls(batches, place.num_batches, place.is_fixed)

    def fitting(self, placed: Placed) -> list[Tensor] | None:
        """The tensors of a batch of this kind; None if it is of another."""
        place = placed.place
        if (place.num_batches, place.is_fixed) != (self.num_batches, self.is_fixed):
            return None
        return self.batches.fitting(placed.batch)

    def placed(self, tensors: Iterator[Tensor], index: Tensor, weight: Tensor) -> Placed:
        """A batch of this kind from the next of the tensors, with an index and a weight of shape ()."""
        place: Any = {"index": index, "weight": weight}  # tensors in the place of numbers
        return Placed(
            self.batches.assemble(tensors), BatchPlace(**place, num_batches=self.num_batches, is_fixed=self.is_fixed)
        )


@dataclass(frozen=True)
class GivenTerms(Terms):
    """The terms of a move on batches that are given.

    Attributes:
        inner_given: the inner batches of the move.
        outer_given: its outer batch.
    """

    inner_given: Sequence[Placed]
    outer_given: Placed

    def inner_batch(self, number: int = 0) -> Any:
        return self.inner_given[number].batch

    def inner_place(self, number: int = 0) -> BatchPlace:
        return self.inner_given[number].place

    def outer_batch(self) -> Any:
        return self.outer_given.batch

    def outer_place(self) -> BatchPlace:
        return self.outer_given.place


def batches_of_move(problem: InnerProblem, inner_step: int, num_batches: int, outer_step: int) -> list[Placed]:
    """The inner batches of a move, and after them the outer one."""
    inner = [
        Placed(problem.inner_batch(k), problem.inner_place(k)) for k in range(inner_step, inner_step + num_batches)
    ]
    return [*inner, Placed(problem.outer_batch(outer_step), problem.outer_place(outer_step))]


@dataclass(frozen=True, kw_only=True)
class GivenFactor(Schedule):
    """A schedule whose factor in the only step of interest is given.

    Attributes:
        given: the factor, shape ().
    """

    given: Tensor

    def factor(self, t: int) -> Any:
        return self.given


def factors(owner: Method | InnerSolver, t: int) -> list[float]:
    """The factors of all schedules of a method and its solver in move t, in the order of their fields."""
    found: list[float] = []
    for field in fields(owner):
        value = getattr(owner, field.name)
        if isinstance(value, Schedule):
            found.append(_factor(value, t))
        elif isinstance(value, InnerSolver):
            found += factors(value, t)
    return found


def with_factors(owner: T, given: Iterator[Tensor]) -> T:
    """The method, or solver, with given factors in the place of its schedules, in the order of `factors`."""
    changed: dict[str, Any] = {}
    for field in fields(owner):
        value = getattr(owner, field.name)
        if isinstance(value, Schedule):
            changed[field.name] = GivenFactor(base=root(value), given=next(given))
        elif isinstance(value, InnerSolver):
            changed[field.name] = with_factors(value, given)
    return replace(owner, **changed) if changed else owner


def _factor(value: Any, t: int) -> float:
    """What multiplies the number at the bottom of a schedule."""
    return value.factor(t) * _factor(value.base, t) if isinstance(value, Schedule) else 1.0
