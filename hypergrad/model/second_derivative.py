"""Whether a model can be differentiated twice, and which layer of it cannot."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node
from torch.utils._pytree import tree_leaves

from hypergrad.core.autodiff import Tensors, flatten, leaves, unflatten, value_and_gradient, vjp
from hypergrad.model.criterion import Criterion
from hypergrad.model.pure_module import PureModule

_REMEDY = (
    "An implicit estimator with product=differences (hg.CentredDifferences()) works without second derivatives; for "
    "every other estimator, use another layer, or write this one in another way."
)
_DEAD_ENDS = ("torch::autograd::Error", "torch::autograd::NotImplemented")
_AGREEMENT = 0.03
"""Relative spread of the differences up to which they are trusted. A judgement: at a kink it is about 1."""
_WRONG = 0.1
"""Relative error from which a second derivative is called wrong. A judgement: well above the spread."""


def objection(model: PureModule, criterion: Criterion, X: Tensor, y: Tensor) -> str:
    """What in ℓ(z(w, X), y) has no second derivative, or a wrong one, and what to do about it; "" if nothing.

    torch raises if an operation has no second derivative, with two exceptions. `torch.autograd.grad` may leave out the
    terms of a function marked `once_differentiable`, so the graph is searched for these. And torch cannot see a
    backward that computes elsewhere, for example in numpy, so a product with the Hessian is checked against differences
    of the gradient.

    Args:
        model: z; it is differentiated at its initial parameters in the first training step.
        criterion: ℓ.
        X: a few inputs.
        y: their targets.
    """
    with torch.enable_grad():
        w = leaves(model.params())
        outputs = model(w, X, 0)
        reason = _missing(outputs, list(w.values()))
        if reason:
            return f"{_layer(model, w, X)} cannot be differentiated twice: {reason} {_REMEDY}"
        z = outputs.detach().requires_grad_()
        loss = criterion.value(z, y)
        reason = _missing(loss, [z])
        if reason:
            return f"The loss cannot be differentiated twice: {reason} {_REMEDY}"
        functions = {node.name() for node in _graph([outputs, loss]) if isinstance(node, BackwardCFunction)}
    off = _off(lambda w: criterion.value(model(w, X, 0), y), w) if functions else 0.0
    if off > _WRONG:
        return (
            f"{type(model.module).__name__} cannot be differentiated twice: its second derivatives are off by {off:.0%}"
            f" from differences of first ones. The backward of {', '.join(sorted(functions))} may compute outside "
            f"torch; mark it once_differentiable, or write it with torch's operations. {_REMEDY}"
        )
    return ""


class TwiceDifferentiable:
    """Requires a second derivative of ℓ(z(w, X), y); tried once for each dtype and device, whose kernels may differ.

    Args:
        model: z.
        criterion: ℓ.
    """

    def __init__(self, model: PureModule, criterion: Criterion) -> None:
        self._model, self._criterion = model, criterion
        self._objections: dict[Any, str] = {}

    def require(self, X: Tensor, y: Tensor) -> None:
        """Require it on a few examples.

        Raises:
            ValueError: if there is no second derivative, or a wrong one.
        """
        like = next(self._model.parameters())
        key = (like.dtype, like.device)
        if key not in self._objections:
            self._objections[key] = objection(self._model, self._criterion, X, y)
        if self._objections[key]:
            raise ValueError(self._objections[key])


def _missing(output: Any, inputs: list[Tensor]) -> str:
    """Why an output has no second derivatives, in the words of torch; "" if it has some."""
    reached = [x for x in tree_leaves(output) if isinstance(x, Tensor) and x.requires_grad and x.is_floating_point()]
    if not reached or not inputs:
        return ""
    try:
        total = torch.stack([x.square().sum() for x in reached]).sum()
        first = torch.autograd.grad(total, inputs, create_graph=True, allow_unused=True)
        again = [x for x in first if x is not None and x.requires_grad]
        if any(node.name() in _DEAD_ENDS for node in _graph(again)):
            return "the backward of a function in it is marked once_differentiable, or has no derivative."
        if again:
            torch.autograd.grad(
                torch.stack([x.square().sum() for x in again]).sum(), inputs, retain_graph=True, allow_unused=True
            )
    except RuntimeError as error:
        return f"{str(error).splitlines()[0].rstrip('.')}."
    return ""


def _graph(tensors: Iterable[Tensor]) -> set[Node]:
    """Every node that backward passes from the tensors would visit."""
    found: set[Node] = set()
    waiting: list[Any] = [x.grad_fn for x in tensors]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [following for following, _ in node.next_functions]
    return found


def _layer(model: PureModule, w: Tensors, X: Tensor) -> str:
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
        if _missing(output, [*own, *(x for x in given if x.requires_grad)]):
            kind = type(module).__name__
            return f"The layer {name!r} of the model, a {kind}," if name else kind
    return type(model.module).__name__


def _off(loss: Callable[[Tensors], Tensor], w: Tensors) -> float:
    """The relative error of H v against differences of the gradient; 0 if these do not agree with each other.

    They disagree at a kink, for example if the input of a rectifier is exactly zero.
    """
    at = flatten(w).detach()
    v = torch.randn(at.shape, generator=torch.Generator().manual_seed(0), dtype=at.dtype).to(at)
    with torch.enable_grad():
        point = leaves(w)
        product = vjp(flatten(value_and_gradient(loss, point)[1]), point)(v)

    def gradient(t: float) -> Tensor:
        with torch.no_grad():
            return flatten(value_and_gradient(loss, unflatten(at + t * v, w))[1])

    step = torch.finfo(at.dtype).eps ** (1 / 3) / torch.linalg.vector_norm(v).item()
    found = [(gradient(t) - gradient(-t)) / (2 * t) for t in (10 * step, 3 * step, step)]
    size = torch.linalg.vector_norm(found[1]).item()
    spread = max(torch.linalg.vector_norm(x - found[1]).item() for x in found)
    if not size > 0 or spread > _AGREEMENT * size:
        return 0.0
    return torch.linalg.vector_norm(product - found[1]).item() / size
