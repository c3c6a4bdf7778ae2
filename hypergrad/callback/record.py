"""What one outer step found."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import nn

from hypergrad.callback.trained_model import TrainedModel
from hypergrad.core.autodiff import Tensors
from hypergrad.core.display import assigned, on_screen
from hypergrad.core.status import Status
from hypergrad.problem.base import InnerProblem

OUTER_LOSS = "outer_loss"
"""The name of the dev loss, which is monitored by default."""
MOST_ENTRIES = 1000
"""A hyperparameter of more entries is summarised instead of kept in full at every step."""
MOST_SCALARS = 20
"""A vector of more entries has no scalar for each of them. A judgement: more curves cannot be told apart."""


@dataclass(frozen=True, repr=False)
class Record:
    """The results of one outer step at λ, before λ moves; the last record, after the last step, is at the final λ.

    Attributes:
        step: outer steps taken so far, from 0.
        hparams: λ in natural units.
        grad: dF/dλ in natural units; empty if it was not formed.
        params: the trained parameters.
        outer_loss: the dev loss to which `grad` belongs; on a sample of dev, if the problem draws one in each step.
        metrics: the result of the problem's `metrics`, such as `test_loss`; empty between exact evaluations, see
            `hypergrad.Trainer.exact_every`.
        stats: the numbers of the estimator's reports by their names in logs, see `hypergrad.estimator.report`.
        num_matvecs: Hessian products since the run began, including those of training.
        num_gradients: gradients of the inner loss since the run began, see `hypergrad.core.cost`.
        num_inner_steps: inner steps since the run began.
        seconds: wall time since the run began.
        problem: of this outer step.
        labels: names of the entries of λ, by hyperparameter, in the order of the flat values; may be empty.
        exact_loss: the loss on all of dev where `outer_loss` is on a sample; None where it was not evaluated.
        of_whole: the scalars of λ and dF/dλ, if their rows are spread over processes; None if they are not. Callbacks
            and results have whole tensors in any case.
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
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exact_loss: float | None = None
    of_whole: Mapping[str, float] | None = None

    def __repr__(self) -> str:
        """The losses, metrics and hyperparameters in less than 24 lines of 80 columns."""
        numbers = [f"{name.replace('_', ' ')} {value:.6g}" for name, value in self.losses().items()]
        return on_screen("Record", [f"step {self.step}", *numbers, *assigned(self.hparams)])

    @property
    def model(self) -> TrainedModel:
        """The trained parameters with what is needed to use them."""
        origin = f"outer step {self.step}"
        return TrainedModel(self.hparams, self.params, self.problem, self.losses(), origin, self.labels)

    def module(self) -> nn.Module:
        """The user's module in `eval()` mode with these parameters; see `TrainedModel.module`."""
        return self.model.module()

    def losses(self) -> dict[str, float]:
        """The dev loss, as `dev_loss`, or `dev_loss_of_a_sample` if it is known on no more, and the metrics."""
        dev = self.dev_loss
        return ({"dev_loss_of_a_sample": self.outer_loss} if dev is None else {"dev_loss": dev}) | self.metrics

    @property
    def dev_loss(self) -> float | None:
        """The loss on all of dev; None if it was not evaluated in this step."""
        return self.exact_loss if self.problem.samples_outer else self.outer_loss

    def names(self, name: str) -> tuple[str, ...]:
        """The names of the entries of a hyperparameter; where it has no labels, their indices, as in "3" or "0,1"."""
        shape = self.hparams[name].shape
        return self.labels.get(name) or tuple(",".join(map(str, index)) for index in product(*map(range, shape)))

    def monitored(self, name: str) -> float | None:
        """The dev loss if the name is "outer_loss", else the metric of that name; None if it was not evaluated."""
        return self.dev_loss if name == OUTER_LOSS else self.metrics.get(name)

    def scalars(self) -> dict[str, float]:
        """Every number of the record by its tag, the same in TensorBoard and in `metrics.jsonl`.

        A vector hyperparameter of at most `MOST_SCALARS` entries has a tag for each, such as `hparam/l2/0.weight`.
        """
        numbers = {"loss/inner": float(self.stats["inner_loss"])} if "inner_loss" in self.stats else {}
        if self.problem.samples_outer:
            numbers["loss/dev_sample"] = self.outer_loss
        if self.dev_loss is not None:
            numbers["loss/dev"] = self.dev_loss
        for name, value in self.metrics.items():
            numbers["loss/test" if name == "test_loss" else f"metric/{name}"] = value
        numbers |= self.tensor_scalars() if self.of_whole is None else self.of_whole
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

    def tensor_scalars(self) -> dict[str, float]:
        """The scalars of λ and dF/dλ, from the tensors of the record."""
        numbers: dict[str, float] = {}
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
        return numbers


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
