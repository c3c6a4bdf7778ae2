"""The same problems in extended precision, with gradients by hand: no automatic derivative, no code of the library."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import mpmath as mp
import numpy as np
from problems import GROUPS, NETWORKS, RandomProblem, Spec
from torch import Tensor

from hypergrad.core.autodiff import Tensors

mp.mp.dps = max(mp.mp.dps, 90)
STEP = mp.mpf(10) ** -40
"""Of one-sided differences, relative: their error is about this, and rounding leaves 35 digits."""
ROUGH_STEP = 1e-7
"""The same in double precision, where only the start of Newton's method is looked for."""
Array = Any
"""An array of mpmath.mpf."""
exact = np.frompyfunc(mp.mpf, 1, 1)


def _either(name: str) -> Callable[[Array], Array]:
    precise, rough = np.frompyfunc(getattr(mp, name), 1, 1), getattr(np, name)
    return lambda x: precise(x) if x.dtype == object else rough(x)


exp, tanh, sign = (_either(name) for name in ("exp", "tanh", "sign"))


def sigmoid(z: Array) -> Array:
    return 1 / (1 + exp(-z))


SLOPES: dict[str, Callable[[Array, Array], Array]] = {
    "squares": lambda z, y: z - y,
    "logistic": lambda z, y: sigmoid(z) - y,
    "poisson": lambda z, y: exp(z) - y,
    "softplus": lambda z, y: tanh((z - y) / 2),
    "huber": lambda z, y: np.clip(z - y, -0.5, 0.5),
    "absolute": lambda z, y: sign(z - y),
    "hinge": lambda z, y: -(2 * y - 1) * ((2 * y - 1) * z < 1),
}
"""∂ℓ/∂z."""


def of_tensor(x: Tensor) -> Array:
    """The value of each entry, exactly."""
    values = x.detach().double().numpy()
    return np.array([mp.mpf(v) for v in values.reshape(-1)], dtype=object).reshape(values.shape)


def of_tensors(tensors: Tensors) -> dict[str, Array]:
    return {name: of_tensor(x) for name, x in tensors.items()}


def flat(arrays: dict[str, Array]) -> Array:
    return np.concatenate([np.asarray(x, dtype=object).reshape(-1) for x in arrays.values()])


def unflat(values: Array, like: dict[str, Array]) -> dict[str, Array]:
    pieces = np.split(values, np.cumsum([x.size for x in like.values()])[:-1])
    return {name: piece.reshape(like[name].shape) for name, piece in zip(like, pieces, strict=True)}


def norm(x: Array) -> Any:
    if np.asarray(x).dtype != object:
        return float(np.linalg.norm(x))
    return mp.sqrt(sum((v * v for v in np.asarray(x, dtype=object).reshape(-1)), mp.mpf(0)))


