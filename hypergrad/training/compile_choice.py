"""Whether compiling the steps of a problem is worth its time: `compile="auto"`."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from hypergrad.compile.cache import Identity, WeakCache
from hypergrad.problem.distributed.sharing import SHARED
from hypergrad.training.dynamics import Dynamics

FIRST_GUESS = 15.0
"""Seconds that the first compilation of a process is expected to take."""
PATIENCE = 3.0
"""Steps are compiled once eager ones have taken, or would take, this many times as long as compiling does."""

_LONGEST: dict[tuple[str, str], float] = {}
"""By type of device and what was compiled, the seconds of the longest compilation in this process."""


@dataclass
class Ledger:
    """What the eager steps of a problem and a solver have cost.

    Attributes:
        kind: what is compiled: "step", "pull-back" (and with it "step"), or "step with derivatives".
        device: the type of device.
        seconds: of one step, with its pull-back if steps are differentiated.
        steps: how many steps were taken.
        last: how many of them in the last run.
        is_compiled: whether steps are compiled from now on.
        is_spread: whether several processes share the problem; their clocks differ.
    """

    kind: str
    device: str
    seconds: float
    steps: int = 0
    last: int = 0
    is_compiled: bool = False
    is_spread: bool = False

    def add(self, steps: int) -> None:
        """Count the steps of an eager run."""
        self.steps, self.last = self.steps + steps, steps

    def refuse(self, to_come: int | None) -> str:
        """Why the steps of the next run are not compiled yet; "" if they are to be.

        With E seconds of eager steps, those of the next run included, and C seconds to compile, they are compiled once
        E ≥ 3 C. So a run that stops at any time takes at most a third longer than an eager one.

        Args:
            to_come: the steps of the next run; None if they are not known, and taken to be those of the last one.
        """
        if self.is_spread:
            return f"not compiled: {SHARED}"
        expected = _expected(self.device, self.kind)
        spent = self.seconds * (self.steps + (self.last if to_come is None else to_come))
        self.is_compiled |= spent >= PATIENCE * expected
        if self.is_compiled:
            return ""
        return (
            f"not compiled yet: eager steps come to {spent:.1f} s, and compile=auto compiles from {PATIENCE:g} × "
            f"{expected:.0f} s on"
        )


_LEDGERS = WeakCache[Ledger]()
"""By problem, solver, and whether steps are differentiated."""


def ledger_of(dynamics: Dynamics, kind: str, step: Callable[[], Tensor]) -> Ledger:
    """What is known of the eager steps; the first call measures one.

    Args:
        dynamics: what a step does.
        kind: what is compiled, see `Ledger`.
        step: takes one step eagerly, and returns one of its results.
    """
    if dynamics.problem.is_spread:
        return Ledger(kind, "", 0.0, is_spread=True)
    return _LEDGERS.get(dynamics.problem, (Identity(dynamics.solver), kind), lambda: _measured(kind, step))


def note_compilation(device: str, kind: str, seconds: float) -> None:
    """Remember how long it took to compile a kind of function; see `Ledger`."""
    _LONGEST[device, kind] = max(_LONGEST.get((device, kind), 0.0), seconds)


def expectation(device: str, kind: str) -> str:
    """How long compiling is expected to take, in words."""
    if (device, kind) in _LONGEST:
        return f"before, it took {_LONGEST[device, kind]:.0f} s"
    return (
        f"the first time, it takes from {FIRST_GUESS:.0f} s to a minute, and less if its code is in the cache on disk"
    )


def _expected(device: str, kind: str) -> float:
    """The seconds that compiling is expected to take."""
    if (device, kind) not in _LONGEST:
        return FIRST_GUESS
    return _LONGEST[device, kind] + (_LONGEST.get((device, "step"), 0.0) if kind == "pull-back" else 0.0)


def _measured(kind: str, step: Callable[[], Tensor]) -> Ledger:
    """A ledger with the seconds of a second call; the first one loads what is loaded once."""
    device = step().device.type
    begin = time.perf_counter()
    step().sum().item()  # waits for a GPU
    return Ledger(kind, device, time.perf_counter() - begin)
