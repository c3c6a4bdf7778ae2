"""Pieces of an estimate, tried once as the first of some ranks, to see what they cost."""

import weakref
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, leaves
from hypergrad.core.collectives import Ranks, Traffic
from hypergrad.core.cost import Spent, charging
from hypergrad.core.flops import FlopCounter
from hypergrad.core.torch_internals.modules import set_submodules, submodules_of
from hypergrad.core.validation import require_int
from hypergrad.estimator.rank_plan import ABOUT, AT_MOST, EXACT, Effort, Part
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.distributed.data_parallel import DataParallel
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.wrapper import Wrapper
from hypergrad.solver.base import InnerSolver
from hypergrad.training.dynamics import Dynamics
from hypergrad.training.training import Training

T = TypeVar("T")


@dataclass(frozen=True)
class Rehearsal:
    """A problem as the first of some ranks sees it, without the others.

    It computes its own part of each batch. What it sends is counted, and comes back as if the others had sent zeros.

    Attributes:
        problem: spread over the ranks.
        hparams: λ.
        params: w.
        world: the number of ranks.
    """

    problem: InnerProblem
    hparams: Tensors
    params: Tensors
    world: int

    @classmethod
    def of(cls, problem: InnerProblem, hparams: Tensors | None, params: Tensors | None, world: int) -> "Rehearsal":
        """At λ and w, or where a run begins.

        Also raised, by what it calls: TypeError or ValueError if `world` is no integer ≥ 1; ValueError or
        NotImplementedError if the problem cannot be shared.
        """
        hparams = problem.init_hparams() if hparams is None else hparams
        params = problem.init_params() if params is None else params
        alone = cls(problem, hparams, params, world)
        return replace(alone, problem=_shared(problem, world))

    def __post_init__(self) -> None:
        require_int(self, "world", least=1)

    @property
    def size(self) -> int:
        """n, the number of parameters."""
        return sum(w.numel() for w in self.params.values())

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return next(iter(self.params.values())).element_size()

    def cost(self, work: Callable[[], T]) -> tuple[T, Effort]:
        """What some work returns, and what it costs; gradients in it are not counted as spent."""
        with Traffic().counting() as traffic, FlopCounter() as flops, charging(Spent()):
            found = work()
        return found, Effort(traffic.calls, traffic.numbers, flops.total)

    def gradient_graph(self) -> int:
        """The bytes that the graph of an inner gradient holds, for a Hessian product."""
        oracle, saved = Oracle(self.problem, leaves(self.hparams), self.problem.inner_batch(0)), []

        def note(x: Tensor) -> Tensor:
            x = x.detach()  # an output that keeps its own node alive would be a cycle
            saved.append(weakref.ref(x))
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x), torch.enable_grad():
            _gradient = oracle(leaves(self.params))
        held = [x.untyped_storage() for ref in saved if (x := ref()) is not None]
        return sum({storage.data_ptr(): storage.nbytes() for storage in held}.values())

    def training(self, training: Training) -> list[Part]:
        """The parts of a training run without a graph, from w."""
        solver, steps = training.solver, training.steps
        dynamics = Dynamics(self.problem, solver, self.hparams)
        with torch.no_grad():
            state = solver.start(self.problem, self.params, self.hparams)
            (_, look), (state, step) = (
                self.cost(lambda: dynamics.oracle(0).evaluate(solver.params(state))),
                self.cost(lambda: dynamics.step(state, 0)),
            )
        every = solver.check_every if training.check_every is None else training.check_every
        checks = 0 if solver.known(state) else -(-steps // every) if training.tol > 0 else 1
        sure = AT_MOST if training.tol > 0 else EXACT
        searches = type(solver).step is not InnerSolver.step
        return [
            Part("gradient norm", 1 + (training.tol > 0) + checks, look, sure),
            Part("training step", steps, step, ABOUT if searches else sure),
        ]


def _shared(problem: InnerProblem, world: int) -> InnerProblem:
    """The problem on the first of some ranks; one that is shared already, with this number of ranks.

    Raises:
        ValueError: if its losses are sums over processes in another way than by `DataParallel`.
    """
    if isinstance(problem, DataParallel):
        problem = problem.problem
    elif isinstance(problem, Wrapper) and any(isinstance(part, DataParallel) for part in problem.modules()):
        other = copy(problem)
        set_submodules(other, submodules_of(problem) | {"problem": _shared(problem.problem, world)})
        return other
    elif problem.is_spread:
        raise ValueError(
            f"A plan counts what DataParallel sends, but the losses of this {type(problem).__name__} are sums over "
            "processes in another way. Plan for the problem that it is made of."
        )
    if world == 1:
        return problem
    return DataParallel(problem, Ranks.rehearsed(world))
