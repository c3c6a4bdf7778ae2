"""One run of the outer loop: its state, and how an outer step changes it."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from hypergrad.autodiff import Tensors, detach, flatten
from hypergrad.callback.base import MOST_ENTRIES, Record, Result
from hypergrad.cost import Cost
from hypergrad.errors import HypergradError, NonFiniteError
from hypergrad.outer_objective import OuterObjective
from hypergrad.outer_state import (
    as_dict,
    as_record,
    frozen,
    identity,
    placed,
    random_state,
    require_same,
    restore_random_state,
)

if TYPE_CHECKING:
    from hypergrad.acceptance import Acceptance
    from hypergrad.trainer import Trainer


class Loop:
    """The state of one run.

    Raises:
        TypeError: if the trainer's optimiser is none.
        ValueError: if there is a scheduler for an optimiser without a learning rate.
    """

    def __init__(self, trainer: "Trainer") -> None:
        self.trainer = trainer
        self.objective = OuterObjective(
            trainer.problem, trainer.estimator, warm_start=trainer.warm_start, max_grad_norm=trainer.max_grad_norm
        )
        u = self.objective.u
        self.optimizer = trainer.optimizer(list(u.values()))
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(f"Trainer.optimizer must make a torch.optim.Optimizer, but it made {self.optimizer!r}.")
        settings = {name: getattr(trainer, name) for name in ("warm_start", "acceptance", "max_grad_norm")}
        self.identity = identity(trainer.problem, trainer.estimator, self.optimizer, **settings)
        if trainer.scheduler and "lr" not in self.optimizer.defaults:
            raise ValueError(
                f"A scheduler changes the learning rate, but {type(self.optimizer).__name__} has none; leave it out."
            )
        self.scheduler: Any = trainer.scheduler(self.optimizer) if trainer.scheduler else None
        self.identity["scheduler"] = type(self.scheduler).__name__
        self.scale = 1.0
        self.history: list[dict[str, float]] = []
        self.trajectory: dict[str, list[Tensor]] = {name: [] for name, x in u.items() if x.numel() <= MOST_ENTRIES}
        self.first: Record | None = None
        self.last: Record | None = None
        self.best: Record | None = None

    def run(self) -> Result:
        """Go on from the present state to the end."""
        trainer, stopped = self.trainer, "outer_steps"
        first, last, best = (
            (self.first, self.last, self.best)
            if self.first and self.last and self.best
            else self.observe(self.objective.evaluate(0, None))
        )
        while last.step < trainer.outer_steps:
            if trainer.patience is not None and last.step - best.step > trainer.patience:
                stopped = "patience"
                break
            record = self.advance(last)
            if record is None:
                stopped = "stalled"
                break
            first, last, best = self.observe(record)
        trajectory = {name: torch.stack(values) for name, values in self.trajectory.items()}
        retrained = self.retrained(best) if trainer.retrain else None
        return Result(last.hparams, last.params, first, last, best, stopped, self.history, trajectory, retrained)

    def observe(self, record: Record) -> tuple[Record, Record, Record]:
        """Keep a record, and tell everyone; the first, the last and the best record so far."""
        first, best = self.first or record, self.best or record
        if record.outer_loss < best.outer_loss:
            best = record
        self.first, self.last, self.best = first, record, best
        self.history.append({"step": record.step, **record.scalars()})
        for name, values in self.trajectory.items():
            values.append(record.hparams[name])
        for callback in self.trainer.callbacks:
            callback.on_step(record)
        state = self.state(first, record, best)
        for callback in self.trainer.callbacks:
            callback.on_state(record.step, state)
        return first, record, best

    def advance(self, record: Record) -> Record | None:
        """One outer step from a record to the next; None where the acceptance takes no step.

        Raises:
            NonFiniteError: if the step leads to values that are not finite.
        """
        objective, u = self.objective, self.objective.u
        before = {name: x.detach().clone() for name, x in u.items()}
        waiting = [record.outer_loss]

        def closure() -> float:
            # A line search asks again, at other u.
            return waiting.pop() if waiting else objective.evaluate(record.step, record).outer_loss

        self.optimizer.step(closure)
        if self.scheduler is not None:
            self.scheduler.step(*([record.outer_loss] if isinstance(self.scheduler, ReduceLROnPlateau) else []))
        if not flatten(detach(u)).isfinite().all():
            bad = [name for name, x in u.items() if not x.isfinite().all()]
            raise NonFiniteError(
                f"Outer step {record.step} moved {', '.join(bad)} to NaN or infinity, where ‖dF/dλ‖ was "
                f"{record.scalars()['hypergradient/norm']:.2e}; lower the lr of the optimiser."
            )
        if self.trainer.acceptance is not None:
            return self.accepted(record, before, self.trainer.acceptance)
        return objective.evaluate(record.step + 1, record)

    def accepted(self, record: Record, before: Tensors, acceptance: "Acceptance") -> Record | None:
        """The first step from `before` towards the present u that is taken, if there is one.

        Raises:
            HypergradError: if nothing could be computed at the last of them.
        """
        objective = self.objective
        moves = {name: u.detach() - before[name] for name, u in objective.u.items()}
        warm = objective.params, objective.adjoint
        for attempt in range(acceptance.max_rejections + 1):
            objective.place({name: u + self.scale * moves[name] for name, u in before.items()})
            try:
                found = objective.evaluate(record.step + 1, record)
            except HypergradError:
                # Further than anything can be computed is too far.
                if attempt == acceptance.max_rejections:
                    raise
                found = None
            if found is not None and acceptance.accepts(record.outer_loss, found.outer_loss):
                self.scale = min(1.0, self.scale * acceptance.grow)
                return found
            objective.params, objective.adjoint = warm
            self.scale *= acceptance.shrink
        objective.place(before)
        return None

    def retrained(self, best: Record) -> dict[str, float]:
        """The metrics of a training on train and dev at the best λ, from the initial parameters."""
        problem, hparams = self.trainer.problem.joined(best.hparams)
        found = self.trainer.estimator.estimate(problem, hparams, problem.init_params())
        with torch.no_grad():
            return {name: float(x) for name, x in problem.metrics(found.params, hparams).items()}

    def state(self, first: Record, last: Record, best: Record) -> dict[str, Any]:
        """All that `restore` needs, as tensors and plain values that later steps do not change."""
        at = self.objective
        return {
            "step": last.step,
            "hparams": last.hparams,
            "params": at.params,
            "adjoint": at.adjoint,
            "u": {name: u.detach().clone() for name, u in at.u.items()},
            "grad": {name: u.grad for name, u in at.u.items()},
            "optimizer": frozen(self.optimizer.state_dict()),
            "scheduler": None if self.scheduler is None else frozen(self.scheduler.state_dict()),
            "scale": self.scale,
            "num_matvecs": at.num_matvecs,
            "num_inner_steps": at.num_inner_steps,
            "cost": asdict(at.cost),
            "warned": sorted(at.warned),
            "history": list(self.history),
            "trajectory": {name: list(values) for name, values in self.trajectory.items()},
            "records": [as_dict(record) for record in (first, last, best)],
            "random": random_state(),
            "identity": self.identity,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state, as if it had been reached here.

        Raises:
            CheckpointError: if it is of another run.
        """  # noqa: DOC502
        require_same(self.identity, state["identity"])
        at = self.objective
        device = next(iter(at.u.values())).device
        at.place(placed(state["u"], device))
        for name, grad in placed(state["grad"], device).items():
            at.u[name].grad = grad
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None and state["scheduler"] is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        at.params = placed(state["params"], device)
        at.adjoint = None if state["adjoint"] is None else state["adjoint"].to(device)
        at.num_matvecs, at.num_inner_steps = state["num_matvecs"], state["num_inner_steps"]
        at.cost = Cost(**state["cost"])
        at.warned, self.scale = set(state["warned"]), state["scale"]
        self.history, self.trajectory = state["history"], state["trajectory"]
        self.first, self.last, self.best = (as_record(content, device) for content in state["records"])
        at.begin = time.perf_counter() - self.last.seconds
        restore_random_state(state["random"])
