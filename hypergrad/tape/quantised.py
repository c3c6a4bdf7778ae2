"""Heavy-ball momentum on integers, which can be run backwards."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

from hypergrad.core.arithmetic import Peaks, Remainders, add_fixed, to_fixed, to_fixed_again, to_float
from hypergrad.core.autodiff import Tensors, leaves
from hypergrad.core.errors import FixedPointOverflowError, NonFiniteError
from hypergrad.problem.oracle import Oracle
from hypergrad.solver.base import State
from hypergrad.tape.deterministic import deterministic
from hypergrad.training.dynamics import Dynamics, Stretch
from hypergrad.training.step_inputs import changing_coefficients

_DIGITS = 2**10
"""Multiples of the smallest fixed-point number that the largest parameter has at least: three digits, a judgement."""
_UNREAD = 256
"""Steps after which the range of the numbers is checked: rarely for a GPU, and soon enough to end a bad run."""


class QuantisedMomentum:
    """The heavy ball of `Momentum` with w and v in fixed point; [·] is rounding to it.

    v ← v n/d + [∇g(w)],  w ← w + [−lr v],  where n/d is the rational number closest to the decay β.

    Each update changes one variable by a function of the others. So the updates can be undone in reverse order:
    w − [−lr v], (v − [∇g(w)]) d/n. The gradient is evaluated in the dtype of the problem, by the same calls in both
    directions.

    Args:
        dynamics: of a `Momentum` solver without dampening, weight decay or Nesterov's variant.
        state: the state at the start.
        fraction_bits: fraction bits of the fixed-point numbers.
        max_denominator: largest d.

    Nothing is read from a GPU in a step: λ is read once before the first one, and whether all numbers are in the range
    of the fixed point, every `_UNREAD` steps. If one is not, training is repeated from the start with a check in each
    step, for an error that names the first bad one.
    """

    def __init__(self, dynamics: Dynamics, state: State, *, fraction_bits: int, max_denominator: int) -> None:
        self.dynamics, self.bits, self.max_denominator = dynamics, fraction_bits, max_denominator
        self.dtypes = {name: x.dtype for name, x in state["params"].items()}
        _require_resolved(state["params"], self.bits)
        self.w, self.v = ({k: _begun(k, x, self.bits) for k, x in state[g].items()} for g in ("params", "velocity"))
        self.origin = dict(self.w), dict(self.v)
        self.device = next(iter(self.w.values())).device
        self._host = {name: x.detach().cpu() for name, x in dynamics.hparams.items()}
        self._changes = bool(changing_coefficients(dynamics))
        self._table: dict[int, dict[str, tuple[float | None, Fraction]]] = {}
        self.read(range(1))
        self.remainders = {name: Remainders(torch.zeros_like(q)) for name, q in self.w.items()}
        self._peaks = Peaks(next(iter(self.w.values())), 2 * _UNREAD * len(self.w))
        self._taken: list[int] = []
        self._unread = 0

    def read(self, steps: range) -> None:
        """Read the coefficients of steps that will be taken."""
        for t in steps if self._changes else range(1):
            if t not in self._table:
                self._table[t] = self._read_at(t)

    def state(self) -> State:
        """The current state in the dtype of the problem."""
        return {"params": self._floats(self.w), "velocity": self._floats(self.v)}

    def step(self, t: int) -> None:
        """Take step t."""
        self._advance(t, self._peaks)
        self._taken.append(t)
        self._unread += 1
        if self._unread == _UNREAD:
            self.require_room()

    def require_room(self) -> None:
        """Require that the steps so far kept to the range of the fixed point.

        Raises:
            FixedPointOverflowError: if they did not.

        Also raised, by what it calls: NonFiniteError if a gradient held NaN.
        """
        if self._unread and not self._peaks.leave_room():
            self.w, self.v = (dict(x) for x in self.origin)
            self.remainders = {name: Remainders(torch.zeros_like(q)) for name, q in self.w.items()}
            for t in self._taken:
                self._advance(t)
            raise FixedPointOverflowError(
                f"One of the inner steps {self._taken[-self._unread]} to {self._taken[-1]} gave a number out of the "
                "range of the fixed point, but not when training was repeated: it is not the same twice."
            )
        self._unread = 0

    def _advance(self, t: int, peaks: Peaks | None = None) -> None:
        _, grad = self.gradient(self.dynamics.oracle(t))
        for name, (lr, decay) in self._coefficients(t).items():
            with _naming(name, t):
                v = self.remainders[name].multiply(self.v[name], decay)
                self.v[name] = v = add_fixed(v, to_fixed(grad[name], self.bits, peaks), self.bits, peaks)
                move = to_fixed(self._moved(v, lr), self.bits, peaks)
                self.w[name] = add_fixed(self.w[name], move, self.bits, peaks)

    def back(self, t: int) -> Stretch:
        """Undo step t, with its graph."""
        coefficients = self._coefficients(t)
        for name, (lr, _) in coefficients.items():
            self.w[name] = self.w[name] - to_fixed_again(self._moved(self.v[name], lr), self.bits)
        w, grad = self.gradient(self.dynamics.oracle(t))
        for name, (_, decay) in coefficients.items():
            before = self.v[name] - to_fixed_again(grad[name], self.bits)
            self.v[name] = self.remainders[name].divide(before, decay)
        before, hparams = {"params": w, "velocity": leaves(self._floats(self.v))}, self.dynamics.hparams
        with torch.enable_grad():
            after = self.dynamics.solver.update(before, grad, self.dynamics.solver.coefficients_at(hparams, t, w), t)
        return Stretch(before, after, [hparams])

    def bits_lost(self, steps: range) -> int:
        """The bits that these steps lose in all velocities: log₂(1/β) per entry and step."""
        decays = ((self.w[name].numel(), decay) for t in steps for name, (_, decay) in self._coefficients(t).items())
        return round(sum(-size * math.log2(decay) for size, decay in decays))

    def _moved(self, v: Tensor, lr: float | Tensor) -> Tensor:
        return -lr * to_float(v, self.bits, torch.float64)

    def _floats(self, q: Tensors) -> Tensors:
        return {name: to_float(x, self.bits, self.dtypes[name]) for name, x in q.items()}

    def gradient(self, oracle: Oracle) -> tuple[Tensors, Tensors]:
        """The current parameters as leaves, and the inner gradient there with its graph."""
        # With a graph in both directions: without one, torch uses other formulas for some operations, such as group
        # norm, and these round differently.
        w = leaves(self._floats(self.w))
        with torch.enable_grad(), deterministic(self.device):
            return w, oracle(w)[1]

    def _coefficients(self, t: int) -> dict[str, tuple[float | Tensor, Fraction]]:
        """Learning rate, maybe one for each entry, and decay of each tensor at step t."""
        self.read(range(t, t + 1))
        return {
            name: (self._lr_of_entries(name, t) if lr is None else lr, decay)
            for name, (lr, decay) in self._table[t if self._changes else 0].items()
        }

    def _read_at(self, t: int) -> dict[str, tuple[float | None, Fraction]]:
        """The same, with None for a learning rate that differs by entry: that is not read."""
        values = self.dynamics.solver.coefficients_at(self._host, t, self.w)

        def number(field: str, name: str) -> float | None:
            """The value in the dtype of the tensor, as `Momentum` uses it."""
            value = torch.as_tensor(values[field][name])
            return None if value.ndim else value.to(self.dtypes[name]).item()

        decays = {name: rational(_one(number("momentum", name)), self.max_denominator) for name in self.w}
        return {name: (number("lr", name), decay) for name, decay in decays.items()}

    def _lr_of_entries(self, name: str, t: int) -> Tensor:
        value = self.dynamics.solver.coefficients_at(self.dynamics.hparams, t, self.w)["lr"][name]
        return torch.as_tensor(value).detach().to(self.dtypes[name]).to(torch.float64)


def _one(decay: float | None) -> float:
    """The decay of all entries.

    Raises:
        ValueError: if each entry has its own.
    """
    if decay is None:
        raise ValueError(
            "Training can be run backwards with one momentum for each tensor, but here each entry has its own. Tune "
            "one for each tensor, or use another tape, such as Checkpoint."
        )
    return decay


@lru_cache
def rational(decay: float, max_denominator: int) -> Fraction:
    """The rational number closest to a decay.

    Raises:
        ValueError: if the decay is not between 0 and 1, or is rounded to 0 or 1.
    """
    ratio = Fraction(decay).limit_denominator(max_denominator) if decay == decay else Fraction(0)
    if not 0 < ratio < 1:
        met = f", which is {ratio} as a ratio with denominators up to {max_denominator}" if 0 < decay < 1 else ""
        raise ValueError(
            f"Training can be run backwards with a momentum above 0 and below 1, but it is {decay:g}{met}. Use a "
            "momentum such as 0.9, or another tape, such as Checkpoint."
        )
    return ratio


def _require_resolved(params: Tensors, bits: int) -> None:
    """Require parameters that are not lost in the multiples of 2^−bits.

    Raises:
        ValueError: if they are.
    """
    largest = max((torch.linalg.vector_norm(x, torch.inf).item() for x in params.values() if x.numel()), default=0.0)
    if 0 < largest < _DIGITS * 2.0**-bits:
        raise ValueError(
            f"The reversible tape keeps multiples of 2^-{bits} = {2.0**-bits:.1e}, but the largest parameter at the "
            f"start is {largest:.1e}, so that few of its digits or none would be left. Change the unit of the "
            "parameters, or use a tape that keeps floating-point numbers, such as Checkpoint."
        )


def _begun(name: str, x: Tensor, bits: int) -> Tensor:
    try:
        return to_fixed(x, bits)
    except FixedPointOverflowError as error:
        raise FixedPointOverflowError(
            f"The start of training has in {name!r} {error}. Lower the tape's fraction_bits: each bit less doubles the "
            "largest number. Or change the unit of the parameters."
        ) from None


@contextmanager
def _naming(name: str, t: int) -> Iterator[None]:
    try:
        yield
    except FixedPointOverflowError as error:
        raise FixedPointOverflowError(
            f"Inner step {t} would give {name!r} or its velocity {error}. Lower the learning rate, or the tape's "
            "fraction_bits: each bit less doubles the largest number."
        ) from None
    except NonFiniteError as error:
        raise NonFiniteError(f"The inner gradient with respect to {name!r} is bad at step {t}: {error}") from None
