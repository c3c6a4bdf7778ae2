"""The influence of each train example of a supervised problem on the dev loss."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.parts import accumulated_outer_loss
from hypergrad.problem.precision import InPrecision
from hypergrad.problem.supervised.supervised import Supervised
from hypergrad.sensitivity.jackknife import InfinitesimalJackknife

if TYPE_CHECKING:
    from rich.console import Console

_WEIGHTS = "weights of the examples"
"""A name that no hyperparameter of a user has: it is no Python name."""


@dataclass(frozen=True)
class Influences:
    """The influence of each of n train examples on the dev loss.

    Attributes:
        change: the change of the dev loss without the example, to first order in its weight, shape (n,); the error is
            O(1/n²). An example with a negative change is harmful.
        losses: the train loss of each example, without effects such as label smoothing, shape (n,); scaled so that
            their mean is the train loss, whatever its denominator.
        targets: shape (n,) or (n, …).
        dev_loss: with all examples.
    """

    change: Tensor
    losses: Tensor
    targets: Tensor
    dev_loss: float

    def print(self, top: int, console: "Console | None" = None) -> None:
        """Print the `top` most harmful and most helpful examples; on standard output when `console` is None."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        console = console or Console()
        order = self.change.argsort()
        console.print(f"dev loss {self.dev_loss:.6g} with all {len(order)} train examples", highlight=False)
        harmful = [i for i in order[:top].tolist() if self.change[i] < 0]
        helpful = [i for i in order.flip(0)[:top].tolist() if self.change[i] > 0]
        for title, rows in (("most harmful", harmful), ("most helpful", helpful)):
            table = Table("example", "target", "train loss", "dev loss without it", title=title, title_justify="left")
            table.box, table.show_edge = SIMPLE_HEAD, False
            for i in rows:
                table.add_row(str(i), _shown(self.targets[i]), f"{self.losses[i]:.4g}", f"{self.change[i]:+.3e}")
            console.print(table)

    def write(self, path: Path) -> None:
        """Write all examples, in the order of the train part, as CSV."""
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("example", "target", "train_loss", "dev_loss_change_without"))
            for i, (loss, change) in enumerate(zip(self.losses.tolist(), self.change.tolist(), strict=True)):
                writer.writerow((i, _shown(self.targets[i]), loss, change))


def influences(
    problem: InnerProblem, params: Tensors, hparams: Tensors, *, jackknife: InfinitesimalJackknife | None = None
) -> Influences:
    """The influence of each train example on the dev loss, by one adjoint solve for all examples.

    Args:
        problem: a `Supervised`.
        params: its solution at `hparams`, on all of train.
        hparams: λ.
        jackknife: the linear solver and the tolerance; its `order` and `weights` are not used.

    Returns:
        The influences, at weight 1 for every example.

    Also raised, by what it calls: TypeError if the problem is no `Supervised`; ValueError if the model draws random
    numbers in training, or its loss has no term for each example; NotOptimalError if the parameters are no solution.
    """
    problem = require_supervised(problem)
    weighted = problem.weighted(_WEIGHTS)
    with_weights = hparams | {_WEIGHTS: weighted.init_hparams()[_WEIGHTS]}
    settings = jackknife or InfinitesimalJackknife()
    fit = InfinitesimalJackknife(weights=_WEIGHTS, linsolve=settings.linsolve, tol=settings.tol).at(
        weighted, params, with_weights
    )
    with torch.no_grad():
        losses = problem.criterion.each(problem.outputs(params, hparams, None), problem.y)
        dev_loss = accumulated_outer_loss(problem, params, hparams, None).item()
    return Influences(-fit.influence(), losses, problem.y, dev_loss)


def require_supervised(problem: InnerProblem) -> Supervised:
    """The given problem, after a check of its type.

    Raises:
        TypeError: if it is not a `Supervised`, which knows its examples, has a precision of its own, or is spread over
            several processes.
    """
    if problem.is_spread:
        raise TypeError(
            f"The influence of examples is computed by one process, but {problem.peers.world} share the problem; start "
            "it without torchrun."
        )
    if isinstance(problem, InPrecision):
        raise TypeError(
            "The influence of examples is computed in the precision of the parameters, but the problem is evaluated in "
            f"{problem.precision}; leave out precision=…"
        )
    if not isinstance(problem, Supervised):
        raise TypeError(
            f"The influence of examples needs a Supervised problem, which knows its examples, but the problem is a "
            f"{type(problem).__name__}. Choose experiment=digits, or write your problem as an hg.Supervised. For other "
            "problems, declare a weight for each example as a hyperparameter and use hg.InfinitesimalJackknife."
        )
    return problem


def _shown(target: Tensor) -> str:
    return " ".join(f"{value:.6g}" for value in target.reshape(-1).tolist())
