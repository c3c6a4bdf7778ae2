"""How wrong an implicit hypergradient is. The mathematics is in docs/error_bar.md."""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hypergrad.core.autodiff import flatten, unflatten
from hypergrad.core.errors import HypergradError
from hypergrad.core.local_shard import standard_normal
from hypergrad.core.operator import Operator
from hypergrad.estimator.linearization import Linearization
from hypergrad.estimator.loss_rounding import NotMeasuredError, measure
from hypergrad.estimator.norms import norm, root_mean_square
from hypergrad.estimator.point import Point
from hypergrad.estimator.report import NO_GRADIENT, ErrorBar
from hypergrad.linsolve.base import LinearSolver, Preconditioner
from hypergrad.linsolve.cg import CG
from hypergrad.linsolve.inverse import Inverse, UnresolvedError
from hypergrad.linsolve.recording import Recording

_SAFETY = 3.0
"""The bar over the distance that the Newton step moves the hypergradient: a judgement."""
_QUADRATIC_REGIME = 0.1
"""Near a solution a Newton step squares a small ‖φ‖. A larger remaining part means it is not near. Calibrated by the
sweep: with 0.3 the bar covers 98.7 % of the errors of tanh networks, with 0.1 all of the same ones."""
_SHORT = 1e-6
"""A step this short, relative to ‖w‖, cannot have left the region where φ is linear: a judgement."""
_SAMPLES = 3
"""Random vectors by which an effect is measured. A judgement: three are seldom all small by chance."""
_ROUNDING = 3.0
"""Rounding errors over ε times the sizes of what is added up, calibrated by tests/estimator/test_error_bar_sweep.py."""
_GENERIC = 3.0
"""The effect of a residual over that of a random vector of its length, calibrated by the same tests."""
_NEGLIGIBLE = 0.5
"""What the solves leave may have an effect of this part of the distance: a judgement."""
_STEPS = 6
"""Newton steps within which φ must become linear: a judgement."""
_DISAGREE = 0.1
"""Between differences and second derivatives, relative. A judgement: so much is no longer a small inexactness."""


def error_bar(here: Linearization, adjoint: Tensor, linsolve: LinearSolver, seen: Recording, budget: int) -> ErrorBar:
    """Three times the distance that a hypergradient moves in one Newton step of both of its unknowns, and more.

    The hypergradient at (w, v) is ∂L/∂λ of L = f − vᵀφ, and the true one is where φ = 0 and ∂L/∂w = ∂f/∂w − Hv = 0.
    One step of Newton's method for the two,

        H(w) δ = −φ(w),    H(w + δ) ε = ∂f/∂w(w + δ) − H(w + δ) v,

    gives a hypergradient at (w + δ, v + ε) that is far closer to the truth. So its distance from the first one
    estimates the error of the first one. Added to it are what the two solves leave, and the effect of rounding in φ, in
    the second right-hand side and in the products with ∂φ/∂λ. H is exact, whatever product the estimate used. The error
    is unknown where curvature is negative or lost in rounding, where the solves need too many products, where φ is not
    linear within a few steps, or where the problem is a restriction that may not hold there.

    Args:
        here: the linearisation at w.
        adjoint: v, the (inexact) adjoint, shape (n,).
        linsolve: if it is a CG, its preconditioner is used here too.
        seen: the products that the adjoint needed.
        budget: most products.

    Returns:
        The estimate, in the units of the hypergradient.
    """
    if not here.point.oracle.problem.is_minimisation:
        return ErrorBar.unknown(NO_GRADIENT)
    if adjoint.numel() == 0:  # no parameter moves, and the direct term is exact
        objection = here.point.objection(here.point.params)
        return ErrorBar.unknown(objection) if objection else ErrorBar(0.0, "estimated", 0)
    step = _NewtonStep(here, adjoint, seen, linsolve.preconditioner if isinstance(linsolve, CG) else None, budget)
    try:
        return ErrorBar(step.bar(), "estimated", step.spent, step.remark)
    except UnresolvedError as reason:
        return ErrorBar.unknown(str(reason), step.spent)
    except HypergradError as error:
        return ErrorBar.unknown(f"{type(error).__name__} in the Newton step", step.spent)


