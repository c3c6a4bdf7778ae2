"""One run of the outer loop."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from hypergrad.callback.base import Callback, Record, Result
from hypergrad.callback.trained_model import TrainedModel
from hypergrad.data.streamed import reading
from hypergrad.outer.agreement import Agreement
from hypergrad.outer.descent import Descent
from hypergrad.outer.param_state import with_own_params, with_param_rows
from hypergrad.outer.spread_state import names_in, with_own, with_rows
from hypergrad.outer.state import (
    identity,
    random_states,
    require_same,
    require_same_world,
    restore_random_states,
)


class Loop:
    """Outer steps until there is a reason to stop, with the calls of the callbacks.

    Args:
        descent: how u moves; it holds the objective and the journal of the run.
        outer_steps: as in `Trainer`.
        patience: as in `Trainer`.
        exact_every: as in `Trainer`, with its default filled in.
        record_every: as in `Trainer`.
        retrain: as in `Trainer`.
        callbacks: as in `Trainer`.

    Raises:
        ValueError: if `patience` is set for a dev loss that differs from step to step.
    """

    def __init__(
        self,
        descent: Descent,
        *,
        outer_steps: int,
        patience: int | None,
        exact_every: int,
        record_every: int,
        retrain: bool,
        callbacks: Sequence[Callback],
    ) -> None:
        self.descent, self.objective, self.journal = descent, descent.objective, descent.journal
        self.outer_steps, self.patience, self.retrain = outer_steps, patience, retrain
        self.callbacks, self.exact_every, self.record_every = callbacks, exact_every, record_every
        if patience is not None and not self.journal.compares:
            raise ValueError(
                f"patience waits for a lower dev loss, but {type(self.objective.problem).__name__} has different "
                "tasks and a different dev loss in each outer step. Leave patience out, or name a metric in monitor."
            )

    def run(self) -> Result:
        """Run from the current state to the end."""
        if self.journal.last is None:
            self._require_same_start()
            self.observe(self.journal.record(self.objective, 0))
        stopped = self._descend()
        return self.journal.result(stopped, self.retrained() if self.retrain else None)

    def observe(self, record: Record) -> None:
        """Add a record to the journal, and pass it and the state to the callbacks."""
        self.journal.add(record)
        replicated = {name: x for name, x in record.hparams.items() if self.objective.problem.is_replicated(name)}
        self.agreement.require_same(replicated, record=len(self.journal.history) - 1, step=record.step)
        shown = self.objective.spread.whole_record(record) if self._shows else record
        with self.agreement.together(heeds=not self._keeps):
            for callback in self.callbacks:
                callback.on_step(shown)
        if self._keeps:
            with self.agreement.together():
                state = self.state(record)
                for callback in self._keepers:
                    callback.on_state(record.step, state)

    def _require_same_start(self) -> None:
        """Require that all ranks hold the same data, and begin with the same parameters, where each has all of them.

        Also raised, by what it calls: RankError if they differ.
        """
        problem = self.objective.problem
        params = {f"the parameter {k}": x for k, x in problem.init_params().items() if problem.is_replicated(k)}
        data = {f"the data {name}": x for name, x in problem.named_buffers()}
        self.agreement.peers.require_same(data | params, "at the start")

    def retrained(self) -> TrainedModel:
        """The model after training on train and dev at the best λ, from the initial parameters."""
        _, _, best = self.journal.whole_records()
        problem, hparams = self.objective.problem.joined(best.hparams)
        with reading(problem):
            found = self.objective.estimator.estimate(problem, hparams, problem.init_params())
            with torch.no_grad():
                metrics = {name: float(x) for name, x in problem.metrics(found.params, hparams).items()}
        origin = f"trained again on train and dev, at the hyperparameters of outer step {best.step}"
        return TrainedModel(hparams, found.params, problem, metrics, origin, best.labels, best.hparams)

    def state(self, last: Record) -> dict[str, Any]:
        """All that `restore` needs, as tensors and plain values; later steps do not change them."""
        state = {
            "step": last.step,
            "hparams": last.hparams,
            **self.objective.state(),
            **self.descent.state(),
            **self.journal.state(),
            **random_states(self.agreement.peers),
            "device": self.journal.device.type,
            "world": self.agreement.peers.world,
            "identity": self._own_identity(),
        }
        state = with_param_rows(state, self.objective.problem.param_shards())
        return with_rows(state, self.objective.spread, self._names, self.objective.estimator.map_rows)

    def restore(self, state: dict[str, Any], *, any_world: bool = False) -> None:
        """Go back to a state, as if it had been reached here.

        Args:
            state: of `state`.
            any_world: whether it may come from another number of processes.

        Also raised, by what it calls: CheckpointError if the state belongs to another run.
        """
        with self.agreement.together():
            ours = self._own_identity()
            if self.agreement.peers.is_first:
                require_same(ours, state["identity"])
            is_sharded = bool(self.objective.problem.param_shards())
            require_same_world(state, self.agreement.peers.world, is_sharded=is_sharded, any_world=any_world)
        self._note_device(state.get("device"))
        spread, map_carry = self.objective.spread, self.objective.estimator.map_rows
        state = with_own(state, spread, self._names, self.journal.device, map_carry)
        state = with_own_params(state, self.objective.problem.param_shards(), self.journal.device)
        self.journal.restore(state, self.objective.problem.at_outer_step)
        self.objective.restore(state)
        self.descent.restore(state)
        restore_random_states(state, self.agreement.peers)

    @property
    def _names(self) -> dict[int, str]:
        """The hyperparameters by their index in the state of the optimiser."""
        return names_in(self.descent.optimizer, self.objective.u)

    def _note_device(self, before: str | None) -> None:
        """Warn if the state comes from another kind of device; earlier releases did not record it."""
        now = self.journal.device.type
        if before not in (None, now):
            warnings.warn(
                f"The run was on {before} until this state, and goes on on {now}: rounding differs there, and so do "
                "the random draws of a model, such as dropout.",
                UserWarning,
                stacklevel=2,
            )

    def _descend(self) -> str:
        """Take outer steps, and return why they ended, as in `Result.stopped`."""
        _, last, best = self.journal.records()
        while last.step < self.outer_steps:
            if self.patience is not None and self._is_judged(last) and last.step - best.step > self.patience:
                return "patience"
            following = (last.step // self.record_every + 1) * self.record_every
            record = self.descent.step(last, min(following, self.outer_steps))
            if record is None:
                return "stalled"
            self.observe(record)
            _, last, best = self.journal.records()
        return "outer_steps"

    def _is_judged(self, record: Record) -> bool:
        """Whether a record could have become the best."""
        return record.monitored(self.journal.monitor) is not None

    @property
    def agreement(self) -> Agreement:
        """Of the ranks of the run."""
        return self.journal.agreement

    @property
    def _keepers(self) -> list[Callback]:
        """The callbacks that keep states."""
        return [callback for callback in self.callbacks if type(callback).on_state is not Callback.on_state]

    @cached_property
    def _shows(self) -> bool:
        """Whether some rank has a callback, for which all ranks then gather what is spread."""
        return self.agreement.peers.most(len(self.callbacks)) > 0

    @cached_property
    def _keeps(self) -> bool:
        """Whether a callback of some rank keeps states, which all ranks then form."""
        return self.agreement.peers.most(len(self._keepers)) > 0

    def _own_identity(self) -> dict[str, str]:
        """What identifies this run, on the first rank alone; the others are needed if they have rows of parameters."""
        is_first = self.agreement.peers.is_first
        found = self.identity if is_first or self.objective.problem.param_shards() else {}
        return found if is_first else {}

    @cached_property
    def identity(self) -> dict[str, str]:
        """What identifies this run.

        It reads all data, so only if a state is saved or restored; either needs it first before λ moves.
        """
        objective, descent = self.objective, self.descent
        return identity(
            objective.problem,
            objective.estimator,
            descent.optimizer,
            warm_start=objective.warm_start,
            acceptance=descent.acceptance,
            max_grad_norm=objective.max_grad_norm,
            monitor=self.journal.monitor,
            scheduler=type(descent.scheduler).__name__,
            exact_every=self.exact_every,
            record_every=self.record_every,
        )
