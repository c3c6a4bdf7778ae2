"""Influence through the whole training."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, detach, unflatten
from hypergrad.core.errors import NonFiniteError
from hypergrad.core.validation import require_instance, require_int
from hypergrad.estimator.differentiated_run import DifferentiatedRun
from hypergrad.estimator.tally import add
from hypergrad.influence.base import InfluenceMethod, Scores
from hypergrad.influence.terms import Terms, require_separable
from hypergrad.problem.second_derivatives import require_second_derivatives
from hypergrad.problem.supervised.supervised import Supervised
from hypergrad.solver.base import InnerSolver, State, require_differentiable, require_solver
from hypergrad.solver.gradient_descent import GradientDescent
from hypergrad.tape.base import Tape
from hypergrad.tape.checkpoint import Checkpoint
from hypergrad.training.states import as_leaves, filled, state_vjp

_WEIGHTS = "weights of the examples"
"""A name that no hyperparameter of a user has: it is no Python name."""


@dataclass(frozen=True, kw_only=True)
class UnrolledInfluence(InfluenceMethod):
    """s(j, i) = −∂f_j(w_T)/∂ω_i at ω = 1: to first order, the change of dev loss j if training had no example i.

    f_j is the loss of dev example j, and w_T the end of T training steps, in which ω_i multiplies the terms of train
    example i, u_i, in each batch that holds it. No optimum is needed: the derivative is that of this very run, with its
    mini-batches, its solver and its random draws. With the adjoint a_T = ∇f_j, a step back through gradient descent is

        s_i ← s_i + lr ⟨∇u_i(w_t), a_{t+1}⟩ / N_t  for the examples i of batch t,    a_t = a_{t+1} − lr H_t a_{t+1},

    where H_t is the Hessian of the loss of batch t, and N_t its denominator. The adjoints of `dev_block` dev examples
    go back together; each costs as much as a gradient of the batch, or two, at every step.

    Attributes:
        solver: how the problem is trained.
        inner_steps: training steps T, ≥ 1.
        tape: how the states are recovered on the way back; `Checkpoint` keeps about √T of them.
        horizon: the steps that are differentiated, the last K of T, from 1 to T; None for all.
        dev_block: dev examples at once, ≥ 1; each needs the memory of the solver's state a few times. For each block
            training is repeated, once or twice.

    Source: Hara, Nitanda & Maehara, "Data cleansing for models trained with SGD", NeurIPS (2019); Bae, Lin, Lorraine &
    Grosse, "Training data attribution via approximate unrolled differentiation", NeurIPS (2024).
    """

    trains: ClassVar[bool] = True

    solver: InnerSolver = field(default_factory=GradientDescent)
    inner_steps: int = 100
    tape: Tape = field(default_factory=Checkpoint)
    horizon: int | None = None
    dev_block: int = 16

    def __post_init__(self) -> None:
        require_solver(self)
        require_differentiable(self, self.solver)
        require_instance(self, "tape", Tape)
        require_int(self, "inner_steps", least=1)
        require_int(self, "dev_block", least=1)
        if self.horizon is not None:
            require_int(self, "horizon", least=1)
            if self.horizon > self.inner_steps:
                raise ValueError(
                    f"UnrolledInfluence.horizon must be at most inner_steps = {self.inner_steps}, but it is "
                    f"{self.horizon}."
                )

    def prepare(self, problem: Supervised, params: Tensors, hparams: Tensors) -> Scores:
        """As promised; `params` is not used.

        Also raised, by what it calls: the errors of `train`.
        """
        return self.train(problem, hparams).scores

    def train(self, problem: Supervised, hparams: Tensors, params: Tensors | None = None) -> "UnrolledRun":
        """Train, to score train examples by the derivatives of this run.

        Args:
            problem: not changed.
            hparams: λ.
            params: where training starts; `problem.init_params()` if None.

        Also raised, by what it calls: DivergenceError if training blew up; NonFiniteError if a loss is NaN or infinite;
        ValueError if the loss has no term for each example, or the solver cannot train the problem.
        """
        require_second_derivatives(problem, type(self).__name__)
        weighted = problem.weighted(_WEIGHTS, whole=False)
        weighted.dev_sample = None
        with_weights = detach(hparams) | {_WEIGHTS: weighted.init_hparams()[_WEIGHTS]}
        start = problem.init_params() if params is None else params
        run = DifferentiatedRun.of(weighted, self.solver, with_weights, start, 0, self.inner_steps).only(_WEIGHTS)
        with torch.no_grad():
            end = run.dynamics.advance(run.start(), range(self.inner_steps))
        outer = run.evaluate(end, 0)
        return UnrolledRun(self, weighted, run, end, outer.adjoint, outer.outer_loss)


@dataclass(frozen=True)
class UnrolledRun:
    """A training run whose dev losses are differentiated with respect to the weights of train examples.

    Attributes:
        method: its settings.
        problem: what was trained, with a weight for each train example.
        run: the steps.
        end: the state after them.
        adjoint: of the mean dev loss, there.
        dev_loss: the mean dev loss at the end.
    """

    method: UnrolledInfluence
    problem: Supervised
    run: DifferentiatedRun
    end: State
    adjoint: State
    dev_loss: float

    @property
    def params(self) -> Tensors:
        """The trained parameters."""
        return detach(self.method.solver.params(self.end))

    def scores(self, rows: Tensor | None = None) -> Tensor:
        """The change of each of some dev losses without each train example, as `Scores` promises.

        Args:
            rows: of dev, shape (m,); None for the mean loss of all of dev.

        Returns:
            Shape (m, n), or (n,) for the mean.

        Also raised, by what it calls: ValueError if a layer normalises dev examples by the statistics of their batch,
        unless `rows` is None; NonFiniteError if a gradient or a score is NaN or infinite.
        """
        if rows is None:
            return self._swept(self.adjoint)
        require_separable(self.problem)
        return torch.cat([self._swept(self._adjoint(part)) for part in rows.split(self.method.dev_block)])

    def _adjoint(self, rows: Tensor) -> State:
        """∂f_j/∂s_T for some dev examples j, each tensor of shape (m, *shape)."""
        params, solver = self.params, self.method.solver
        terms = Terms(self.problem, params, detach(self.run.dynamics.hparams), 1)
        each = [unflatten(terms.dev_gradient(row), params) for row in rows.tolist()]
        gradients = {name: torch.stack([one[name] for one in each]) for name in params}
        end = as_leaves(self.end)
        with torch.enable_grad():
            reached = solver.params(end)
        pulled, _ = state_vjp({"": reached}, {"": gradients}, end, {})
        like = {
            group: {name: x.expand(len(rows), *x.shape) for name, x in tensors.items()}
            for group, tensors in end.items()
        }
        return filled(pulled, like)

    def _swept(self, adjoint: State) -> Tensor:
        """−∂f/∂ω, by going back through the steps from ∂f/∂s_T.

        Raises:
            NonFiniteError: if it is NaN or infinite.
        """
        horizon, total = self.method.horizon or self.method.inner_steps, dict[str, Tensor]()
        trajectory = self.run.record(self.method.tape, horizon)
        for _, terms, _ in trajectory.pull_back(adjoint, horizon):
            for term in terms:
                add(total, term)
        scores = -total[_WEIGHTS]
        if not scores.isfinite().all():
            bad = int((~scores.isfinite()).sum())
            raise NonFiniteError(
                f"The influence of train examples through {horizon} training steps must be finite, but {bad} of "
                f"{scores.numel()} scores are NaN or infinite: adjoints grow on their way back through a run that is "
                f"not stable. Lower the learning rate of {type(self.method.solver).__name__}, or set a horizon."
            )
        return scores
