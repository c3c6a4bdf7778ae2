"""Estimators compared with their witnesses: one row per direction, with a verdict."""

import time
from dataclasses import dataclass

from hypergrad.check.central_differences import Witness
from hypergrad.check.directions import Directions
from hypergrad.check.report import AGREES, DISAGREES, Row
from hypergrad.check.witnesses import Witnesses
from hypergrad.core.autodiff import Tensors
from hypergrad.core.errors import HypergradError
from hypergrad.estimator.base import HypergradEstimator
from hypergrad.problem.base import InnerProblem

_NAN = float("nan")
_WORTHLESS = 0.1
"""A witness that is uncertain by more than this part of its value says too little for a verdict."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Compares estimators with witnesses at one point; see `check_hypergradient`.

    Attributes:
        problem: what is tuned.
        params: where all training starts.
        directions: the point λ and the directions.
        witnesses: for any estimator.
        tol: the relative error that is allowed.
    """

    problem: InnerProblem
    params: Tensors
    directions: Directions
    witnesses: Witnesses
    tol: float

    def rows(self, name: str, estimator: HypergradEstimator) -> list[Row]:
        """One row per direction, or one that says why there is no estimate."""
        begin = time.perf_counter()
        try:
            found = estimator.estimate(self.problem, self.directions.hparams, self.params)
        except HypergradError as error:
            seconds = time.perf_counter() - begin
            return [Row(name, None, _NAN, _NAN, _NAN, _NAN, _NAN, 0, seconds, f"error: {error}")]
        seconds, products = time.perf_counter() - begin, found.num_matvecs
        derivatives, witnesses = self.directions.derivatives(found.grad), self.witnesses.of(estimator)
        if isinstance(witnesses, HypergradError):
            verdict = f"error: there is no witness. {witnesses}"
            missing = (_NAN, _NAN, _NAN, _NAN, products, seconds, verdict)
            return [Row(name, k, derivative, *missing) for k, derivative in enumerate(derivatives)]
        # |⟨dF/du error, d⟩| ≤ ‖dF/dλ error‖ · ‖(∂λ/∂u) d‖, and the error bar is of the first.
        error_bar = found.error_bar.estimate if found.error_bar else _NAN
        bars = [error_bar * stretch for stretch in self.directions.stretches]
        rows = []
        for k, (derivative, witness) in enumerate(zip(derivatives, witnesses, strict=True)):
            relative, verdict = self._judged(derivative, witness)
            known = (derivative, witness.value, witness.uncertainty, relative, bars[k], products, seconds)
            rows.append(Row(name, k, *known, verdict))
        return rows

    def _judged(self, derivative: float, witness: Witness) -> tuple[float, str]:
        """The relative error of a derivative, and the verdict."""
        error, size = abs(derivative - witness.value), abs(witness.value)
        relative = error / size if size > 0 else float("inf") if error > 0 else 0.0
        if not error <= max(self.tol * size, witness.uncertainty):
            return relative, DISAGREES
        if witness.uncertainty > _WORTHLESS * size:
            return relative, (
                f"error: the witness is uncertain by {witness.uncertainty:.1e}, more than {_WORTHLESS:g} of its value; "
                "use float64, or hyperparameters at which the dev loss is not flat."
            )
        return relative, AGREES
