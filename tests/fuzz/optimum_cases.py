"""Random optima and roots with a known solution path, and random nestings of transforms around `hg.argmin`."""

import math
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import exact_arrays as m
import mpmath
import torch
from composition_verdicts import OUTSIDE, REFUSED, RIGHT, TRACEBACK, WRONG, Verdict
from compositions import SIDE, Composition, H, OutsideError, coefficients_of
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

import hypergrad as hg

STEP = mpmath.mpf(10) ** -22
"""Of central differences of a loss; their error is its square."""
TRANSFORMS = ("jvp", "append_jvp", "jacfwd", "jacrev", "grad", "vmap")
Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class OptimumCase:
    """g(w, λ) = (w − w₀)ᵀ B (w − w₀)/2 + ε Σ Q h(w, λ) − r·w, or φ(w, λ) = B (w − w₀) + ε h(w, λ) − r.

    r is such that w₀ solves the problem at λ₀.

    Attributes:
        h: a composition of w, shape (2, 3), and λ, of the same shape.
        is_root: whether it is φ.
        B: 6 × 6.
        Q: weights, (2, 3).
        direction: δ.
        epsilon: ε.
        modes: the transforms, from the inner one to the outer one.
    """

    h: Composition
    is_root: bool
    B: Tensor
    Q: Tensor
    direction: Tensor
    epsilon: float
    modes: tuple[str, ...]

    @classmethod
    def draw(cls, seed: int, number: int) -> "OptimumCase":
        """Case `number` of a seed.

        Raises:
            OutsideError: if the composition has no derivatives there.
        """
        rng = random.Random(f"optimum {seed}/{number}")
        h = Composition.draw(seed, rng.randrange(2**31), degree=3)
        generator = torch.Generator().manual_seed(number)
        B = torch.randn(6, 6, generator=generator).double() / 4
        is_root = rng.random() < 0.5
        B = B + 2 * torch.eye(6) if is_root else B @ B.T + 2 * torch.eye(6)
        Q, direction = torch.randn(2, 2, 3, generator=generator).double()
        try:
            slope = jacrev(lambda w: h.of_tensors(w, h.y[0]))(h.x[0])
            second = jacrev(jacrev(lambda w: (Q * h.of_tensors(w, h.y[0])).sum()))(h.x[0])
        except RuntimeError as error:
            raise OutsideError(str(error)) from error
        size = float((slope if is_root else second).norm())
        if not math.isfinite(size) or size > 1e4:
            raise OutsideError(f"a slope of {size}")
        modes = tuple(rng.choice(TRANSFORMS) for _ in range(rng.randint(1, 4)))
        ending = rng.choice(((), (), ("hessian",), ("autograd",)))
        others = {(): 3, ("autograd",): 2, ("hessian",): 1}[ending]
        return cls(h, is_root, B, Q, direction, min(0.5, 1 / (1 + size)), modes[:others] + ending)

    @property
    def order(self) -> int:
        """Of the derivative that the modes form."""
        return sum({"vmap": 0, "hessian": 2}.get(mode, 1) for mode in self.modes)

    def inner(self) -> Any:
        """The inner problem for hypergrad."""
        w0, hp0 = self.h.x[0], self.h.y[0]
        assert w0 is not None
        start = w0

        def quadratic(w: Tensor) -> Tensor:
            return ((w - start).reshape(-1) @ self.B).reshape(2, 3)

        if self.is_root:
            shift = self.epsilon * self.h.of_tensors(w0, hp0)
            return hg.Root(lambda w, hp: quadratic(w) + self.epsilon * self.h.of_tensors(w, hp) - shift)

        def extra(w: Tensor, hp: Any) -> Tensor:
            return self.epsilon * (self.Q * self.h.of_tensors(w, hp)).sum()

        slope = grad(extra)(w0, hp0)
        return lambda w, hp: (quadratic(w) * (w - start)).sum() / 2 + extra(w, hp) - (slope * w).sum()

    def truth(self, degree: int) -> list[Tensor]:
        """The Taylor coefficients of w*(λ₀ + δ t) in 70 digits.

        Raises:
            OutsideError: if the path is not smooth.
        """
        w0, hp0, d, B, Q = (m.exact(v) for v in (self.h.x[0], self.h.y[0], self.direction, self.B, self.Q))
        epsilon = mpmath.mpf(self.epsilon)

        def h(w: Any, hp: Any) -> Any:
            return self.h.of_arrays(w, hp)[-1]

        def force(w: Any, hp: Any) -> Any:
            if self.is_root:
                return h(w, hp).ravel()
            return m.gradient(lambda v: (Q * h(v, hp)).sum(), w, STEP).ravel()

        start = force(w0, hp0)

        def phi(w: Any, hp: Any) -> Any:
            return (w - w0).ravel() @ B + epsilon * (force(w, hp) - start)

        slope = m.jacobian(lambda w: phi(w, hp0), w0, mpmath.mpf(10) ** -12)
        sides = []
        for sign in (-1, 1):
            values = [w0]
            for i in range(1, SIDE + 1):
                hp, w = hp0 + d * (sign * i * H), values[-1]
                for _ in range(7):
                    w = w - m.solve(slope, phi(w, hp)).reshape(2, 3)
                values.append(w)
            sides.append(coefficients_of(values, sign * H, degree))
        for left, right in zip(*sides, strict=True):
            if abs(left - right).max() > 1e-6 * (1 + abs(left).max()):
                raise OutsideError("a kink")
        return [torch.tensor(c.astype(float)) for c in sides[1]]


