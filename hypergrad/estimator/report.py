"""The accuracy and cost of an estimate: one report for each part of the work, and a flat view of all."""

import math
from dataclasses import dataclass
from typing import Any

from hypergrad.core.status import Status
from hypergrad.training.report import TrainingReport


@dataclass(frozen=True)
class AdjointReport:
    """How well an implicit estimator solved its adjoint system.

    Attributes:
        num_matvecs: products with the Hessian.
        residual: ‖b − A v‖ / ‖b‖, dimensionless.
        status: converged, or why the tolerance was not met.
        remark: what the linear solver chose, and why; "" if there was no choice.
        condition: the condition number κ, estimated from below, see `LinearSolution`; NaN if it is not known.
        support_size: the number of entries of w that move with λ, if some do not, as in a sparse solution; if it is 0,
            the indirect term is exactly zero. None if all move.
    """

    num_matvecs: int
    residual: float
    status: Status
    remark: str = ""
    condition: float = math.nan
    support_size: int | None = None


@dataclass(frozen=True)
class UnrollingReport:
    """The cost and bias of differentiating through training.

    Attributes:
        num_matvecs: products with the Hessian in the sweep through the steps.
        truncation_bias: an estimate of ‖dropped terms‖ / ‖dF/dλ‖, see `hypergrad.estimator.tally`; None if no step
            can be dropped.
        growth: ‖∂F/∂w_t‖ at the first step t that was reached, over ‖∂F/∂w_T‖ at the end; None if it is not known. It
            is below 1 where training contracts, and large where a small change early in training changes all.
    """

    num_matvecs: int
    truncation_bias: float | None = None
    growth: float | None = None


NO_GRADIENT = "the optimality condition is not the gradient of the inner loss"
"""Why the error of an estimate for such a condition is unknown."""


@dataclass(frozen=True)
class ErrorBar:
    """An estimate of ‖estimate − dF/dλ‖.

    Attributes:
        estimate: in the units of the hypergradient; NaN if it is unknown.
        status: "estimated", or "unknown: …" with the assumption that failed.
        num_matvecs: products with the Hessian.
        remark: what it leaves out, or a loss whose value in float64 is another one; None if there is neither.
    """

    estimate: float
    status: str
    num_matvecs: int
    remark: str | None = None

    @classmethod
    def unknown(cls, why: str, num_matvecs: int = 0) -> "ErrorBar":
        """No estimate, and why."""
        return cls(math.nan, f"unknown: {why}", num_matvecs)


@dataclass(frozen=True)
class SamplingReport:
    """How far a hypergradient of mean losses over random batches would move with other batches, at the same w.

    Attributes:
        standard_error: the root of the summed squares of `standard_errors`; NaN for a single batch.
        num_batches: how many batches, ≥ 1.
        standard_errors: of each entry of the hypergradient, shaped as it.
    """

    standard_error: float
    num_batches: int
    standard_errors: Any


Report = TrainingReport | AdjointReport | UnrollingReport | ErrorBar | SamplingReport

_KEYS: dict[type, dict[str, str]] = {
    TrainingReport: {
        "loss": "inner_loss",
        "grad_norm": "inner_grad_norm",
        "steps": "inner_steps",
        "status": "inner_status",
        "remark": "training_remark",
    },
    AdjointReport: {
        "num_matvecs": "num_matvecs",
        "residual": "adjoint_residual",
        "status": "adjoint_status",
        "remark": "adjoint_remark",
        "condition": "adjoint_condition",
        "support_size": "support_size",
    },
    UnrollingReport: {
        "num_matvecs": "num_matvecs",
        "truncation_bias": "truncation_bias",
        "growth": "adjoint_growth",
    },
    ErrorBar: {
        "estimate": "error_estimate",
        "status": "error_status",
        "num_matvecs": "error_matvecs",
        "remark": "error_remark",
    },
    SamplingReport: {"standard_error": "standard_error", "num_batches": "num_batches"},
}
"""The fields of each report by their names in logs."""


def flat(*reports: Report | None) -> dict[str, float | int | str]:
    """All numbers of the reports by their names in logs, as plain values; None, a report or field, is left out."""
    numbers: dict[str, float | int | str] = {}
    for report in reports:
        for name, key in _KEYS[type(report)].items() if report is not None else ():
            value = getattr(report, name)
            if value is not None:
                numbers[key] = str(value) if isinstance(value, Status) else value
    return numbers
