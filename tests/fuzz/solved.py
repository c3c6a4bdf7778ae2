"""The minimum of a composed problem and its hypergradient there, in extended precision."""

from dataclasses import dataclass

import numpy as np
import torch
from families import Composed, Formula
from jets import Array, Jet, variables

Arrays = dict[str, Array]


def exact(tensors: dict[str, torch.Tensor]) -> Arrays:
    """The same numbers in extended precision."""
    return {name: x.detach().double().numpy().astype(np.longdouble) for name, x in tensors.items()}


def flat(arrays: Arrays) -> Array:
    return np.concatenate([x.reshape(-1) for x in arrays.values()])


def like(vector: Array, arrays: Arrays) -> Arrays:
    pieces = np.split(vector, np.cumsum([x.size for x in arrays.values()])[:-1])
    return {name: piece.reshape(x.shape) for piece, (name, x) in zip(pieces, arrays.items(), strict=True)}


def norm(x: Array) -> float:
    return float(np.sqrt((x * x).sum()))


@dataclass
class Truth:
    """What a problem is in extended precision.

    Attributes:
        w: the minimum, flat.
        grad: dF/dλ there, flat.
        condition: κ of the Hessian.
        uncertainty: about how far `grad` is off.
        hessian: in double precision.
    """

    w: Array
    grad: Array
    condition: float
    uncertainty: float
    hessian: np.ndarray


class Exactly:
    """A composed problem at λ in extended precision."""

    def __init__(self, problem: Composed, hparams: dict[str, torch.Tensor]):
        self.formula: Formula = problem.formula
        self.D, self.lam = exact(problem.data), exact(hparams)
        self.start = exact(problem.init_params())

    def gradient(self, w: Array) -> tuple[float, Array]:
        """g and ∇_w g."""
        found = self.formula.inner(variables(like(w, self.start)), self._constants(self.lam, 0), self.D)
        return found.value[()], found.slope

    def hessian(self, w: Array) -> np.ndarray:
        """In double precision."""
        p = {name: x.astype(float) for name, x in like(w, self.start).items()}
        rough = {name: x.astype(float) for name, x in self.D.items()}
        lam = {name: x.astype(float) for name, x in self.lam.items()}
        H = self.formula.inner(variables(p, rows=len(w)), self._constants(lam, len(w)), rough).bend
        return (H + H.T) / 2

    def _constants(self, lam: Arrays, rows: int) -> dict[str, Jet]:
        return {name: Jet(x, None, None, rows) for name, x in lam.items()}

    def minimum(self, w: Array, *, steps: int = 300) -> Array | None:
        """The minimum to which descent leads from w, by Newton's method; None if it does not get there."""
        value, slope = self.gradient(w)
        shortest, waited = np.inf, 0
        for _ in range(steps):
            curvatures, U = np.linalg.eigh(self.hessian(w))
            bounded = np.maximum(abs(curvatures), 1e-13 * abs(curvatures).max())
            step = -(U / bounded) @ (U.T @ slope.astype(float))
            length, rate = norm(step), 1.0
            if curvatures[0] <= 0:
                rate = min(1.0, 0.3 * max(1.0, norm(w)) / max(length, 1e-300))
            for _ in range(60):
                there = w + rate * step
                after, sloped = self.gradient(there)
                if np.isfinite(after) and (after < value or norm(sloped) < 0.9 * norm(slope) and curvatures[0] > 0):
                    break
                rate /= 2
            else:
                there, after, sloped = w, value, slope
            w, value, slope = there, after, sloped
            if curvatures[0] > 0 and length <= 1e-17 * max(norm(w), 1e-30):
                return w
            waited = 0 if length < shortest / 2 else waited + 1
            shortest = min(shortest, length)
            if waited >= 8 and curvatures[0] > 0 and shortest <= 1e-12 * max(norm(w), 1e-30):
                return w
        return None

    def hypergradient(self, w: Array) -> tuple[Array, np.ndarray, Array]:
        """dF/dλ by the implicit function theorem at w, the Hessian in double precision, and its last correction."""
        n, p = len(w), like(w, self.start)
        d = sum(x.size for x in self.lam.values())
        w_jets, lam_jets = variables(p, others=d, rows=n), variables(self.lam, first=n, rows=n)
        B, phi = (x := self.formula.inner(w_jets, lam_jets, self.D)).bend, x.slope[:n]
        w_jets, lam_jets = variables(p, others=d), variables(self.lam, first=n)
        outer = self.formula.outer(w_jets, lam_jets, self.D).slope
        H, M = B[:, :n], B[:, n:]
        v = refined(H, outer[:n])
        return outer[n:] - v @ M, H.astype(float), refined(H, phi)

    def truth(self, w: Array) -> Truth | None:
        """All of it at the minimum near w; None if there is none that is known well."""
        solution = self.minimum(w)
        if solution is None:
            return None
        grad, H, step = self.hypergradient(solution)
        curvatures = np.linalg.eigvalsh((H + H.T) / 2)
        if not curvatures[0] > 1e-13 * curvatures[-1]:
            return None
        again, _, _ = self.hypergradient(solution - step)
        condition = curvatures[-1] / curvatures[0]
        unsure = norm(again - grad) + 1e-18 * condition * norm(grad)
        return Truth(solution - step, again, condition, unsure, H)


def refined(H: Array, b: Array) -> Array:
    """H⁻¹ b by a factorisation in double precision, refined in extended precision."""
    inverse = np.linalg.inv(H.astype(float)).astype(np.longdouble)
    x = inverse @ b
    for _ in range(40):
        step = inverse @ (b - H @ x)
        x = x + step
        if norm(step) <= 1e-18 * norm(x):
            break
    return x