@dataclass
class _NewtonStep:
    """Newton's step from (w, v), the products that are known and those that were needed."""

    here: Linearization
    adjoint: Tensor
    seen: Recording
    outside: Preconditioner | None
    budget: int
    extra: int = 0
    inverse: Inverse | None = None
    remark: str | None = None
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    @property
    def spent(self) -> int:
        return self.extra + (0 if self.inverse is None else self.inverse.spent)

    def bar(self) -> float:
        """The estimate.

        Also raised, by what it calls: UnresolvedError if there is none; the message says why.
        """
        estimated = self.here
        self._refer()
        here, v = self.here, self.adjoint
        H = here.inner.product
        self.inverse = inverse = Inverse.of(H, here.df_dw, self.seen, self.outside, self.budget)
        self.first = estimated.gradient(v)
        vanishing = self._effect(here, [self._random() * v for _ in range(_SAMPLES)])
        eps = torch.finfo(v.dtype).eps
        self.rounding = eps * (_ROUNDING * vanishing + norm(self.first))
        self.before = here.df_dw - H(v)
        self.extra += 1
        x, left = inverse.rough(here.inner.phi)
        while True:
            far, noise = self._linear_from(here, x, left)
            moved, behind = self._adjoint_error(far, noise)
            if behind <= _NEGLIGIBLE * moved:
                return _SAFETY * (moved + behind)
            self.inverse = self.inverse.moved(H)
            more, left = self.inverse.further(left)
            x = x + more

    def _refer(self) -> None:
        """Take the losses and products that are exact to the rounding of w, if the estimate used others.

        Raises:
            UnresolvedError: if there are none, or if differences contradict them.
        """
        point, rough = self.here.point, self.here.inner.product
        problem = point.oracle.problem
        if point.product.reference is not point.product or problem.exact is not problem:
            self._refer_to(replace(point, oracle=replace(point.oracle, problem=problem.exact)), rough)
        eps = torch.finfo(self.adjoint.dtype).eps
        if self.here.inner.product.inaccuracy is not None or self.here.outer_rounding > eps:
            raise UnresolvedError("a loss is computed in a coarser format than that of the parameters")

    def _refer_to(self, point: Point, rough: Operator) -> None:
        self.seen = Recording(whole=self.seen.whole)
        try:
            self.here = Linearization.at(replace(point, product=point.product.reference))
            exact = self.here.inner.product(self.adjoint)
        except (RuntimeError, ValueError) as error:
            reason = UnresolvedError("the inner loss cannot be differentiated twice")
            raise error if isinstance(error, HypergradError) else reason from error
        self.extra += 1
        if rough.inaccuracy is not None:
            self.extra += 1
            differed = rough(self.adjoint)
            off = norm(differed - exact) / (max(norm(exact), norm(differed)) or 1.0)
            if not off <= _DISAGREE:
                is_rounded = point.product.reference is point.product
                rough_ones = "products in this precision" if is_rounded else "differences"
                raise UnresolvedError(f"{rough_ones} and second derivatives disagree by {off:.1g} of the product")

    def _linear_from(self, at: Linearization, x: Tensor, left: Tensor) -> tuple[Linearization, float]:
        """Where a Newton step from a point of the linear regime ends, and the rounding error of an entry of φ.

        Raises:
            UnresolvedError: if there is no such point within a few steps, or the problem does not hold there.
        """
        left_over = torch.inf
        for _ in range(_STEPS):
            inverse, w = self._inverse, flatten(at.point.params)
            eps = torch.finfo(w.dtype).eps
            sizes = inverse.size * norm(w) + norm(self.here.inner.phi)
            noise = _ROUNDING * eps * sizes / math.sqrt(len(w))
            xi = noise * self._random()  # so that an accidental φ = 0 tells nothing
            shaken, outside = inverse.rough(xi)
            far = Linearization.at(replace(at.point, params=unflatten(w + shaken - x, at.point.params)))
            objection = self.here.point.objection(far.point.params)
            if objection:
                raise UnresolvedError(objection)
            first, bent = at.inner.evaluation.grad_norm, far.inner.phi - left - xi + outside
            self.inverse = inverse.moved(far.inner.product)
            # ‖φ‖ hides what is left along small curvatures, and the length of the next step shows it.
            is_local = norm(bent) <= _QUADRATIC_REGIME * first + 2 * noise * math.sqrt(len(w))
            again = self.inverse.rough(bent)[0]
            is_local = is_local and norm(again) <= _QUADRATIC_REGIME * norm(x) + 2 * norm(shaken)
            if is_local or norm(x) <= _SHORT * norm(w):
                return far, noise
            left_over, at = max(norm(bent) / first, norm(again) / norm(x)), far
            x, left = self.inverse.rough(far.inner.phi) if inverse.is_whole else self.inverse.further(far.inner.phi)
        raise UnresolvedError(f"a Newton step leaves {left_over:.2g} of the way to a minimum, too far to be local")

    def _adjoint_error(self, far: Linearization, noise: float) -> tuple[float, float]:
        """How far the hypergradient moves, with what rounding may add, and what the rest of φ may add."""
        v, inverse, root = self.adjoint, self._inverse, math.sqrt(len(self.adjoint))
        eps = torch.finfo(v.dtype).eps
        r = far.df_dw - far.inner.product(v)
        self.extra += 1
        way = norm(flatten(far.point.params) - flatten(self.here.point.params))
        slope = norm(r - self.before) / max(way, torch.finfo(v.dtype).tiny)
        unsure = _ROUNDING * eps * (inverse.size * norm(v) + norm(far.df_dw)) / root
        epsilon, rest = inverse.rough(r)
        if norm(rest) > root * unsure:  # else the subspace solves the system to rounding
            more, rest = inverse.further(rest)
            epsilon = epsilon + more
        while True:
            spread = [inverse.spread(self._random()) for _ in range(_SAMPLES)]
            effect, wide = self._effect(far, spread), root_mean_square(spread) / root
            floor = effect * (unsure + slope * wide * noise) + self.rounding
            moved = norm(far.gradient(v + epsilon) - self.first) + floor
            remains = _GENERIC * effect * norm(rest) / root
            if remains <= _NEGLIGIBLE * moved:
                break
            more, rest = inverse.further(rest)
            epsilon = epsilon + more
        behind = 0.0 if inverse.is_whole else _GENERIC * effect * slope * wide * norm(far.inner.phi) / root
        if norm(far.inner.phi) > 3 * noise * root:  # more than the disturbance and rounding
            moved = max(moved, norm(self._after_next(far, v + epsilon) - self.first) + floor)
        if v.dtype == torch.float32:
            moved = max(moved, self._without_loss_rounding(far, v + epsilon, effect / root, slope) + floor)
        return moved + remains, behind

    def _without_loss_rounding(self, far: Linearization, v: Tensor, effect: float, slope: float) -> float:
        """The distance to the hypergradient with losses in float64; 0 and a remark if there is none."""
        try:
            found = measure(far, v, self._inverse)
        except NotMeasuredError as reason:
            self.remark = f"rounding inside the losses was not measured: {reason}"
            return 0.0
        self.extra, self.remark = self.extra + 1, found.remark
        return norm(found.grad - self.first) + _GENERIC * effect * (found.rest + slope * found.shift)

    def _after_next(self, far: Linearization, v: Tensor) -> Tensor:
        """The hypergradient after one more step of both unknowns, where both ends of the first may be equally wrong."""
        inverse, params = self._inverse, far.point.params
        w = flatten(params) - inverse.rough(far.inner.phi)[0]
        there = Linearization.at(replace(far.point, params=unflatten(w, params)))
        self.extra += 1
        return there.gradient(v + inverse.rough(there.df_dw - there.inner.product(v))[0])

    @property
    def _inverse(self) -> Inverse:
        assert self.inverse is not None
        return self.inverse

    def _random(self) -> Tensor:
        return standard_normal(self.adjoint, self.generator)

    def _effect(self, at: Linearization, vectors: list[Tensor]) -> float:
        """The root mean square of ‖(∂φ/∂λ)ᵀ x‖."""
        return root_mean_square([at.flat_indirect(x) for x in vectors])
