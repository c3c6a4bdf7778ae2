"""Whether a loss of examples is the sum of the losses of their parts."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hypergrad.core.torch_internals.modules import BatchNorm
from hypergrad.data.tree import take
from hypergrad.model.batch_statistics import moments_of
from hypergrad.model.criterion import Criterion, Fraction
from hypergrad.model.known_loss import IGNORED
from hypergrad.problem.supervised.judged_problem import JudgedProblem

_MARGIN = 1e3
"""Rounding that is allowed, in units of the machine epsilon; a dependence on the batch is off by far more."""
_COARSEST = 0.05
"""The most that is allowed, which matters for half precision only."""
_PARTS = 3
"""Of different sizes, if the number of examples is no multiple of it."""


def try_division(problem: JudgedProblem, X: Any, y: Tensor) -> None:
    """Require a model and a loss that can be divided as the settings of a problem say.

    Args:
        problem: its model and loss were tried on whole batches.
        X: the arguments of the model for a few train examples.
        y: their targets.

    Also raised, by what it calls: ValueError if they cannot.
    """
    model, settings = problem.model, [f"{name} = {size}" for name, size in problem.sizes().items() if size is not None]
    if problem.micro_batch is not None:
        require_no_batch_statistics(model.module, f"micro_batch = {problem.micro_batch}")
    if not settings or batch_statistics(model.module):
        return
    if problem.returns_loss:
        for name in ("train", "dev"):
            require_nothing_ignored(problem.targets(name), settings[0])
    step = 0 if problem.micro_batch is not None and not model.draws else None
    require_divisible(problem.criterion, lambda rows: model(model.params(), take(X, rows), step), y, settings[0])


def of_processes(world: int) -> str:
    """What errors call the sharing of a problem by some processes."""
    return f"DataParallel on {world} processes"


def try_sharing(problem: JudgedProblem, X: Any, y: Tensor, world: int) -> bool:
    """Require a model and a loss of which several processes can each compute a part.

    Args:
        problem: its model and loss were tried on whole batches.
        X: a few inputs of train.
        y: their targets.
        world: the number of processes.

    Returns:
        Whether the model normalises by the statistics of its batch.

    Raises:
        ValueError: if a layer shares its statistics by itself, or dev is computed in batches with statistics of their
            own.

    Also raised, by what it calls: ValueError if the losses of the parts do not make the loss of all.
    """
    model, setting = problem.model, of_processes(world)
    layer = batch_statistics(model.module)
    if layer and isinstance(model.module.get_submodule(layer), nn.SyncBatchNorm):
        raise ValueError(
            f"{setting} sums the statistics of batch normalisation over the processes itself, but the layer {layer!r} "
            "is an nn.SyncBatchNorm, whose second derivatives are wrong; give the model the nn.BatchNorm1d, 2d or 3d "
            "from which it was made."
        )
    if layer and problem.dev_batch_size is not None:
        raise ValueError(
            f"{setting} computes each process's part of dev at once, by statistics of all of dev, because the layer "
            f"{layer!r} normalises by those of its batch, but dev_batch_size is {problem.dev_batch_size}; leave it out."
        )
    if problem.returns_loss:
        for name in ("train", "dev"):
            require_nothing_ignored(problem.known(name)[1], setting)
        problem.check_as_read(lambda name, y: require_nothing_ignored(y, setting))
    require_divisible(problem.criterion, _by_same_moments(problem, problem.arguments(X, y)), y, setting)
    return bool(layer)


def _by_same_moments(problem: JudgedProblem, X: Any) -> Callable[[slice], Tensor]:
    """The outputs for some of a few examples, normalised by the statistics of all of them."""
    model, recorded = problem.model, list[tuple[Tensor, Tensor]]()

    def recording(x: Tensor) -> tuple[Tensor, Tensor]:
        recorded.append(moments_of(x))
        return recorded[-1]

    step = None if model.draws else 0
    with torch.no_grad():
        model(model.params(), X, step, recording)

    def outputs_of(rows: slice) -> Tensor:
        again = iter(recorded)
        return model(model.params(), take(X, rows), step, lambda x: next(again))

    return outputs_of


def batch_statistics(module: nn.Module) -> str:
    """The name of a layer that normalises by the statistics of its batch; "" if there is none."""
    layers = (BatchNorm,)
    return next(
        (name for name, part in module.named_modules() if isinstance(part, layers) and part.running_mean is None), ""
    )


def require_no_batch_statistics(module: nn.Module, setting: str) -> None:
    """Require a module whose outputs for an example do not depend on the statistics of the batch.

    Args:
        module: is not called.
        setting: what needs this, for the error.

    Raises:
        ValueError: if a layer normalises by them.
    """
    name = batch_statistics(module)
    if name:
        raise ValueError(
            f"{setting} needs a model whose outputs for an example do not depend on the other examples, but the layer "
            f"{name!r}, a {type(module.get_submodule(name)).__name__}, normalises by the statistics of its batch. Call "
            "eval() on it, which fixes its running averages, replace it by nn.GroupNorm, or leave "
            f"{setting.split()[0]} out."
        )


@torch.no_grad()
def require_divisible(criterion: Criterion, outputs_of: Callable[[slice], Tensor], y: Tensor, setting: str) -> None:
    """Require that the losses of the parts of a few examples make the loss of all of them.

    Whether a user's loss is a mean or a sum is found out.

    Args:
        criterion: the loss.
        outputs_of: z of some of the examples.
        y: the targets of all.
        setting: what needs this, for the error.

    Raises:
        ValueError: if they do not.
    """
    declared, whole = criterion.reduction, criterion.value(outputs_of(slice(None)), y)
    if not whole.isfinite() or len(y) < 2:
        return
    off = torch.inf
    for reduction in (declared,) if criterion.known else (declared, "sum"):
        criterion.reduction = reduction
        parts, size = _parts(criterion, outputs_of, y), 0.0
        for part in parts:
            size += part.abs().item()
        off = min(off, abs(sum(part.item() for part in parts) - whole.item()) / max(size, abs(whole.item()), 1e-30))
        if off <= min(_MARGIN * torch.finfo(whole.dtype).eps, _COARSEST):
            return
    criterion.reduction = declared
    raise ValueError(
        f"{setting} needs a loss that is a mean or a sum over examples, each with outputs of its own, but on "
        f"{len(y)} examples the losses of {_PARTS} parts do not make the loss of all: they are off by {off:.1e} of it. "
        "Look for statistics of the batch in the model, or for pairs of examples or a denominator of its own in the "
        f"loss, or leave {setting.split()[0]} out."
    )


def _parts(criterion: Criterion, outputs_of: Callable[[slice], Tensor], y: Tensor) -> list[Tensor]:
    """The share times the loss of each part."""
    count, start, losses = criterion.count(y), 0, []
    for number, rows in enumerate(torch.arange(len(y)).tensor_split(min(_PARTS, len(y)))):
        cut = slice(start, start + len(rows))
        share = len(rows) / len(y)
        losses.append(share * criterion.value(outputs_of(cut), y[cut], None, Fraction(number, share, count)))
        start += len(rows)
    return losses


def require_nothing_ignored(y: Tensor, setting: str) -> None:
    """Require that no target is −100, which a model that returns its loss may ignore.

    Raises:
        ValueError: if one is.
    """
    ignored = 0 if y.is_floating_point() else int((y == IGNORED).sum())
    if ignored:
        raise ValueError(
            f"{setting} needs to know the denominator of the loss, but the model returns its loss itself, and "
            f"{ignored} of {y.numel()} targets are {IGNORED}, which it may ignore. Give hg.Supervised a `loss` of its "
            f"outputs, such as torch.nn.functional.cross_entropy, or leave {setting.split()[0]} out."
        )
