"""One run of the outer loop."""

from typing import TYPE_CHECKING, Any

import torch

from hypergrad.callback.base import OUTER_LOSS, Record, Result
from hypergrad.outer.descent import Descent
from hypergrad.outer.journal import Journal
from hypergrad.outer.objective import OuterObjective
from hypergrad.outer.state import identity, random_state, require_same, restore_random_state

if TYPE_CHECKING:
    from hypergrad.outer.trainer import Trainer


class Loop:
    """What is minimised, how, and what was seen on the way.

    Raises:
        TypeError: if the trainer's optimiser is none.
        ValueError: if there is a scheduler for an optimiser without a learning rate, or patience for a dev loss that
            is another one in each step.
    """

    def __init__(self, trainer: "Trainer") -> None:
        self.trainer = trainer
        self.objective = OuterObjective(
            trainer.problem, trainer.estimator, warm_start=trainer.warm_start, max_grad_norm=trainer.max_grad_norm
        )
        self.descent = Descent(
            self.objective, optimizer=trainer.optimizer, scheduler=trainer.scheduler, acceptance=trainer.acceptance
        )
        # The luckiest of losses on different tasks is not the best.
        compares = trainer.monitor != OUTER_LOSS or trainer.problem.at_outer_step(1) is trainer.problem
        if trainer.patience is not None and not compares:
            raise ValueError(
                f"patience waits for a lower dev loss, but {type(trainer.problem).__name__} has other tasks, with "
                "another dev loss, in each outer step. Leave patience out, or name a metric in monitor."
            )
        self.journal = Journal(self.objective.u, trainer.monitor, compares=compares)
        settings = {name: getattr(trainer, name) for name in ("warm_start", "acceptance", "max_grad_norm", "monitor")}
        self.identity = identity(trainer.problem, trainer.estimator, self.descent.optimizer, **settings)
        self.identity["scheduler"] = type(self.descent.scheduler).__name__

    def run(self) -> Result:
        """Go on from the present state to the end."""
        trainer, journal, stopped = self.trainer, self.journal, "outer_steps"
        if journal.last is None:
            self.observe(self.objective.evaluate(0, None))
        first, last, best = journal.records()
        while last.step < trainer.outer_steps:
            if trainer.patience is not None and last.step - best.step > trainer.patience:
                stopped = "patience"
                break
            record = self.descent.step(last)
            if record is None:
                stopped = "stalled"
                break
            self.observe(record)
            first, last, best = journal.records()
        retrained = self.retrained(best) if trainer.retrain else None
        return Result(
            hparams=last.hparams,
            params=last.params,
            first=first,
            last=last,
            best=best,
            stopped=stopped,
            history=journal.history,
            trajectory=journal.trajectory(),
            retrained=retrained,
            monitor=trainer.monitor,
        )

    def observe(self, record: Record) -> None:
        """Keep a record, and tell everyone."""
        self.journal.add(record)
        for callback in self.trainer.callbacks:
            callback.on_step(record)
        state = self.state(record)
        for callback in self.trainer.callbacks:
            callback.on_state(record.step, state)

    def retrained(self, best: Record) -> dict[str, float]:
        """The metrics of a training on train and dev at the best λ, from the initial parameters."""
        problem, hparams = self.trainer.problem.joined(best.hparams)
        found = self.trainer.estimator.estimate(problem, hparams, problem.init_params())
        with torch.no_grad():
            return {name: float(x) for name, x in problem.metrics(found.params, hparams).items()}

    def state(self, last: Record) -> dict[str, Any]:
        """All that `restore` needs, as tensors and plain values that later steps do not change."""
        return {
            "step": last.step,
            "hparams": last.hparams,
            **self.objective.state(),
            **self.descent.state(),
            **self.journal.state(),
            "random": random_state(),
            "identity": self.identity,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state, as if it had been reached here.

        Also raised, by what it calls: CheckpointError if it is of another run.
        """
        require_same(self.identity, state["identity"])
        self.journal.restore(state)
        _, last, _ = self.journal.records()
        self.objective.restore(state, last.seconds)
        self.descent.restore(state)
        restore_random_state(state["random"])
