"""The dev loss at λ after the training of an estimator, without the hypergradient."""

from dataclasses import dataclass, replace

import torch

from hypergrad.core.autodiff import Tensors, detach
from hypergrad.core.status import Status
from hypergrad.estimator.base import HypergradEstimator, require_finite_loss
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.parts import accumulated_outer_loss
from hypergrad.training.report import TrainingReport


@dataclass(frozen=True)
class Retraining:
    """The result of training at λ.

    Attributes:
        params: the trained parameters.
        outer_loss: f there.
        training: the report of that training.
    """

    params: Tensors
    outer_loss: float
    training: TrainingReport


@torch.no_grad()
def train_and_evaluate(
    problem: InnerProblem, estimator: HypergradEstimator, hparams: Tensors, params: Tensors | None = None
) -> Retraining:
    """Train at `hparams` as `estimator` would, with its solver, steps and tolerance, and evaluate the dev loss.

    Args:
        problem: what is tuned.
        estimator: gives the training; its hypergradient is not formed.
        hparams: λ in natural units.
        params: where training starts; `problem.init_params()` if None.

    Raises:
        TypeError: if the estimator has no training.

    Also raised, by what it calls: HypergradError if training diverges, or a loss is not finite; ValueError if the
    solver cannot train the problem.
    """
    if estimator.training is None:
        name = type(estimator).__name__
        raise TypeError(
            f"The dev loss is evaluated after the training of an estimator, but {name}.training is None; let it return "
            "an hg.Training."
        )
    # Compiling takes seconds, longer than many trainings.
    training = replace(estimator.training, compile=False)
    start = problem.init_params() if params is None else params
    training.solver.validate(hparams, training.steps, start)
    trained = training.run(problem, hparams, start)
    report = trained.report if training.tol > 0 else replace(trained.report, status=Status.NOT_REQUIRED)
    loss = accumulated_outer_loss(problem, trained.params, hparams, problem.whole_outer_batch())
    return Retraining(detach(trained.params), require_finite_loss(loss, problem), report)
