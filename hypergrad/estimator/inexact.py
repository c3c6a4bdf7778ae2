"""What the statistics of an estimate say against it, in words."""

from hypergrad.estimator.base import Stats

_BIASED = 0.1
_FINE = ("converged", "not_required")
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
    if stats.get("adjoint_status", "converged") not in _FINE:
        reasons["adjoint_status"] = (
            f"the hypergradient is inexact because the adjoint system is not solved ({stats['adjoint_status']}): its "
            f"relative residual is {stats['adjoint_residual']:.2e} after {stats['num_matvecs']} products. "
            + (
                "Rounding allows no less: loosen the linear solver's tol, or compute in float64."
                if stats["adjoint_status"] == "stagnated"
                else "Give the linear solver more products, loosen its tol, or add damping."
            )
        )
    bias = float(stats.get("truncation_bias", 0.0))
    if bias > _BIASED:
        reasons["truncation_bias"] = (
            f"the hypergradient is biased, by some {bias:.0%} of its norm, because it stops at a horizon of "
            f"{stats['num_matvecs']} of {stats['inner_steps']} steps. Raise the horizon."
        )
    return reasons
