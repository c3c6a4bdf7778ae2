"""A loss tried on a few examples: whether it fits outputs and targets, and is made of a term for each example."""

import warnings
from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor

from hypergrad.core.torch_internals.objects import version_of
from hypergrad.data.parts import require_classes
from hypergrad.data.source import Part
from hypergrad.data.tables import Split
from hypergrad.model.criterion import Criterion
from hypergrad.model.known_loss import require_range
from hypergrad.model.repetition import is_repeated

_ROWS = 8
"""Examples to try a loss on, and as many more whose targets are no classes."""
_FAILURES = (RuntimeError, ValueError, TypeError, IndexError, UserWarning)


def try_loss(criterion: Criterion, outputs: Tensor, parts: Mapping[str, Split | Part]) -> int | None:
    """Try the loss on a few examples of every part.

    Args:
        criterion: the loss.
        outputs: z of a few examples, shape (m, …); they stand for the outputs of all examples.
        parts: the targets, in the dtype and on the device of the outputs unless they are integers.

    Returns:
        K if the targets of the first part are classes 0 to K − 1 or ignored, else None.

    Also raised, by what it calls: ValueError if a part does not fit the loss or the model, or if the loss is no pure
    function of outputs and targets, or depends on a tensor that requires a gradient.
    """
    counts = []
    for name, part in parts.items():
        count = require_targets(criterion, outputs, part.y, name)
        z, y = examples(outputs, part.y, count)
        _try(criterion, z, y, name, unusual=count is not None and not bool(criterion.counted(y, count).all()))
        counts.append(count)
    return counts[0]


def require_targets(criterion: Criterion, outputs: Tensor, y: Tensor, name: str) -> int | None:
    """Require that targets fit the outputs and the loss, as far as it is known without a trial.

    Returns:
        K if they are classes 0 to K − 1 or ignored, else None.

    Also raised, by what it calls: ValueError if some do not.
    """
    require_shapes(criterion, outputs, y, name)
    count = _classes(criterion, outputs, y)
    if criterion.known is not None and criterion.known.targets == "class" and count is not None:
        require_classes(y, count, criterion.ignored, name)
    if criterion.known is not None:
        require_range(criterion.known, y, name)
    return count


def require_shapes(criterion: Criterion, outputs: Tensor, y: Tensor, name: str) -> None:
    """Require that outputs and targets have shapes that a loss of torch does not broadcast.

    Raises:
        ValueError: if they have not.
    """
    z = (len(y), *outputs.shape[1:])
    known = criterion.known
    if known is None:
        expected = "(n,) for outputs of shape (n,)" if len(z) == 1 and y.shape == (len(y), 1) else ""
    elif known.targets != "class":
        fits = y.shape in (z, z[:1] if z[1:] == (1,) else z)
        expected = "" if fits else "the shape of the outputs; for one output in each example, (n,) is right too"
    elif len(z) < 2:
        expected = "(n,) for outputs of shape (n, K), with one output for each class"
    elif not y.is_floating_point():
        expected = "" if y.shape == (z[0], *z[2:]) else "(n, …) for outputs of shape (n, K, …)"
    else:
        expected = "" if known.probabilities and y.shape == z else "integers, one class for each example"
        expected += ", or probabilities of the shape of the outputs" if expected and known.probabilities else ""
    if expected:
        raise ValueError(
            f"The targets of the {name} part must be {expected}, but the outputs are {z}, and the targets are "
            f"{tuple(y.shape)} of {y.dtype}. Change the targets, for example by y.squeeze(1), y.unsqueeze(1) or "
            "y.long(), or the last layer of the model, or choose another loss."
        )


def examples(outputs: Tensor, y: Tensor, count: int | None) -> tuple[Tensor, Tensor]:
    """A few examples for a trial, as outputs and targets, among them some whose targets are no classes."""
    usual = torch.ones(len(y), dtype=torch.bool, device=y.device)
    if count is not None:
        usual = ((y >= 0) & (y < count)).flatten(1).all(1) if y.ndim > 1 else (y >= 0) & (y < count)
    rows = torch.cat([kind.nonzero().squeeze(1)[:_ROWS] for kind in (usual, ~usual)])
    if len(rows) > 1 and y.ndim == 1 and outputs.shape[1:] == rows.shape:
        rows = rows[1:]  # else (n, k) and (n,) broadcast without an error
    return outputs[torch.arange(len(rows), device=outputs.device) % len(outputs)].detach(), y[rows]


