"""Second derivatives that are wrong: products with the Hessian against differences of gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors, leaves
from hypergrad.core.torch_internals.trees import TreeSpec, tree_flatten, tree_leaves, tree_map_only, tree_unflatten
from hypergrad.model.probe import slopes
from hypergrad.model.pure_module import PureModule
from hypergrad.model.requirements import layer

_MARGIN = 10
"""Times the disagreement of the differences that an error must exceed. A judgement: by theory a 15th is enough."""


def direction_like(w: Tensors) -> Tensors:
    """Normal random numbers v, the same at every call."""
    generator = torch.Generator().manual_seed(2)
    return {name: torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device) for name, p in w.items()}


def errors(product: Tensors, gradient: Callable[[Tensors], Tensors], w: Tensors, v: Tensors) -> dict[str, float]:
    """The relative errors ‖Jᵀ v − d‖ / ‖d‖ of the tensors that seem wrong, where d are differences of ∇ along v.

    A tensor is not among them where its error does not exceed what rounding explains, or what differences of two widths
    leave open: at a kink, as that of a rectifier, they do not agree with each other. Nor is it where J, the derivative
    of ∇, is not symmetric but Jᵀ v is right: u · Jᵀ v = v · J u. An example is an embedding of padding, which has no
    gradient.

    Args:
        product: Jᵀ v.
        gradient: ∇, a function of named tensors; float64 keeps the differences small enough to step on few kinks.
        w: where; four gradients near it are formed, and two more for each tensor that seems wrong.
        v: the direction.
    """
    width = torch.finfo(next(iter(w.values())).dtype).eps ** 0.4 * max(_norm(w), 1.0)
    near, far = (_difference(gradient, w, v, k * width) for k in (1, 4))
    eps = torch.finfo(next(iter(product.values())).dtype).eps
    size = _norm(near)
    disagreement, wrong = _norm({name: far[name] - d for name, d in near.items()}) / (size or 1.0), dict[str, float]()
    for name, d in near.items():
        own, spread = (torch.linalg.vector_norm(x).item() for x in (d, far[name] - d))
        u = product[name].to(d) - d
        off = torch.linalg.vector_norm(u).item()
        if off > _MARGIN * (spread + disagreement * own) + eps**0.25 * own + 100 * eps ** (2 / 3) * size:
            along = _difference(gradient, w, {k: u if k == name else torch.zeros_like(x) for k, x in v.items()}, width)
            gap = (product[name].to(u) * u).sum() - sum((v[k] * x).sum() for k, x in along.items())
            if abs(gap) > u.square().sum() / 2:
                wrong[name] = off / own if own else float("inf")
    return wrong


def product(first: list[Tensor], w: Tensors, v: Tensors) -> Tensors:
    """H v, from the gradient, in the order of w, with a graph that reaches w."""
    pairs = [(g, v[name]) for name, g in zip(w, first, strict=True) if g.requires_grad]
    if not pairs:
        return {name: torch.zeros_like(p) for name, p in w.items()}
    gradients, directions = zip(*pairs, strict=True)
    found = torch.autograd.grad(gradients, tuple(w.values()), directions, allow_unused=True, materialize_grads=True)
    return dict(zip(w, found, strict=True))


def layer_with_wrong(model: PureModule, w: Tensors, X: Any) -> str:
    """The innermost layer whose own second derivatives are wrong, by name and class."""
    for part, given in _calls(model, w, X):
        call = _LayerCall(model, w, part, *tree_flatten(given))
        point = call.point()
        if point:
            v = direction_like(point)
            at = leaves(point)
            found = product(call.gradient(at, create_graph=True), at, v)
            if errors(found, lambda at, call=call: dict(zip(at, call.gradient(leaves(at)), strict=True)), point, v):
                return layer(model.module, part)
    return layer(model.module, model.module)


@dataclass(frozen=True)
class _LayerCall:
    """A layer as a function of its parameters, by name, and of the tensors given to it, by position."""

    model: PureModule
    w: Tensors
    part: nn.Module
    values: list[Any]
    structure: TreeSpec

    def point(self) -> Tensors:
        own = {id(p) for p in self.part.parameters()}
        inputs = {f"input {k}": x for k, x in enumerate(self.values) if _is_real(x)}
        return {name: p for name, p in self.w.items() if id(self.model.module.get_parameter(name)) in own} | inputs

    def gradient(self, at: Tensors, *, create_graph: bool = False) -> list[Tensor]:
        values = [at[f"input {k}"].clone() if _is_real(x) else x for k, x in enumerate(self.values)]
        args, kwargs = tree_unflatten(values, self.structure)
        parameters = {name: at.get(name, p) for name, p in self.w.items()}
        device = next(iter(at.values())).device
        with torch.enable_grad(), self.model.calling(parameters, device, 0):
            outputs = [x.flatten() for x in tree_leaves(self.part(*args, **kwargs)) if _is_real(x)]
            z = torch.cat(outputs) if outputs else torch.zeros(1)
            if not z.requires_grad:
                return [torch.zeros_like(x) for x in at.values()]
            return slopes(z, list(at.values()), create_graph=create_graph)


def _is_real(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


@torch.no_grad()
def _calls(model: PureModule, w: Tensors, X: Any) -> list[tuple[nn.Module, Any]]:
    """The layers in the order in which they return, each with copies of what it was given."""
    given: dict[nn.Module, Any] = {}
    calls: list[tuple[nn.Module, Any]] = []

    def keep(module: nn.Module, args: Any, kwargs: Any) -> None:
        given[module] = tree_map_only(Tensor, lambda x: x.detach().clone(), (args, kwargs))

    def returned(module: nn.Module, args: Any, output: Any) -> None:
        calls.append((module, given[module]))

    parts = list(model.module.modules())
    handles = [part.register_forward_pre_hook(keep, with_kwargs=True) for part in parts]
    handles += [part.register_forward_hook(returned) for part in parts]
    try:
        model(w, X, 0)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _difference(gradient: Callable[[Tensors], Tensors], w: Tensors, v: Tensors, width: float) -> Tensors:
    """Central differences of ∇ along v, each side ‖t v‖ = `width` away from w."""
    t = width / _norm(v)
    ahead, behind = (gradient({name: p + s * v[name] for name, p in w.items()}) for s in (t, -t))
    return {name: (g - behind[name]) / (2 * t) for name, g in ahead.items()}


def _norm(tensors: Tensors) -> float:
    return torch.stack([torch.linalg.vector_norm(x) for x in tensors.values()]).norm().item()
