"""The promise of a callback, and the objects that describe a run to it.

Each file of this folder is one callback, or what callbacks share. It imports estimators, problems and plots. The outer
loop calls callbacks; they do not know it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hypergrad.callback.rows import as_csv, as_frame, table_rows
from hypergrad.callback.trained_model import TrainedModel
from hypergrad.callback.whole_file import write_whole
from hypergrad.core.autodiff import Tensors
from hypergrad.core.display import assigned, on_screen
from hypergrad.core.status import Status
from hypergrad.estimator.base import HypergradEstimator
from hypergrad.problem.base import InnerProblem

OUTER_LOSS = "outer_loss"
"""The name of the dev loss, which is monitored by default."""
MOST_ENTRIES = 1000
"""A hyperparameter of more entries is summarised instead of kept in full at every step."""


@dataclass(frozen=True)
class Run:
    """What is known when a run starts.

    Attributes:
        outer_steps: planned updates of the hyperparameters; 0 if that is not known.
        problem: what is tuned.
        estimator: how it is trained.
        config: the resolved config, or another description of the run, as nested dicts of plain values.
        resumed_at: the last outer step of a resumed run that is already on disk; None for a new run.
        best: returns the best record so far, or None before the first one; also while the run goes on.
    """

    outer_steps: int
    problem: InnerProblem
    estimator: HypergradEstimator
    config: dict[str, Any] = field(default_factory=dict)
    resumed_at: int | None = None
    best: "Callable[[], Record | None]" = field(default=lambda: None, repr=False)


@dataclass(frozen=True, repr=False)
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
        problem: of this outer step.
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
    problem: InnerProblem = field(compare=False)

    def __repr__(self) -> str:
        """The losses, metrics and hyperparameters in less than 24 lines of 80 columns."""
        numbers = [f"{name.replace('_', ' ')} {value:.6g}" for name, value in self.losses().items()]
        return on_screen("Record", [f"step {self.step}", *numbers, *assigned(self.hparams)])

    @property
    def model(self) -> TrainedModel:
        """The trained parameters with what is needed to use them."""
        return TrainedModel(self.hparams, self.params, self.problem, self.losses(), f"outer step {self.step}")

    def module(self) -> nn.Module:
        """The user's module in `eval()` mode with these parameters; see `TrainedModel.module`."""
        return self.model.module()

    def losses(self) -> dict[str, float]:
        """The dev loss, as `dev_loss`, and the metrics."""
        return {"dev_loss": self.outer_loss, **self.metrics}

    def monitored(self, name: str) -> float:
        """The dev loss if the name is "outer_loss", else the metric of that name."""
        return self.outer_loss if name == OUTER_LOSS else self.metrics[name]

    def scalars(self) -> dict[str, float]:
        """Every number of the record by its tag, the same in TensorBoard and in `metrics.jsonl`."""
        numbers = {"loss/inner": float(self.stats["inner_loss"])} if "inner_loss" in self.stats else {}
        numbers["loss/dev"] = self.outer_loss
        for name, value in self.metrics.items():
            numbers["loss/test" if name == "test_loss" else f"metric/{name}"] = value
        for name, value in self.hparams.items():
            if value.ndim == 0:
                numbers[f"hparam/{name}"] = value.item()
            else:
                numbers[f"hparam_norm/{name}"] = torch.linalg.vector_norm(value).item()
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


@dataclass(frozen=True, repr=False)
class Result:
    """The result of a run.

    Attributes:
        first: the record at the initial λ, the default that tuning has to improve.
        last: the record at the final λ.
        best: the record at the minimum of the monitored number, by default the dev loss.
        stopped: why it ended: "outer_steps", "patience" (the monitored number had no new minimum), "stalled" (no step
            in the direction of the optimiser lowered the dev loss), or "budget" (of a search, whose records are
            trials).
        history: the scalars of every record, in order, by the tags of TensorBoard, with `step`; for a data frame.
        trajectory: each hyperparameter of at most `MOST_ENTRIES` entries over the records, shape (records, …).
        final_model: the model of a final training on train and dev together at the best λ, if requested.
        monitor: what is monitored: "outer_loss", or the name of a metric.
    """

    first: Record
    last: Record
    best: Record
    stopped: str
    history: list[dict[str, float]]
    trajectory: Tensors
    final_model: TrainedModel | None = None
    monitor: str = OUTER_LOSS

    @property
    def hparams(self) -> Tensors:
        """The best λ in natural units; the final λ is `last.hparams`."""
        return self.best.hparams

    @property
    def params(self) -> Tensors:
        """The parameters trained at the best λ."""
        return self.best.params

    @property
    def retrained(self) -> dict[str, float] | None:
        """The metrics after the final training on train and dev together, if it was requested."""
        return None if self.final_model is None else dict(self.final_model.losses)

    @property
    def model(self) -> TrainedModel:
        """The model to use: that of the final training if there was one, else that of the best record."""
        return self.final_model or self.best.model

    def module(self) -> nn.Module:
        """The user's module in `eval()` mode with the parameters of `model`; see `TrainedModel.module`."""
        return self.model.module()

    def __repr__(self) -> str:
        """The losses and not the tensors, as a notebook shows them."""
        losses = f"dev loss {self.first.outer_loss:.6g} → {self.last.outer_loss:.6g}"
        what = "" if self.monitor == OUTER_LOSS else f" {self.monitor}"
        least = f"lowest{what} {self.best.monitored(self.monitor):.6g} at {self.best.step}"
        best = [] if self.best.step == self.last.step else [least]
        return on_screen("Result", [f"{self.last.step} outer steps", losses, *best, f"stopped by {self.stopped}"])

    def save(self, folder: str | Path) -> None:
        """Write `hparams.yaml`, `model.pt` and `history.csv`; earlier files of these names are replaced.

        See `TrainedModel.save`; a row of `history.csv` is one of `rows`.
        """
        self.model.save(folder)
        write_whole(Path(folder) / "history.csv", as_csv(self.rows()).encode())

    def rows(self) -> list[dict[str, float]]:
        """The history with each entry of the `trajectory` of a vector, as `hparam/NAME/LABEL` or `hparam/NAME/0, …`."""
        return table_rows(self.history, self.trajectory, self.best.problem.hyperparameters())

    def to_frame(self) -> Any:
        """The `rows` as a pandas DataFrame; ImportError if pandas is not installed."""
        return as_frame(self.rows())

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

    def on_start(self, run: Run) -> None:
        """Before the first outer step."""

    def on_step(self, record: Record) -> None:
        """After each estimate, with the λ at which it was made."""

    def on_state(self, step: int, state: dict[str, Any]) -> None:
        """After `on_step` of all callbacks: all that is needed to resume the run there, as tensors and plain values."""

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
