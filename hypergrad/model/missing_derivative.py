"""Operations that have no second derivative, and the layer in which one is."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors, nodes_before
from hypergrad.core.torch_internals.trees import tree_leaves
from hypergrad.model.pure_module import PureModule
from hypergrad.model.requirements import layer

_DEAD_ENDS = ("torch::autograd::Error", "torch::autograd::NotImplemented")


def missing(output: Any, inputs: list[Tensor]) -> str:
    """Why an output has no second derivatives, in the words of torch; "" if it has some."""
    reached = [x for x in tree_leaves(output) if isinstance(x, Tensor) and x.requires_grad and x.is_floating_point()]
    if not reached or not inputs:
        return ""
    try:
        total = torch.stack([x.square().sum() for x in reached]).sum()
        first = torch.autograd.grad(total, inputs, create_graph=True, allow_unused=True)
        again = [x for x in first if x is not None and x.requires_grad]
        if has_dead_end(again):
            return "the backward of a function in it is marked once_differentiable, or has no derivative."
        if again:
            torch.autograd.grad(
                torch.stack([x.square().sum() for x in again]).sum(), inputs, retain_graph=True, allow_unused=True
            )
    except RuntimeError as error:
        return f"{str(error).splitlines()[0].rstrip('.')}."
    return ""


def has_dead_end(tensors: Iterable[Tensor]) -> bool:
    """Whether backward from the tensors would leave out what has no derivative, without an error."""
    return any(node.name() in _DEAD_ENDS for node in nodes_before(tensors))


def layer_without(model: PureModule, w: Tensors, X: Any) -> str:
    """The innermost layer without a second derivative, by name and class."""
    calls: list[tuple[str, nn.Module, list[Tensor], Any]] = []

    def watch(name: str) -> Any:
        def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            calls.append((name, module, [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)], output))

        return keep

    parts = model.module.named_modules()
    handles = [part.register_forward_hook(watch(name), with_kwargs=True) for name, part in parts]
    try:
        model(w, X, 0)
    finally:
        for handle in handles:
            handle.remove()
    # A layer returns before the one that contains it.
    for name, module, given, output in calls:
        own = [p for key, p in w.items() if not name or key.startswith(f"{name}.")]
        if missing(output, [*own, *(x for x in given if x.requires_grad)]):
            return layer(model.module, module)
    return layer(model.module, model.module)
