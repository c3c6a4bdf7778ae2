"""What the statistics of an estimate say against it, in words."""

import math

from hypergrad.estimator.base import Stats

_BIASED = 0.1
_FINE = ("converged", "not_required")
_WORTHLESS = 1.0
"""A bound on the relative error of the adjoint that promises no correct digit."""
_REMEDIES = {
    "rising": "Its loss is higher than at the start: lower the solver's lr.",
    "stagnated": "Rounding allows no less: loosen inner_tol, or compute in float64.",
}


def inexactness(stats: Stats) -> dict[str, str]:
    """A sentence with the number met and the remedy, for each statistic that says so, by its name."""
    reasons: dict[str, str] = {}
    inner = stats.get("inner_status", "converged")
    if inner not in _FINE:
        remedy = _REMEDIES.get(str(inner), "Raise inner_steps, improve the solver's lr, or loosen inner_tol.")
        reasons["inner_status"] = (
            f"the hypergradient is inexact because the inner problem is not solved: its gradient norm is "
            f"{stats['inner_grad_norm']:.2e} after {stats['inner_steps']} steps. {remedy}"
        )
    reasons |= _of_the_adjoint(stats)
    bias = float(stats.get("truncation_bias", 0.0))
    if bias > _BIASED:
        reasons["truncation_bias"] = (
            f"the hypergradient is biased, by some {bias:.0%} of its norm, because it stops at a horizon of "
            f"{stats['num_matvecs']} of {stats['inner_steps']} steps. Raise the horizon."
        )
    return reasons


def _of_the_adjoint(stats: Stats) -> dict[str, str]:
    """Whether the adjoint system H v = b was solved, and well: ‖v − v*‖/‖v*‖ ≤ κ ‖b − H v‖/‖b‖."""
    if "adjoint_status" not in stats:
        return {}
    residual, condition = float(stats["adjoint_residual"]), float(stats.get("adjoint_condition", math.nan))
    if stats["adjoint_status"] not in _FINE:
        at = "" if math.isnan(condition) else f", at a condition number κ of {condition:.1e} or more"
        remedy = (
            "Rounding allows no less: loosen the linear solver's tol, add damping, or compute in float64."
            if stats["adjoint_status"] == "stagnated"
            else "Give the linear solver more products, loosen its tol, or add damping."
        )
        return {
            "adjoint_status": "the hypergradient is inexact because the adjoint system is not solved "
            f"({stats['adjoint_status']}): its relative residual is {residual:.2e} after {stats['num_matvecs']} "
            f"products{at}. {remedy}"
        }
    if condition * residual > _WORTHLESS:
        return {
            "adjoint_condition": "the hypergradient may be wrong because the adjoint system is ill-conditioned: at a "
            f"condition number κ of {condition:.1e}, a relative residual of {residual:.2e} allows the adjoint a "
            f"relative error of κ times that, {condition * residual:.1e}. Tighten the linear solver's tol, or add "
            "damping."
        }
    return {}