@dataclass(frozen=True)
class Known:
    """A problem on the rounded data of a `RandomProblem`, with φ = ∇_w g and the gradients of f.

    Attributes:
        shapes: of the parameters.
        units: of the inner loss, the outer loss and w.
        hidden: a relative error of each hidden unit, of which 1 − tanh² makes a large one where it is small.
    """

    spec: Spec
    shapes: dict[str, tuple[int, ...]]
    data: dict[str, Array]
    units: tuple[Any, Any, Any]
    hidden: Any = 0

    @classmethod
    def of(cls, problem: RandomProblem) -> "Known":
        units = problem.inner_unit, problem.outer_unit, problem.unit
        data = {name: of_tensor(x) for name, x in problem.named_buffers()}
        return cls(problem.spec, problem.shapes, data, (mp.mpf(units[0]), mp.mpf(units[1]), mp.mpf(units[2])))

    def shaken(self, eps: float, rng: np.random.Generator) -> "Known":
        """The same with data that are rounded otherwise, which shows what rounding can do."""
        data, size = {name: shaken(x, eps, rng) for name, x in self.data.items()}, len(self.data["y"])
        return replace(self, data=data, hidden=eps * exact(rng.standard_normal((size, 1))))

    def phi(self, w: Array, hp: dict[str, Array]) -> Array:
        """∇_w g, flat."""
        inner, _, unit = self.units
        u = w / unit
        return inner / unit * (self._fit_slope(u, hp) + self._penalty_slope(u, hp))

    def outer(self, w: Array, hp: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        """∂f/∂w, flat, and ∂f/∂λ."""
        _, outer, unit = self.units
        u, spec = w / unit, self.spec
        if spec.outer == "linear":
            slope = self.data["t"]
        elif spec.outer == "distance" or spec.family == "quadratic":
            slope = u - self.data["t"]
        else:
            y = self.data["y_dev"]
            slope = self._pull_back(u, self.data["X_dev"], lambda z: self._slope(z, y) / len(y))
        direct = {name: outer * x if spec.direct else 0 * x for name, x in hp.items()}
        return outer / unit * slope, direct

    def is_at_kink(self, w: Array, hp: dict[str, Array]) -> bool:
        """Whether φ has no derivative at w, as far as the directions of the entries show."""
        if self.spec.is_smooth:
            return False
        ahead, behind = (self.jacobian(w, hp, s) for s in (1, -1))
        return norm(ahead - behind) > mp.mpf(10) ** -15 * norm(ahead)

    def jacobian(self, w: Array, hp: dict[str, Array], way: int = 1) -> Array:
        """∂φ/∂w, by differences in one of the two ways."""
        here = self.phi(w, hp)
        step = way * (STEP if w.dtype == object else ROUGH_STEP) * max(norm(w), self.units[2])
        return np.stack([(self.phi(moved(w, k, step), hp) - here) / step for k in range(len(w))], 1)

    def mixed(self, w: Array, hp: dict[str, Array]) -> Array:
        """∂φ/∂λ, one column for each entry of the flat λ."""
        here, x = self.phi(w, hp), flat(hp)
        columns = []
        for k in range(len(x)):
            step = STEP * (abs(x[k]) or mp.mpf(1))
            columns.append((self.phi(w, unflat(moved(x, k, step), hp)) - here) / step)
        return np.stack(columns, 1) if columns else np.empty((len(w), 0), dtype=object)

    def hypergradient(self, w: Array, hp: dict[str, Array]) -> Array | None:
        """dF/dλ at a stationary point w, flat; None if the Hessian is singular."""
        outer, direct = self.outer(w, hp)
        v = None if self.is_at_kink(w, hp) else solve(self.jacobian(w, hp), outer)
        return None if v is None else flat(direct) - v @ self.mixed(w, hp)

    def stationary(self, w: Array, hp: dict[str, Array]) -> Array | None:
        """A stationary point near w, by Newton's method, at first in double precision; None if there is none."""
        with np.errstate(all="ignore"):
            rough = replace(self, data=_floats(self.data), units=tuple(float(x) for x in self.units))
            start = rough._newton(w.astype(float), _floats(hp), 1e-9, 50)
        if start is not None:
            return self._newton(exact(start), hp, 1e-40, 8)
        return self._newton(w, hp, 1e-40, 25) if self.spec.is_smooth else None

    def _newton(self, w: Array, hp: dict[str, Array], tol: float, most: int) -> Array | None:
        """Newton's method, with shorter steps where ‖φ‖ would grow."""
        phi = self.phi(w, hp)
        goal = tol * (norm(phi) + self.units[0] / self.units[2])
        for _ in range(most):
            step, rate = solve(self.jacobian(w, hp), phi), 1.0
            if step is None:
                return None
            while not norm(after := self.phi(w - rate * step, hp)) < norm(phi) and rate > 1e-6:
                rate /= 4
            w, phi = w - rate * step, after
            if norm(phi) <= goal:
                return w
        return None

    def _slope(self, z: Array, y: Array) -> Array:
        return SLOPES.get(self.spec.family, SLOPES["squares"])(z, y)

    def _fit_slope(self, u: Array, hp: dict[str, Array]) -> Array:
        if self.spec.family == "quadratic":
            return self.data["A"] @ u - self.data["c"]
        y = self.data["y"]
        weights = 1
        if "simplex" in hp:
            weights = GROUPS * hp["simplex"][np.arange(len(y)) % GROUPS]
        return self._pull_back(u, self.data["X"], lambda z: weights * self._slope(z, y) / len(y))

    def _penalty_slope(self, u: Array, hp: dict[str, Array]) -> Array:
        total = 0 * u
        if "l2" in hp:
            total = total + hp["l2"] * u
        if "each l2" in hp:
            total = total + hp["each l2"] * u
        if "interval" in hp:
            total = total + hp["interval"] / (1 - hp["interval"]) * u
        if "shift" in hp:
            total = total - self.data["C"] @ hp["shift"].reshape(-1)
        if "simplex" in hp and self.spec.family == "quadratic":
            total = total - self.data["D"] @ hp["simplex"]
        return total

    def named(self, u: Array) -> dict[str, Array]:
        """u by name."""
        return unflat(u, {name: np.empty(shape) for name, shape in self.shapes.items()})

    def _pull_back(self, u: Array, X: Array, slope: Callable[[Array], Array]) -> Array:
        """(∂z/∂u)ᵀ s for the slopes s at z(u)."""
        if self.spec.family not in NETWORKS:
            return X.T @ slope(X @ u)
        named = self.named(u)
        before = X @ named["W"].T + named.get("b", 0)
        hidden = tanh(before) * (1 + self.hidden) if self.spec.family == "tanh" else before * (before > 0)
        bent = 1 - hidden * hidden if self.spec.family == "tanh" else (before > 0) * 1
        v = named.get("v", np.ones(hidden.shape[1], dtype=int))
        s = slope(hidden @ v)
        back = s[:, None] * v * bent
        grads = {"W": back.T @ X, "v": s @ hidden, "b": back.sum(0)}
        return flat({name: grads[name] for name in named})


def _floats(arrays: dict[str, Array]) -> dict[str, Array]:
    return {name: np.asarray(x, dtype=float) for name, x in arrays.items()}


def shaken(x: Array, eps: float, rng: np.random.Generator) -> Array:
    """x with another relative error in each entry."""
    return np.asarray(x * (1 + eps * exact(rng.standard_normal(x.shape))), dtype=object)


def moved(x: Array, k: int, step: Any) -> Array:
    x = x.copy()
    x[k] += step
    return x


def solve(A: Array, b: Array) -> Array | None:
    """A⁻¹ b by elimination with pivots; None if A is singular."""
    if A.dtype != object:
        try:
            return np.linalg.solve(A, b) if np.isfinite(A).all() else None
        except np.linalg.LinAlgError:
            return None
    M = np.concatenate([A, b[:, None]], 1)
    n, largest = len(b), max((abs(x) for x in A.reshape(-1)), default=mp.mpf(0))
    for k in range(n):
        pivot = k + int(np.argmax(np.abs(M[k:, k])))
        if abs(M[pivot, k]) <= largest * mp.mpf(10) ** -22:
            return None
        M[[k, pivot]] = M[[pivot, k]]
        M[k + 1 :, k:] -= (M[k + 1 :, k] / M[k, k])[:, None] * M[k, k:]
    x = M[:, n].copy()
    for k in reversed(range(n)):
        x[k] = (x[k] - M[k, k + 1 : n] @ x[k + 1 :]) / M[k, k]
    return x
