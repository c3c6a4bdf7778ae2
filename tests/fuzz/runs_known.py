"""Training runs in extended precision, step by step as the solvers' docstrings define them, and their derivatives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath as mp
import numpy as np
from problems_known import STEP, Array, Known, flat, moved, norm, shaken, unflat

State = dict[str, Array]
Rounded = Callable[[Array], Array]
Update = Callable[[State, Array, Any, int, dict[str, Any], Rounded], State]
sqrt = np.frompyfunc(lambda x: mp.sqrt(max(x, 0)), 1, 1)


class Rounding:
    """Rounding of a run and of its derivative: every number that is kept on the way gets an error.

    The first run is recorded. A run at a λ that differs by an infinitesimal step gets the same errors, and another one
    of the difference, as a derivative that is computed along has.
    """

    def __init__(self, relative: float, absolute: float, seed: int):
        self.relative, self.absolute, self.seed, self.values = relative, absolute, seed, []
        self.replays, self.count = 0, 0

    def again(self) -> None:
        self.replays, self.count = self.replays + 1, 0

    def __call__(self, x: Array) -> Array:
        if not self.relative:
            return x
        own = np.random.default_rng([self.seed, self.count])
        if self.replays == 0:
            self.values.append(x)
        else:
            known = self.values[self.count]
            x = known + shaken(x - known, self.relative, np.random.default_rng([self.seed, self.count, self.replays]))
        self.count += 1
        return shaken(x, self.relative, own) + self.absolute * own.standard_normal(x.shape)


def gradient_descent(s: State, g: Array, lr: Any, t: int, o: dict[str, Any], r: Rounded) -> State:
    return {"w": s["w"] - lr * r(g + o.get("weight_decay", 0) * s["w"])}


def momentum(s: State, g: Array, lr: Any, t: int, o: dict[str, Any], r: Rounded) -> State:
    d, beta = g + o.get("weight_decay", 0) * s["w"], o["momentum"]
    v = r(beta * s.get("v", 0 * d) + (1 - (o.get("dampening", 0) if t > 0 else 0)) * d)
    return {"w": s["w"] - lr * (d + beta * v if o.get("nesterov") else v), "v": v}


def adam(s: State, g: Array, lr: Any, t: int, o: dict[str, Any], r: Rounded) -> State:
    d, b1, b2 = g + o.get("weight_decay", 0) * s["w"], o["beta1"], o["beta2"]
    m, v = r(b1 * s.get("m", 0 * d) + (1 - b1) * d), r(b2 * s.get("v", 0 * d) + (1 - b2) * d * d)
    step = m / (1 - b1 ** (t + 1)) / r(sqrt(v / (1 - b2 ** (t + 1))) + o["eps"])
    return {"w": s["w"] - lr * step, "m": m, "v": v}


def adamw(s: State, g: Array, lr: Any, t: int, o: dict[str, Any], r: Rounded) -> State:
    shrunk = {**s, "w": (1 - lr * o["weight_decay"]) * s["w"]}
    return adam(shrunk, g, lr, t, {**o, "weight_decay": 0}, r)


def adagrad(s: State, g: Array, lr: Any, t: int, o: dict[str, Any], r: Rounded) -> State:
    v = r(s.get("v", 0 * g) + g * g)
    return {"w": s["w"] - lr / (1 + t * o.get("lr_decay", 0)) * g / r(sqrt(v) + o["eps"]), "v": v}


def rmsprop(s: State, g: Array, lr: Any, t: int, o: dict[str, Any], r: Rounded) -> State:
    alpha = o["alpha"]
    v, m = r(alpha * s.get("v", 0 * g) + (1 - alpha) * g * g), r(alpha * s.get("m", 0 * g) + (1 - alpha) * g)
    spread = v - m * m if o.get("centered") else v
    u = r(o.get("momentum", 0) * s.get("u", 0 * g) + g / r(sqrt(spread) + o["eps"]))
    return {"w": s["w"] - lr * u, "v": v, "m": m, "u": u}


UPDATES: dict[str, Update] = {
    "GradientDescent": gradient_descent,
    "Momentum": momentum,
    "Adam": adam,
    "AdamW": adamw,
    "Adagrad": adagrad,
    "RMSprop": rmsprop,
}


@dataclass(frozen=True)
class Run:
    """T steps of a solver from w₀, of which the last K are differentiated, and the start too if K = T or K = 0.

    Attributes:
        known: the problem.
        solver: a name in `UPDATES`.
        options: its numbers; `lr` is that or None, for the hyperparameter.
        steps: T.
        horizon: K.
        start: w₀ as given.
        noise: the relative error of each step, and the absolute one.
    """

    known: Known
    solver: str
    options: dict[str, Any]
    steps: int
    horizon: int
    start: Array
    noise: tuple[float, float] = (0.0, 0.0)

    def derivative(self, hp: dict[str, Array], entries: list[int], seed: int = 0) -> Array:
        """dF/dλ for some entries of the flat λ."""
        x, rounding = flat(hp), Rounding(*self.noise, seed)
        start, end = self._run(hp, hp, rounding)
        outer, direct = self.known.outer(end, hp)
        direct = flat(direct)
        found = []
        for k in entries:
            step = STEP * (abs(x[k]) or mp.mpf(1))
            rounding.again()
            other_start, other_end = self._run(unflat(moved(x, k, step), hp), hp, rounding)
            # With K = 0 the steps count as w₀ ↦ w₀ + a constant.
            change = other_end - end if self.horizon else other_start - start
            found.append(direct[k] + outer @ change / step)
        return np.array(found, dtype=object)

    def spread(self, hp: dict[str, Array], entries: list[int], truth: Array) -> Any:
        """How far rounding moves the derivative, the largest of some samples."""
        off = []
        for seed in range(1, 4):
            eps = max(self.noise[0], 1e-30)
            rng = np.random.default_rng(seed)
            other = Run(self.known.shaken(eps, rng), *self._rest(), noise=self.noise)
            close = {name: shaken(np.asarray(v, dtype=object), eps, rng) for name, v in hp.items()}
            off.append(norm(other.derivative(close, entries, seed) - truth))
        return max(off)

    def _rest(self) -> tuple[Any, ...]:
        return self.solver, self.options, self.steps, self.horizon, self.start

    def _run(self, hp: dict[str, Array], fixed: dict[str, Array], rounding: Rounding) -> tuple[Array, Array]:
        """w₀ and w_T with λ in the steps that are differentiated, and `fixed` in the others."""
        first = hp if self.horizon in (0, self.steps) else fixed
        start = self.start * first["start"] if "start" in first else self.start
        state = {"w": start}
        for t in range(self.steps):
            state = self._step(state, hp if t >= self.steps - self.horizon else fixed, t, rounding)
        return start, state["w"]

    def _step(self, state: State, hp: dict[str, Array], t: int, rounding: Rounding) -> State:
        lr = hp["lr"] if self.options["lr"] is None else self.options["lr"]
        grad = rounding(self.known.phi(state["w"], hp))
        after = UPDATES[self.solver](state, grad, lr, t, self.options, rounding)
        return {k: rounding(x) for k, x in after.items()}
