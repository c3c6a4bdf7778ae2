"""The promise of a callback, and the objects that describe a run to it.

Each file of this folder is one callback, or what callbacks share. It imports estimators, problems and plots. The outer
loop calls callbacks; they do not know it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch

from hypergrad.core.autodiff import Tensors
from hypergrad.core.status import Status
from hypergrad.estimator.base import HypergradEstimator
from hypergrad.problem.base import InnerProblem

OUTER_LOSS = "outer_loss"
"""The name of the dev loss, which is monitored by default."""
MOST_ENTRIES = 1000
"""A hyperparameter of more entries is summarised instead of kept in full at every step."""
MOST_SCALARS = 20
"""A vector of more entries has no scalar for each of them. A judgement: more curves cannot be told apart."""


@dataclass(frozen=True)
class Run:
    """What is known when a run starts.

    Attributes:
        outer_steps: planned updates of the hyperparameters; 0 if that is not known.
        problem: what is tuned.
        estimator: how it is trained.
        config: the resolved config, or another description of the run, as nested dicts of plain values.
        resumed_at: the last outer step of a resumed run that is already on disk; None for a new run, and -1 for one
            that begins again in its folder because it was cut short before its first state.
    """

    outer_steps: int
    problem: InnerProblem
    estimator: HypergradEstimator
    config: dict[str, Any] = field(default_factory=dict)
    resumed_at: int | None = None


@dataclass(frozen=True)
class Record:
    """The results of one outer step at λ, before λ moves; the last record, after the last step, is at the final λ.

    Attributes:
        step: outer steps taken so far, from 0.
        hparams: λ in natural units.
        grad: dF/dλ in natural units; empty if it was not formed.
        params: the trained parameters.
        outer_loss: the dev loss.
        metrics: the result of the problem's `metrics`, such as `test_loss`.
        stats: the numbers of the estimator's reports by their names in logs, see `hypergrad.estimator.report`.
        num_matvecs: Hessian products since the run began, including those of training.
        num_gradients: gradients of the inner loss since the run began, see `hypergrad.core.cost`.
        num_inner_steps: inner steps since the run began.
        seconds: wall time since the run began.
        labels: names of the entries of λ, by hyperparameter, in the order of the flat values; may be empty.
    """

    step: int
    hparams: Tensors
    grad: Tensors
    params: Tensors
    outer_loss: float
    metrics: dict[str, float]
    stats: Mapping[str, float | int | str]
    num_matvecs: int
    num_gradients: int
    num_inner_steps: int
    seconds: float
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def names(self, name: str) -> tuple[str, ...]:
        """The names of the entries of a hyperparameter; where it has no labels, their indices, as in "3" or "0,1"."""
        shape = self.hparams[name].shape
        return self.labels.get(name) or tuple(",".join(map(str, index)) for index in product(*map(range, shape)))

    def monitored(self, name: str) -> float:
        """The dev loss if the name is "outer_loss", else the metric of that name."""
        return self.outer_loss if name == OUTER_LOSS else self.metrics[name]

    def scalars(self) -> dict[str, float]:
        """Every number of the record by its tag, the same in TensorBoard and in `metrics.jsonl`.

        A vector hyperparameter of at most `MOST_SCALARS` entries has a tag for each, such as `hparam/l2/0.weight`.
        """
        numbers = {"loss/inner": float(self.stats["inner_loss"])} if "inner_loss" in self.stats else {}
        numbers["loss/dev"] = self.outer_loss
        for name, value in self.metrics.items():
            numbers["loss/test" if name == "test_loss" else f"metric/{name}"] = value
        for name, value in self.hparams.items():
            if value.ndim == 0:
                numbers[f"hparam/{name}"] = value.item()
            else:
                numbers[f"hparam_norm/{name}"] = torch.linalg.vector_norm(value).item()
            if (value.ndim == 1 or name in self.labels) and value.numel() <= MOST_SCALARS:
                entries = zip(self.names(name), value.flatten().tolist(), strict=True)
                numbers |= {f"hparam/{name}/{label}": x for label, x in entries}
        if self.grad:
            flat = torch.cat([g.reshape(-1) for g in self.grad.values()])
            numbers["hypergradient/norm"] = torch.linalg.vector_norm(flat).item()
        for key, tag in _STAT_TAGS.items():
            value = self.stats.get(key, math.nan)
            # Left out: an unknown number, which is NaN, and the status of training that need not converge.
            if value == value and value != Status.NOT_REQUIRED:
                numbers[tag] = float(value == Status.CONVERGED) if isinstance(value, str) else float(value)
        numbers["run/products"] = float(self.num_matvecs)
        numbers["run/gradients"] = float(self.num_gradients)
        numbers["run/inner_steps"] = float(self.num_inner_steps)
        numbers["run/seconds"] = self.seconds
        return numbers


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        hparams: the final λ in natural units.
        params: the parameters trained there.
        first: the record at the initial λ, the default that tuning has to improve.
        last: the record at the final λ.
        best: the record at the minimum of the monitored number, by default the dev loss.
        stopped: why it ended: "outer_steps", "patience" (the monitored number had no new minimum), "stalled" (no step
            in the direction of the optimiser lowered the dev loss), "interrupted" (by Ctrl-C; the last record is then
            that of the last complete step), or "budget" (of a search, whose records are trials).
        history: the scalars of every record, in order, by the tags of TensorBoard, with `step`; for a data frame.
        trajectory: each hyperparameter of at most `MOST_ENTRIES` entries over the records, shape (records, …).
        retrained: the metrics after a final training on train and dev together at the best λ, if requested.
        monitor: what is monitored: "outer_loss", or the name of a metric.
    """

    hparams: Tensors
    params: Tensors
    first: Record
    last: Record
    best: Record
    stopped: str
    history: list[dict[str, float]]
    trajectory: Tensors
    retrained: dict[str, float] | None = None
    monitor: str = OUTER_LOSS

    def __repr__(self) -> str:
        """The losses and not the tensors, as a notebook shows them."""
        losses = f"dev loss {self.first.outer_loss:.6g} → {self.last.outer_loss:.6g}"
        what = "" if self.monitor == OUTER_LOSS else f" {self.monitor}"
        least = self.best.monitored(self.monitor)
        best = "" if self.best.step == self.last.step else f", lowest{what} {least:.6g} at {self.best.step}"
        return f"Result({self.last.step} outer steps, {losses}{best}, stopped by {self.stopped})"

    def tensors(self) -> Tensors:
        """The history as one tensor per tag, shape (records,), NaN where a record has no such number."""
        tags = {tag: None for row in self.history for tag in row}
        return {tag: torch.tensor([row.get(tag, math.nan) for row in self.history]) for tag in tags}


