"""The outer loop: estimate the hypergradient, step the hyperparameters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer

from hypergrad.callback.base import OUTER_LOSS, Callback, Result, Run
from hypergrad.core.errors import Terminated
from hypergrad.core.validation import require_instance, require_int, require_real
from hypergrad.data.streamed import reading
from hypergrad.estimator.base import HypergradEstimator
from hypergrad.outer.acceptance import Acceptance
from hypergrad.outer.agreement import Agreement
from hypergrad.outer.compiled_descent import CompiledDescent, compiles
from hypergrad.outer.descent import Descent
from hypergrad.outer.journal import Journal
from hypergrad.outer.labels import entry_labels
from hypergrad.outer.lifecycle import blaming, end, running, shown_once
from hypergrad.outer.lock import folders, locked
from hypergrad.outer.loop import Loop
from hypergrad.outer.objective import OuterObjective
from hypergrad.outer.requirements import (
    require_callbacks,
    require_comparable,
    require_every_loss,
    require_makers,
    require_monitor,
    require_multiple,
    require_same_loss,
    require_tunable,
    require_warm_start,
)
from hypergrad.outer.resumption import resumed
from hypergrad.outer.spread_requirements import require_linear
from hypergrad.outer.suggested_sgd import SuggestedSGD
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.precision import in_precision, matrix_products, require_precision

_EXACT_EVERY = 10
"""Outer steps between two losses on all of dev. A judgement: few beside the trainings, and enough to choose from."""

_NO_RESULT = (
    "Interrupted before the first hypergradient was formed, so there is no result to return. The same call begins "
    "again; fewer inner steps or examples show a first result sooner."
)


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Minimises the dev loss over the hyperparameters with any `torch.optim` optimiser.

    The optimiser moves unconstrained values u; the estimator sees λ = transform(u), and dF/du = (∂λ/∂u)ᵀ dF/dλ.

    Attributes:
        problem: what is tuned.
        estimator: how the hypergradient is formed.
        optimizer: makes a `torch.optim` optimiser from a list of tensors, such as `partial(torch.optim.Adam, lr=0.1)`;
            or a `SuggestedSGD`.
        outer_steps: updates of λ, ≥ 0; one more estimate after the last update shows its result.
        warm_start: start training from the parameters of the previous outer step instead of `problem.init_params()`,
            and the adjoint system from its previous solution. An estimator that differentiates its T steps then ignores
            all earlier ones, and the losses are those after more and more steps. If training does not converge in T
            steps, use False, which tunes a run of T steps.
        scheduler: makes a `torch.optim.lr_scheduler` from the optimiser; it steps once per outer step.
        max_grad_norm: ‖dF/du‖ is clipped to this, > 0; None does not clip.
        acceptance: which steps are accepted; None accepts every step.
        monitor: what `patience` and the best λ use, the lower the better: "outer_loss", the dev loss, or a metric of
            the problem, such as the loss on examples that λ is not tuned on; not one of the test part. If each outer
            step has its own tasks, their dev losses cannot be compared, and the last λ counts as the best.
        patience: the run ends after more than `patience` ≥ 0 outer steps without a new minimum of `monitor`; None ends
            it after `outer_steps` only. The best λ is in the result in any case.
        exact_every: outer steps between two exact evaluations, ≥ 1: of the metrics, and of the loss on all of dev if
            each step draws a sample of dev. The first and the last step have one too. Only these steps can become the
            best, count for `patience`, and are shown. None is every step, or every 10th with samples; with
            `record_every` it is the next multiple of that, as any number must be.
        record_every: outer steps between two records, ≥ 1; the first and the last step have one too. Callbacks,
            metrics, states and checks that values are finite belong to records. Between two of them there is only the
            estimate, without its reports, and the step of the optimiser and the scheduler. λ takes the same steps, to
            the bit, unless `patience` or ReduceLROnPlateau waits for a record. Not with `acceptance` or a line search.
        precision: of the losses and their gradients: "float32", "tf32", "bf16-mixed" or "bf16-true"; None is that of
            the parameters. Parameters, λ and what is computed from gradients keep the dtype of the parameters, see
            docs/precision.md.
        retrain: train once more at the end, on train and dev together at the best λ, and report its metrics.
        callbacks: what happens around each step.

    Examples:
        >>> problem, estimator = hg.Ridge(hg.diabetes(), per_feature=True), hg.Implicit(solver=hg.LBFGS())
        >>> adam = lambda u: torch.optim.Adam(u, lr=0.3)
        >>> result = hg.Trainer(problem=problem, estimator=estimator, optimizer=adam, outer_steps=10).fit()
        >>> print(f"dev loss {result.first.dev_loss:.3f}, then {result.best.dev_loss:.3f}")
        dev loss 0.505, then 0.450
    """

    problem: InnerProblem
    estimator: HypergradEstimator
    optimizer: Callable[[list[Tensor]], Optimizer] | SuggestedSGD
    outer_steps: int = 50
    warm_start: bool = True
    scheduler: Callable[[Optimizer], Any] | None = None
    max_grad_norm: float | None = None
    acceptance: Acceptance | None = None
    monitor: str = OUTER_LOSS
    patience: int | None = None
    exact_every: int | None = None
    record_every: int = 1
    retrain: bool = False
    precision: str | None = None
    callbacks: Sequence[Callback] = field(default=())

    def __post_init__(self) -> None:
        require_instance(self, "problem", InnerProblem)
        require_instance(self, "estimator", HypergradEstimator)
        require_int(self, "outer_steps", least=0)
        require_instance(self, "warm_start", bool)
        require_instance(self, "retrain", bool)
        if self.max_grad_norm is not None:
            require_real(self, "max_grad_norm", above=0)
        if self.patience is not None:
            require_int(self, "patience", least=0)
        require_int(self, "record_every", least=1)
        if self.exact_every is not None:
            require_int(self, "exact_every", least=1)
        require_multiple(self.exact_every, self.record_every)
        require_instance(self, "monitor", str)
        if self.acceptance is not None:
            require_instance(self, "acceptance", Acceptance)
            require_every_loss(self.acceptance, self.record_every)
        if self.precision is not None:
            require_precision(self.precision)
        require_callbacks(self.callbacks)
        require_makers(self.optimizer, self.scheduler)
        require_same_loss(self.problem, self.acceptance)
        require_comparable(self.estimator, self.acceptance)
        require_warm_start(self.estimator, self.warm_start)
        require_tunable(self.problem, warm_start=self.warm_start, retrain=self.retrain)
        require_monitor(self.problem, self.monitor)

    @cached_property
    def evaluated(self) -> InnerProblem:
        """The problem with its losses in the precision of the run."""
        return in_precision(self.problem, self.precision)

    def fit(
        self,
        config: dict[str, Any] | None = None,
        *,
        resume: str | Path | None = None,
        resume_if_any: bool = False,
        any_world: bool = False,
        on_interrupt: Literal["raise", "return"] = "raise",
    ) -> Result:
        """Run the outer loop.

        Args:
            config: describes the run to the callbacks; by default the estimator and the number of steps.
            resume: the folder in which a `StateSaver` saved an earlier part of this run, or one of its files; the run
                goes on from there as if it had not been interrupted.
            resume_if_any: begin a new run if the folder `resume` holds no state.
            any_world: go on from a state of another number of processes, too; its numbers then differ by rounding
                errors from those of an undisturbed run.
            on_interrupt: what Ctrl-C does after the callbacks have saved what was reached: "raise" KeyboardInterrupt,
                or "return" the result of the steps so far, if there are any. SIGTERM always raises.

        Returns:
            The best hyperparameters and parameters, with the records.

        Raises:
            KeyboardInterrupt: after Ctrl-C or SIGTERM.
            ValueError: if `on_interrupt` is something else.

        Also raised, by what it calls: CheckpointError if the saved state belongs to another run, cannot be read, or is
        beyond `outer_steps`; FolderInUseError if another process writes to a folder of the callbacks; RankError if
        another rank of the run failed; the error that stopped the run, after the callbacks have saved what was reached.
        """
        if on_interrupt not in ("raise", "return"):
            raise ValueError(f'on_interrupt must be "raise" or "return", but it is {on_interrupt!r}.')
        matrices = matrix_products(self.precision, next(iter(self.problem.init_params().values())).device)
        peers = self.problem.peers
        agreement = Agreement(peers, rejects=self.acceptance is not None)
        with (
            shown_once(peers),
            blaming(agreement),
            locked(folders(self.callbacks), agreement),
            reading(self.problem),
            matrices,
        ):
            loop, resumed_at = self._loop(agreement), None
            if resume is not None:
                resumed_at = resumed(loop, resume, begins=resume_if_any, any_world=any_world)
            config = config or {"estimator": repr(self.estimator), "outer_steps": self.outer_steps}
            run = Run(
                *(self.outer_steps, self.evaluated, self.estimator, config, resumed_at, peers.is_first),
                lambda: loop.journal.best,
                loop.journal.rows,
            )
            try:
                with running(self.callbacks, run, loop.journal) as started:
                    result = loop.run()
                    with agreement.together():
                        end(started, result)
            except KeyboardInterrupt as error:
                # The context of an interrupt is another one if it came while the callbacks saved.
                is_second = isinstance(error.__context__, KeyboardInterrupt)
                if on_interrupt == "raise" or isinstance(error, Terminated) or is_second:
                    raise
                if loop.journal.last is None:
                    raise KeyboardInterrupt(_NO_RESULT) from None
                return loop.journal.result("interrupted")
            return result

    def _loop(self, agreement: Agreement | None = None) -> Loop:
        """The loop, before its first step."""
        objective = OuterObjective(
            self.evaluated, self.estimator, warm_start=self.warm_start, max_grad_norm=self.max_grad_norm
        )
        require_linear(objective.spread, self.estimator)
        # The lowest of losses on different tasks is luck, not the best.
        every = self.exact_every or _multiple(_EXACT_EVERY if self.problem.samples_outer else 1, self.record_every)
        compares = self.monitor != OUTER_LOSS or self.problem.at_outer_step(1) is self.problem
        kind = CompiledDescent if compiles(self.estimator, self.record_every) else Descent
        descent = kind(
            objective,
            Journal(
                objective.u,
                self.monitor,
                compares=compares,
                labels=entry_labels(self.problem, self.estimator),
                looseness=self.estimator.looseness,
                is_exact=lambda step: step % every == 0 or step == self.outer_steps,
                spread=objective.spread,
                agreement=agreement,
            ),
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            acceptance=self.acceptance,
        )
        require_every_loss(descent.optimizer, self.record_every)
        return Loop(
            descent,
            outer_steps=self.outer_steps,
            patience=self.patience,
            exact_every=every,
            record_every=self.record_every,
            retrain=self.retrain,
            callbacks=self.callbacks,
        )


def _multiple(least: int, of: int) -> int:
    """The first multiple of a number that is not below `least`."""
    return -(-least // of) * of
