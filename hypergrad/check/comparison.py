"""Estimators compared with each other and with central differences through retraining."""

from collections.abc import Mapping

from hypergrad.check.bench import Bench
from hypergrad.check.directions import Directions
from hypergrad.check.report import Check, Row
from hypergrad.check.witnesses import Witnesses
from hypergrad.core.autodiff import Tensors, detach
from hypergrad.estimator.base import HypergradEstimator
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver


def check_hypergradient(
    problem: InnerProblem,
    hparams: Tensors | None = None,
    *,
    estimators: Mapping[str, HypergradEstimator],
    solver: InnerSolver | None = None,
    params: Tensors | None = None,
    num_directions: int = 2,
    seed: int = 0,
    tol: float = 1e-4,
    max_steps: int = 100_000,
) -> Check:
    """Compare estimators with each other and with central differences through retraining.

    The trainer moves the unconstrained values u, λ = transform(u). Along random unit directions d in u, the derivative
    ⟨dF/du, d⟩ of each estimator is compared with its witness, (F(u + h d) − F(u − h d)) / 2h. For `Unrolled` and
    `Forward`, F is the dev loss after their T steps from the same start. For every other estimator it is the dev loss
    at the optimum, trained until rounding errors stop it; this requires an inner loss that is the same at every step.
    So the difference shows what the truncation of an `Unrolled` with a short horizon costs, or how far an implicit
    estimator is from an exact training and an exact linear solve.

    An estimator disagrees when its error is larger than `tol`, relative to the witness, and larger than the uncertainty
    of the witness. In float32 that is some 1e-4 to 1e-2 of the value: check `problem.double()` where it is too much.
    A witness that is uncertain by more than a tenth of its value makes the row an error.

    Args:
        problem: what is tuned.
        hparams: λ in natural units; `problem.init_hparams()` when None.
        estimators: by the names for the rows, at least one.
        solver: trains the witness of the implicit estimators; the own solver of each when None.
        params: where all training starts; `problem.init_params()` when None.
        num_directions: random directions, ≥ 1; at most as many as λ has entries.
        seed: of the directions.
        tol: relative error that is allowed, > 0 (dimensionless).
        max_steps: most inner steps of one retraining to the optimum, ≥ 1.

    Returns:
        A row for each estimator and direction; a `HypergradError` becomes a row too.

    Raises:
        ValueError: if there is no estimator, a number is out of range, or λ does not fit the problem.
    """
    if not estimators:
        raise ValueError("estimators must hold at least 1 estimator, but it holds 0.")
    if num_directions < 1 or max_steps < 1 or not tol > 0:
        raise ValueError(
            f"A check needs num_directions ≥ 1, max_steps ≥ 1 and tol > 0, but they are {num_directions}, {max_steps} "
            f"and {tol:g}."
        )
    params = detach(problem.init_params() if params is None else params)
    hparams = problem.init_hparams() if hparams is None else hparams
    directions = Directions(problem.hyperparameters(), hparams, count=num_directions, seed=seed)
    witnesses = Witnesses(problem, params, directions, solver=solver, tol=tol, max_steps=max_steps)
    bench = Bench(problem=problem, params=params, directions=directions, witnesses=witnesses, tol=tol)
    rows = [row for name, estimator in estimators.items() for row in bench.rows(name, estimator)]
    return Check(rows=tuple(rows), tol=tol, spread=_spread(rows))


def _spread(rows: list[Row]) -> float:
    """The largest difference between two derivatives along one direction, relative to the larger."""
    along: dict[int, list[float]] = {}
    for row in rows:
        if row.direction is not None:
            along.setdefault(row.direction, []).append(row.derivative)
    widest = ((max(found) - min(found), max(map(abs, found))) for found in along.values())
    return max((width / size if size > 0 else 0.0 for width, size in widest), default=0.0)