_STAT_TAGS = {
    "inner_grad_norm": "inner/grad_norm",
    "inner_steps": "inner/steps",
    "inner_status": "inner/converged",
    "adjoint_residual": "adjoint/residual",
    "adjoint_condition": "adjoint/condition",
    "support_size": "inner/support",
    "num_matvecs": "adjoint/products",
    "adjoint_status": "adjoint/converged",
    "error_estimate": "hypergradient/error",
    "truncation_bias": "hypergradient/truncation",
}


class Callback:
    """What happens around an outer step. Every method is optional; none may change its arguments."""

    def writes_to(self) -> Sequence[Path]:
        """The folders that it writes to. A run locks them, so that no other process writes there at the same time."""
        return ()

    def on_start(self, run: Run) -> None:
        """Before the first outer step."""

    def on_step(self, record: Record) -> None:
        """After each estimate, with the λ at which it was made."""

    def on_state(self, step: int, state: dict[str, Any]) -> None:
        """After `on_step` of all callbacks: all that is needed to resume the run there, as tensors and plain values.

        The state is built only if a callback defines this method. Later steps do not change it. Its "history", and each
        value of its "trajectory", is a `Sequence` of one entry per record; the records before a step are never copied.
        """

    def on_end(self, result: Result) -> None:
        """After the last step."""

    def on_error(self, error: BaseException, last: Record | None) -> None:
        """When an error or Ctrl-C ends the run; `last` is the last record, if there is one."""


def claim(path: Path, run: Run) -> None:
    """Make the folder of `path` and require that no other run has written there; a resumed run may have.

    Raises:
        FileExistsError: if the file exists and the run is new.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and run.resumed_at is None:
        raise FileExistsError(f"{path} belongs to another run; choose another folder.")