def _classes(criterion: Criterion, outputs: Tensor, y: Tensor) -> int | None:
    """K if the targets are one class for each example or position, as far as their shape and type show."""
    if y.is_floating_point() or criterion.known is not None and criterion.known.targets != "class":
        return None
    is_class = outputs.ndim == y.ndim + 1 and outputs.shape[2:] == y.shape[1:]
    wants_class = criterion.known is not None
    return outputs.shape[1] if is_class and (wants_class or outputs.shape[1:] != (1,)) else None


def _try(criterion: Criterion, z: Tensor, y: Tensor, name: str, unusual: bool) -> None:
    """Try the loss on a few examples of a part.

    Raises:
        ValueError: if it fails, or changes what it is given or itself.

    Also raised, by what it calls: ValueError if it depends on more than outputs and targets.
    """
    tried, elsewhere = criterion, z.is_cuda and criterion.known is None and unusual
    if elsewhere:  # there, an index out of range ends the process
        tried, z, y = deepcopy(criterion).cpu(), z.cpu(), y.cpu()
    z, y = z.clone(), y.clone()
    versions = version_of(z), version_of(y)
    held = {known: buffer.clone() for known, buffer in tried.named_buffers()}
    try:
        value = _value(tried, z, y)
    except _FAILURES as error:
        if elsewhere and "device" in str(error):
            return
        raise ValueError(
            f"The loss failed on outputs of shape {tuple(z.shape)} and targets of shape {tuple(y.shape)} and {y.dtype} "
            f"of the {name} part{_unusual(tried, z, y, unusual)}: {type(error).__name__}: {str(error).rstrip('.')}. "
            "Choose a loss, a last layer of the model and targets that fit each other."
        ) from error
    criterion.converts = tried.converts
    changed = [known for known, buffer in tried.named_buffers() if not torch.equal(buffer, held[known])]
    if (version_of(z), version_of(y)) != versions or changed:
        what = f"its buffer {changed[0].removeprefix('loss.')!r}" if changed else "the outputs or targets"
        raise ValueError(f"The loss must change nothing, but it changes {what} in place. Let it work on a copy.")
    _require_function(tried, z, y, value)


def _require_function(criterion: Criterion, z: Tensor, y: Tensor, value: Tensor) -> None:
    """Require that a loss, which was tried, depends on outputs and targets alone.

    Raises:
        ValueError: if it draws random numbers, depends on a tensor that requires a gradient, or has no gradient.
    """
    if value.requires_grad:
        raise ValueError(
            "Only parameters of the model are trained, but the loss depends on another tensor that requires a "
            "gradient. Make it a part of the model, or call requires_grad_(False) on it."
        )
    again = _drawn(criterion, z, y, seed=1)
    if not is_repeated(value, again) and value.isfinite().all():
        raise ValueError(
            f"The loss must be a function of outputs and targets, but two calls differ: {value.item():.6g} and "
            f"{again.item():.6g}. Leave out what draws random numbers, or call eval() on it."
        )
    with torch.enable_grad():
        if not _drawn(criterion, z.requires_grad_().clone(), y, seed=0).requires_grad:
            raise ValueError(
                "The loss must be differentiable in the outputs, but its value for them has no gradient: it calls "
                "detach(), no_grad() or item(), or an operation without a derivative, such as argmax or round. Leave "
                "that out; an accuracy is a metric and no loss."
            )


def _value(criterion: Criterion, z: Tensor, y: Tensor) -> Tensor:
    """The loss; with integer targets as numbers, from now on, if it needs that."""
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("error", message="Using a target size")
        try:
            return _drawn(criterion, z, y, seed=0)
        except _FAILURES:
            fits = criterion.fitted(z, y)[0].shape == y.shape
            if criterion.known is not None or y.is_floating_point() or not fits:
                raise
        criterion.converts = True
        return _drawn(criterion, z, y, seed=0)


def _drawn(criterion: Criterion, z: Tensor, y: Tensor, *, seed: int) -> Tensor:
    """The loss, with what it draws from a seed."""
    with torch.random.fork_rng(devices=[z.device] if z.is_cuda else []):
        torch.manual_seed(seed)
        return criterion.value(z, y)


def _unusual(criterion: Criterion, z: Tensor, y: Tensor, unusual: bool) -> str:
    """What stands out among the targets, as text."""
    if not unusual:
        return ""
    other = y[~criterion.counted(y, z.shape[1])][0].item()
    return f", where the model has {z.shape[1]} outputs, so classes are 0 to {z.shape[1] - 1}, but a target is {other}"