def directional(function: Function, mode: str, d: Tensor) -> Function:
    """The derivative of a scalar function of λ along d by a transform, or the function itself under `vmap`."""
    found = {
        "jvp": lambda hp: jvp(function, (hp,), (d,))[1],
        "append_jvp": lambda hp: hg.append_jvp(function)(hp, d),
        "jacfwd": lambda hp: (jacfwd(function)(hp) * d).sum(),
        "jacrev": lambda hp: (jacrev(function)(hp) * d).sum(),
        "grad": lambda hp: (grad(function)(hp) * d).sum(),
        "vmap": lambda hp: vmap(function)(torch.stack([hp, hp]))[1],
        "hessian": lambda hp: d.reshape(-1) @ hessian(function)(hp).reshape(6, 6) @ d.reshape(-1),
        "autograd": lambda hp: (torch.autograd.functional.jacobian(function, hp) * d).sum(),
    }
    return found[mode]


def optimum_verdict(seed: int, number: int) -> Verdict:
    """Of the Taylor expansion and of `hg.argmin` under the modes, at a random optimum or root."""
    try:
        case = OptimumCase.draw(seed, number)
        truth = case.truth(3)
    except (OutsideError, ZeroDivisionError, ValueError) as error:
        return OUTSIDE, str(error)
    if case.h.smooth() < 3:
        return OUTSIDE, "a kink"
    w0, hp0 = case.h.x[0], case.h.y[0]
    assert hp0 is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hg.NoTaylorRuleWarning)
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)  # vmap, of itself
        try:
            expansion = hg.TaylorExpansion(order=3).at(case.inner(), w0, hp0)
            found = expansion.derivatives(case.direction)
            several = expansion.derivatives(torch.stack([0 * case.direction, case.direction]))
        except Exception as error:
            return _judged(error, "TaylorExpansion")
        for k in (1, 2, 3):
            right = math.factorial(k) * truth[k]
            for ours in (found[k - 1], several[k - 1][1]):
                if not torch.allclose(ours, right, rtol=1e-6, atol=1e-8):
                    return WRONG, f"order {k} of the expansion is {ours.tolist()}, not {right.tolist()}"
        try:
            argmin = hg.argmin(case.inner(), w0, hp0, order=1)

            def function(hp: Tensor) -> Tensor:
                return (case.Q * argmin(hp)).sum()

            nested: Function = function
            for mode in case.modes:
                nested = directional(nested, mode, case.direction)
            by_modes = nested(hp0)
        except Exception as error:
            return _judged(error, f"argmin under {case.modes}")
    right = math.factorial(case.order) * float((case.Q * truth[case.order]).sum())
    if math.isnan(by_modes):
        return REFUSED, f"argmin under {case.modes} is NaN"
    if not math.isclose(float(by_modes), right, rel_tol=1e-6, abs_tol=1e-7):
        return WRONG, f"argmin under {case.modes} is {float(by_modes)}, not {right}"
    return RIGHT, ""


def _judged(error: Exception, where: str) -> Verdict:
    ours = isinstance(error, hg.HypergradError | NotImplementedError)
    return REFUSED if ours else TRACEBACK, f"{where}: {type(error).__name__}: {error}"
