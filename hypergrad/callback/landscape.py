"""The dev loss around the trajectory of a run, by retraining."""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hypergrad.callback.base import Result, Run
from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.core.errors import HypergradError
from hypergrad.estimator.dev_loss import train_and_evaluate
from hypergrad.estimator.implicit import Implicit

if TYPE_CHECKING:
    from hypergrad.plot.landscape import Landscape

_MARGIN = 0.2
"""The part of the trajectory's length that the grid adds on each side. A judgement: enough to show where it leads."""
_LEAST_REACH = 1.0
"""The least reach of the grid around its middle, in unconstrained values. A judgement: a factor of e of a logarithm."""


def require_drawable(run: Run) -> None:
    """Require one or two hyperparameter values, and matplotlib.

    Raises:
        ValueError: if there are more, or a constraint couples them.
        ModuleNotFoundError: if matplotlib is missing.
    """
    start, spaces = run.problem.init_hparams(), run.problem.hyperparameters()
    size = sum(value.numel() for value in start.values())
    if size > 2 or any(spaces[name].to_unconstrained(value).shape != value.shape for name, value in start.items()):
        raise ValueError(
            f"A landscape is drawn over one or two values that move on their own, but {', '.join(start)} hold {size}; "
            "leave it out, or tune fewer."
        )
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}. A landscape needs matplotlib: pip install 'torch-hypergrad[plot]'."
        ) from None


@torch.no_grad()
def landscape(run: Run, result: Result, points: int) -> "Landscape":
    """The dev loss on a regular grid in unconstrained values around the trajectory, from one training per grid point.

    The grid spans the trajectory, a fifth of its length more on each side, and at least ±1 around its middle.

    Args:
        run: the problem and the estimator.
        result: the result of the run.
        points: values along each axis, ≥ 2.
    """
    from hypergrad.plot.landscape import Landscape

    start, spaces = run.problem.init_hparams(), run.problem.hyperparameters()

    def natural(u: Tensor) -> Tensors:
        return {name: spaces[name].to_natural(x) for name, x in unflatten(u, start).items()}

    at = [{name: result.trajectory[name][i] for name in start} for i in range(len(result.history))]
    u_path = torch.stack([flatten({k: spaces[k].to_unconstrained(x) for k, x in one.items()}) for one in at])
    ticks = [_ticks(u, points) for u in u_path.T]
    cells = torch.cartesian_prod(*ticks).view(-1, len(ticks))
    natural_ticks = [torch.stack([flatten(natural(u))[i] for u in _along(i, ticks)]) for i in range(len(ticks))]
    return Landscape(
        names=[f"{k}[{i}]" if x.numel() > 1 else k for k, x in start.items() for i in range(x.numel())],
        ticks=[values.double().numpy(force=True) for values in natural_ticks],
        losses=_losses(run, [natural(u) for u in cells], points).reshape([points] * len(ticks)),
        path=torch.stack([flatten(one) for one in at]).double().numpy(force=True),
        path_losses=np.array([row.get("loss/dev", math.nan) for row in result.history]),
    )


def _ticks(u: Tensor, points: int) -> Tensor:
    low, high = u.min(), u.max()
    reach = torch.clamp((high - low) * (0.5 + _MARGIN), min=_LEAST_REACH)
    return (low + high) / 2 + reach * torch.linspace(-1, 1, points, dtype=u.dtype, device=u.device)


def _along(i: int, ticks: list[Tensor]) -> list[Tensor]:
    """The points of the grid along axis i, at the first value of the other."""
    return [torch.stack([value if j == i else other[0] for j, other in enumerate(ticks)]) for value in ticks[i]]


def _losses(run: Run, cells: list[Tensors], points: int) -> np.ndarray:
    """The dev loss at each cell, NaN where it cannot be computed.

    With an implicit estimator each training starts from the parameters of the last cell; the order goes to and fro, so
    that cell is a neighbour. With any other the loss depends on the start, so each training begins at w₀.
    """
    losses = np.full(len(cells), math.nan)
    order = np.arange(len(cells)).reshape(-1, points)
    order[1::2] = order[1::2, ::-1]
    params = None
    for i in order.ravel():
        try:
            found = train_and_evaluate(run.problem, run.estimator, cells[i], params)
        except HypergradError:
            params = None
            continue
        losses[i] = found.outer_loss
        params = found.params if isinstance(run.estimator, Implicit) else None
    return losses
