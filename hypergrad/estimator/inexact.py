"""Reasons to distrust an estimate, as sentences made from its reports."""

import math

from hypergrad.core.status import Status
from hypergrad.estimator.base import Hypergradient
from hypergrad.estimator.report import NO_GRADIENT, AdjointReport, ErrorBar, UnrollingReport
from hypergrad.training.report import TrainingReport

_BIASED = 0.1
"""A bias of a tenth of the norm hardly changes where an outer step leads: a judgement."""
_EXPLODED = 1e6
"""A growth of the adjoint after which the sum over the steps says little, a judgement; contraction is below 1."""
_UNSOLVED = 0.1
"""A relative residual of the adjoint system that is too large for any tolerance, a judgement."""
_WORTHLESS = 1.0
"""A bound on the relative error of the adjoint that promises no correct digit."""
_FINE = (Status.CONVERGED, Status.NOT_REQUIRED)
_REMEDIES = {
    Status.RISING: "Its loss is higher than at the start: lower the solver's lr.",
    Status.STAGNATED: "Rounding allows no less: loosen inner_tol, or compute in float64.",
}


def inexactness(found: Hypergradient) -> dict[str, str]:
    """A sentence with the number and a remedy for each number that shows inexactness, by its key in the stats."""
    reasons: dict[str, str] = {}
    if found.training is not None:
        reasons |= _of_training(found.training)
    if found.adjoint_system is not None:
        reasons |= _of_adjoint(found.adjoint_system)
    if found.unrolling is not None and found.training is not None:
        reasons |= _of_horizon(found.unrolling, found.training.steps) | _of_growth(found.unrolling)
    if found.error_bar is not None:
        reasons |= _of_error_bar(found.error_bar)
    return reasons


def _of_training(report: TrainingReport) -> dict[str, str]:
    if report.status in _FINE:
        return {}
    remedy = _REMEDIES.get(report.status, "Raise inner_steps, improve the solver's lr, or loosen inner_tol.")
    return {
        "inner_status": "the hypergradient is inexact because the inner problem is not solved: its gradient norm is "
        f"{report.grad_norm:.2e} after {report.steps} steps. {remedy}"
    }


def _of_adjoint(report: AdjointReport) -> dict[str, str]:
    """Whether the adjoint system H v = b was solved, and accurately: ‖v − v*‖/‖v*‖ ≤ κ ‖b − H v‖/‖b‖."""
    residual, condition = report.residual, report.condition
    if report.status not in _FINE:
        at = "" if math.isnan(condition) else f", at a condition number κ of {condition:.1e} or more"
        remedy = (
            "Rounding allows no less: loosen the linear solver's tol, add damping, or compute in float64."
            if report.status == Status.STAGNATED
            else "Give the linear solver more products, loosen its tol, or add damping."
        )
        return {
            "adjoint_status": "the hypergradient is inexact because the adjoint system is not solved "
            f"({report.status}): its relative residual is {residual:.2e} after {report.num_matvecs} products{at}. "
            f"{remedy}"
        }
    if report.status == Status.NOT_REQUIRED:
        return {}
    if residual > _UNSOLVED:
        return {
            "adjoint_residual": "the hypergradient may be wrong because the adjoint system is hardly solved: its "
            f"relative residual is {residual:.2g} after {report.num_matvecs} products, within the tolerance that was "
            "asked for. Tighten the linear solver's tol, or give it more products."
        }
    if condition * residual > _WORTHLESS:
        return {
            "adjoint_condition": "the hypergradient may be wrong because the adjoint system is ill-conditioned: at a "
            f"condition number κ of {condition:.1e}, a relative residual of {residual:.2e} allows the adjoint a "
            f"relative error of κ times that, {condition * residual:.1e}. Tighten the linear solver's tol, or add "
            "damping."
        }
    return {}


def _of_horizon(report: UnrollingReport, inner_steps: int) -> dict[str, str]:
    if report.truncation_bias is None or not report.truncation_bias > _BIASED:
        return {}
    return {
        "truncation_bias": f"the hypergradient is biased, by some {report.truncation_bias:.0%} of its norm, because it "
        f"stops at a horizon of {report.num_matvecs} of {inner_steps} steps. Raise the horizon."
    }


def _of_growth(report: UnrollingReport) -> dict[str, str]:
    if report.growth is None or report.growth <= _EXPLODED:
        return {}
    return {
        "adjoint_growth": "the hypergradient explodes: on the way back through the steps, the effect of the parameters "
        f"on the outer loss grew by a factor of {report.growth:.0e}, where training that settles lets it shrink. Lower "
        "the solver's lr, take fewer inner_steps, or differentiate the last steps only, by horizon."
    }


def _of_error_bar(report: ErrorBar) -> dict[str, str]:
    """Whether the error is known; it never is for a condition that is no gradient, which is nobody's mistake."""
    if not math.isnan(report.estimate) or report.status == ErrorBar.unknown(NO_GRADIENT).status:
        return {}
    return {
        "error_status": f"the error of the hypergradient is {report.status}. Solve the inner problem and the adjoint "
        "system further: with more inner_steps or another solver, and a smaller tol of the linear solver. If it stays "
        "unknown, python -m hypergrad.check compares the hypergradient with training again."
    }
