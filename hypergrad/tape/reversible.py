"""Keep no state, and run training backwards."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from hypergrad.core.arithmetic import LARGEST_DENOMINATOR
from hypergrad.core.errors import FixedPointOverflowError, HypergradError, ReversalError
from hypergrad.core.validation import require_int
from hypergrad.solver.base import InnerSolver, State
from hypergrad.solver.momentum import Momentum
from hypergrad.tape.base import Footprint, Tape, TapeCost, Trajectory
from hypergrad.tape.quantised import QuantisedMomentum
from hypergrad.training.dynamics import Dynamics, Stretch

_CHECKED_AGAIN = 5
"""Steps whose gradients are evaluated again after a failure. A judgement: a difference usually shows early."""
_INTEGERS = 5
"""For each parameter: w, v, w₀, v₀ and the part of the remainders that is not on the stack."""


@dataclass(frozen=True, kw_only=True)
class Reversible(Tape):
    """Trains with momentum on integers and runs the same steps backwards, bit for bit: only lost bits grow with T.

    A step with decay β loses log₂(1/β) bits of each velocity, 0.152 at β = 9/10, and only those are kept; see
    `hypergrad.core.arithmetic.Remainders`. The step of `Momentum` is differentiated at the states of the quantised run,
    with respect to the real lr and β. Only for the heavy ball of `Momentum`, with 0 < β < 1 and without dampening and
    weight decay; lr and β can be schedules, and differ by tensor.

    Numbers are int64 multiples of 2^−b, below 2^(62 − b). The paper's b = 52 matches float64 near 1, but allows only
    numbers below 1024, while the velocity of `Momentum` grows to |∇g|/(1 − β). The default b = 48 allows numbers below
    16384, and its rounding of 2e-15 is below that of a float64 gradient of many terms.

    Attributes:
        fraction_bits: b, from 8 to 60.
        max_denominator: the largest d in the ratio n/d that approximates β, from 2 to 2^20. The error is about
            1/max_denominator², more near a simple ratio, and 0 for 0.9 = 9/10. A product with n/d is rounded to within
            n multiples of 2^−b.

    Source: Maclaurin, Duvenaud & Adams, "Gradient-based hyperparameter optimization through reversible learning", ICML
    (2015).
    """

    takes_compiled: ClassVar[bool] = False

    fraction_bits: int = 48
    max_denominator: int = 2**16

    def __post_init__(self) -> None:
        require_int(self, "fraction_bits", least=8)
        require_int(self, "max_denominator", least=2)
        for name, most in (("fraction_bits", 60), ("max_denominator", LARGEST_DENOMINATOR)):
            if getattr(self, name) > most:
                raise ValueError(f"Reversible.{name} must be at most {most}, but it is {getattr(self, name)}.")

    def record(self, dynamics: Dynamics, state: State, steps: range) -> Trajectory:
        run = self.start(dynamics, state)
        run.read(steps)
        for t in steps:
            run.step(t)
        run.require_room()
        return Trajectory(run.state(), _backwards(run, steps))

    def cost(self, dynamics: Dynamics, footprint: Footprint, steps: range) -> TapeCost | None:
        try:
            bits = self.start(dynamics, footprint.start).bits_lost(steps)
        except (ValueError, FixedPointOverflowError):  # another solver, a decay outside (0, 1), or numbers out of range
            return None
        integers = sum(x.numel() for x in footprint.start["params"].values()) * _INTEGERS * 8
        return TapeCost(memory=integers + bits // 8 + footprint.state + footprint.graph, gradients=2 * len(steps))

    def start(self, dynamics: Dynamics, state: State) -> QuantisedMomentum:
        """The dynamics on integers, before its first step.

        Raises:
            ValueError: if the solver is not the heavy ball.
        """
        objection = _objection(dynamics.solver)
        if objection:
            raise ValueError(f"{objection}, or use a tape that serves every solver, such as Checkpoint.")
        return QuantisedMomentum(
            dynamics, state, fraction_bits=self.fraction_bits, max_denominator=self.max_denominator
        )


def _objection(solver: InnerSolver) -> str:
    """Why the steps of a solver cannot run backwards, and what to change; "" if they can."""
    if type(solver) is not Momentum:
        return f"The reversible tape runs momentum backwards, but the solver is {type(solver).__name__}. Use Momentum"
    options = {name: getattr(solver, name) for name in ("dampening", "weight_decay", "nesterov")}
    met = " and ".join(f"{name} = {value!r}" for name, value in options.items() if value)
    if not met:
        return ""
    return (
        f"The reversible tape runs v ← β v + ∇g, w ← w − lr v backwards, but this Momentum has {met}. Leave that out "
        "(an L2 penalty can be a part of the inner loss)"
    )


def _backwards(run: QuantisedMomentum, steps: range) -> Iterator[Stretch]:
    """The steps from the last to the first, and then a check that they end at the start of training.

    Raises:
        ReversalError: if they do not end, bit for bit, where training started.
    """
    for t in reversed(steps):
        try:
            stretch = run.back(t)
        except HypergradError as error:
            raise ReversalError(f"Training cannot be run backwards through step {t}. {_cause(run, steps)}") from error
        yield stretch
        del stretch  # otherwise its graph and the next one would exist at the same time
    for what, begun, ended in zip(("w₀", "v₀"), run.origin, (run.w, run.v), strict=True):
        wrong = sum(int((q != ended[name]).sum()) for name, q in begun.items())
        if wrong:
            raise ReversalError(
                f"Training run backwards must end where training started, but {wrong} of "
                f"{sum(q.numel() for q in begun.values())} entries of {what} differ. {_cause(run, steps)}"
            )


def _cause(run: QuantisedMomentum, steps: range) -> str:
    """What differs between two evaluations, found by evaluating some gradients again."""
    for t in steps[:_CHECKED_AGAIN]:
        oracles = [run.dynamics.oracle(t) for _ in range(2)]
        first, again, other = (run.gradient(oracle)[1] for oracle in (oracles[0], *oracles))
        if any(not torch.equal(g, again[name]) for name, g in first.items()):
            return (
                f"Two evaluations of the inner gradient at the same parameters, on the same batch of step {t}, differ: "
                "the inner loss has a non-deterministic operation. Draw random numbers in inner_batch, from a "
                "generator seeded by the step, or try torch.use_deterministic_algorithms(True)."
            )
        if any(not torch.equal(g, other[name]) for name, g in first.items()):
            return (
                f"inner_batch({run.dynamics.first_step + t}) returned a different batch when it was called again: make "
                "it a function of the step, with a generator seeded by the step."
            )
    return (
        f"The gradients of the first {len(steps[:_CHECKED_AGAIN])} steps are the same twice, so look for what changes "
        "between two passes over the steps: a counter or running statistics in the loss, data changed in place."
    )
