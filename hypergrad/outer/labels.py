"""Names of the entries of hyperparameters."""

from collections.abc import Mapping

from torch import Tensor

from hypergrad.callback.base import MOST_ENTRIES
from hypergrad.core.autodiff import Tensors
from hypergrad.estimator.base import HypergradEstimator
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.base import InnerSolver
from hypergrad.solver.coefficient import root

Labels = Mapping[str, tuple[str, ...]]
"""Names of the entries by hyperparameter, in the order of the flat values."""


def entry_labels(problem: InnerProblem, estimator: HypergradEstimator) -> Labels:
    """The names of the entries of every hyperparameter of at most `MOST_ENTRIES` entries that has names.

    The problem declares them as `Hyperparameter.labels`. Those of a coefficient of the solver are its steps and groups.
    """
    hparams, labels = problem.init_hparams(), {}
    solver = getattr(estimator, "solver", None)
    if isinstance(solver, InnerSolver):
        labels = _of_coefficients(solver, hparams, problem.init_params())
    labels |= {name: space.labels for name, space in problem.hyperparameters().items() if space.labels}
    return {name: those for name, those in labels.items() if len(those) <= MOST_ENTRIES}


def _of_coefficients(solver: InnerSolver, hparams: Tensors, params: Tensors) -> dict[str, tuple[str, ...]]:
    names = {str(root(value)) for value in solver.coefficients().values() if isinstance(root(value), str)}
    found = {name: _steps_and_groups(hparams[name], solver, params) for name in names & hparams.keys()}
    return {name: those for name, those in found.items() if those}


def _steps_and_groups(value: Tensor, solver: InnerSolver, params: Tensors) -> tuple[str, ...]:
    """Labels for the shapes (T,), (1, G) and (T, G) of a coefficient; none for others."""
    steps = [f"step {t}" for t in range(len(value))] if value.ndim else []
    if value.ndim == 1:
        return tuple(steps)
    if value.ndim != 2:
        return ()
    groups = solver.groups or tuple(params)
    if len(groups) != value.shape[1]:
        return ()
    return tuple(groups) if len(steps) == 1 else tuple(f"{step}, {group}" for step in steps for group in groups)
