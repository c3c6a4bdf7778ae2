"""Whether a model can be differentiated twice, and which layer of it cannot."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from hypergrad.autodiff import Tensors, leaves
from hypergrad.problem.criterion import Criterion
from hypergrad.problem.module import PureModule

_REMEDY = (
    "An implicit estimator with product=differences (hg.CentredDifferences()) does without; every other one needs "
    "another layer, or another way to write this one."
)


def objection(model: PureModule, criterion: Criterion, X: Tensor, y: Tensor) -> str:
    """What in ℓ(z(w, X), y) has no second derivative, and what to do about it; "" where all has one.

    Args:
        model: z, differentiated at its initial parameters in the first training step.
        criterion: ℓ.
        X: a few inputs.
        y: their targets.
    """
    with torch.enable_grad():
        w = leaves(model.params())
        outputs = model(w, X, 0)
        reason = _second(outputs, list(w.values()))
        if reason:
            return f"{_layer(model, w, X)} cannot be differentiated twice: {reason} {_REMEDY}"
        z = outputs.detach().requires_grad_()
        reason = _second(criterion.mean(z, y), [z])
    return f"The loss cannot be differentiated twice: {reason} {_REMEDY}" if reason else ""


def _second(output: Any, inputs: list[Tensor]) -> str:
    """What torch says to the second derivatives of an output, "" where there are some."""
    reached = [x for x in tree_leaves(output) if isinstance(x, Tensor) and x.requires_grad and x.is_floating_point()]
    if not reached or not inputs:
        return ""
    try:
        first = torch.autograd.grad(
            sum(x.square().sum() for x in reached), inputs, create_graph=True, retain_graph=True, allow_unused=True
        )
        again = [x for x in first if x is not None and x.requires_grad]
        if again:
            torch.autograd.grad(sum(x.square().sum() for x in again), inputs, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        return f"{str(error).splitlines()[0].rstrip('.')}."
    return ""


def _layer(model: PureModule, w: Tensors, X: Tensor) -> str:
    """The innermost layer without a second derivative, by name and class."""
    calls: list[tuple[str, nn.Module, list[Tensor], Any]] = []

    def watch(name: str) -> Any:
        def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            calls.append((name, module, [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)], output))

        return keep

    handles = [part.register_forward_hook(watch(name), with_kwargs=True) for name, part in model.module.named_modules()]
    try:
        model(w, X, 0)
    finally:
        for handle in handles:
            handle.remove()
    # A layer is called before the one that holds it has returned.
    for name, module, given, output in calls:
        own = [p for key, p in w.items() if not name or key.startswith(f"{name}.")]
        if _second(output, [*own, *(x for x in given if x.requires_grad)]):
            return (
                f"The layer {name!r} of the model, a {type(module).__name__}," if name else f"{type(module).__name__}"
            )
    return type(model.module).__name__
