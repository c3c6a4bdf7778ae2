"""Estimators held against each other and against central differences through retraining."""

from collections.abc import Mapping

from hypergrad.check.bench import Bench
from hypergrad.check.report import Check, Row
from hypergrad.core.autodiff import Tensors
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

    Along random unit directions d in the unconstrained values u, λ = transform(u), in which the trainer steps, the
    derivative ⟨dF/du, d⟩ of each estimator is held against (F(u + h d) − F(u − h d)) / 2h. F is the dev loss after the
    T steps that `Unrolled` or `Forward` makes, from the same start; for every other estimator it is the dev loss at the
    optimum, trained until rounding errors stop it, for which the inner loss must be the same at every step. So an
    `Unrolled` whose horizon is shorter than its run disagrees by what the truncation costs, and an implicit estimator
    by what its training and its linear solve leave undone.

    An estimator disagrees when it is off by more than `tol` relative to the witness, and by more than the witness's own
    uncertainty, which float32 makes some 1e-4 to 1e-2 of the value: check `problem.double()` where that is too much.
    A witness that is uncertain by more than a tenth is none, which is an error of the row.

    Args:
        problem: what is tuned.
        hparams: λ in natural units; `problem.init_hparams()` when None.
        estimators: by the names that the rows carry, at least one.
        solver: trains the witness of the implicit estimators; when None, each one's own solver does.
        params: where all training starts; `problem.init_params()` when None.
        num_directions: random directions, ≥ 1; no more are taken than λ has entries.
        seed: of the directions.
        tol: relative error that is let pass, > 0 (dimensionless).
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
    bench = Bench(
        problem,
        problem.init_hparams() if hparams is None else hparams,
        problem.init_params() if params is None else params,
        num_directions=num_directions,
        seed=seed,
        solver=solver,
        tol=tol,
        max_steps=max_steps,
    )
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
