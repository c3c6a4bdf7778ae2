"""Differentiation primitives on named tensors: the one home of gradients, products and finite differences."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hypergrad.core.cost import spend

Tensors = dict[str, Tensor]
"""Named tensors: the parameters w, or the hyperparameters λ."""
_MANY = 1024


def flatten(tensors: Tensors) -> Tensor:
    """One flat vector, shape (n,), of all entries in the order of the names; a view where there is one tensor only."""
    return _join(tuple(tensors.values()))


def unflatten(flat: Tensor, like: Tensors) -> Tensors:
    """The named tensors, shaped as in `like`, whose `flatten` is `flat` (views, not copies)."""
    if len(like) == 1:
        return {name: flat.view_as(tensor) for name, tensor in like.items()}
    pieces = flat.split([tensor.numel() for tensor in like.values()])
    return {name: piece.view_as(like[name]) for name, piece in zip(like, pieces, strict=True)}


def _join(pieces: tuple[Tensor, ...]) -> Tensor:
    # One tensor is not copied: a torch call costs microseconds, which show in a product of a small problem.
    return pieces[0].reshape(-1) if len(pieces) == 1 else torch.cat([piece.reshape(-1) for piece in pieces])


def detach(tensors: Tensors) -> Tensors:
    """The same values outside any graph."""
    return {name: tensor.detach() for name, tensor in tensors.items()}


def leaves(tensors: Tensors) -> Tensors:
    """The same values as new leaves that require gradients; the arguments stay untouched."""
    return {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}


def value_and_gradient(
    function: Callable[[Tensors], Tensor], params: Tensors, name: str = "The function"
) -> tuple[Tensor, Tensors]:
    """The scalar f(w) and ∇f(w).

    Both can be differentiated again exactly where grad mode is enabled, with respect to whatever `params` and the
    closure of `function` depend on; under `torch.no_grad()` no graph is kept. A tensor that f ignores has gradient 0.
    It counts as one gradient, see `hypergrad.core.cost`.

    Args:
        function: maps named tensors to a tensor of shape ().
        params: where to differentiate.
        name: what an error calls the function.

    Returns:
        f(w), shape (), and ∇f(w), shaped as `params`.

    Raises:
        ValueError: if f depends on none of them.
    """
    spend(gradients=1)
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        if differentiable:
            point = {name: p if p.requires_grad else p.detach().requires_grad_() for name, p in params.items()}
        else:
            point = leaves(params)
        value = function(point)
        grads: tuple[Tensor | None, ...] = (None,) * len(point)
        if value.requires_grad:
            grads = torch.autograd.grad(value, tuple(point.values()), create_graph=differentiable, allow_unused=True)
    if all(grad is None for grad in grads):
        raise ValueError(
            f"{name} depends on none of {', '.join(point)}; compute it from the tensors that it is given, "
            "without detach() or no_grad(), and for a module with torch.func.functional_call(module, params, inputs)."
        )
    pairs = zip(point.items(), grads, strict=True)
    filled = {name: torch.zeros_like(p) if grad is None else grad for (name, p), grad in pairs}
    return value if differentiable else value.detach(), filled


def vjp(output: Tensor, inputs: Tensors) -> Callable[[Tensor], Tensor]:
    """The map V ↦ (∂output/∂inputs)ᵀ V on flat vectors, from a graph that is kept while the map is.

    For output = ∇_w g(w), flat, and inputs = w this is the Hessian-vector product, reverse over reverse: the fastest
    eager product on a CPU, because the gradient's graph is built once and each product walks it backwards once.

    Args:
        output: a vector of shape (m,) with a graph that reaches `inputs`.
        inputs: the tensors to differentiate with respect to.

    Returns:
        A function from shape (m,) to shape (number of entries of the inputs,), or from (m, k) to that by k: all in one
        batched walk where every operation of the graph has a batched rule, else one after the other. An input that the
        output does not depend on contributes zeros.
    """
    ins = tuple(inputs.values())
    pull = partial(torch.autograd.grad, output, ins, retain_graph=True, allow_unused=True)

    def product(V: Tensor) -> Tensor:
        if V.ndim == 1:
            return _join(pull(V, materialize_grads=True))
        try:
            # Below that, a call of Python for each operation costs more than it saves.
            with _SharedMatrices() if V.numel() >= _MANY else nullcontext():
                pieces = pull(V.T.contiguous(), is_grads_batched=True)
        except RuntimeError:  # no batched rule
            return torch.stack([product(v) for v in V.T], dim=1)
        k = V.shape[1]
        rows = [V.new_zeros(k, x.numel()) if p is None else p.reshape(k, -1) for x, p in zip(ins, pieces, strict=True)]
        return torch.cat(rows, dim=1).T

    return product


class _SharedMatrices(TorchDispatchMode):
    """A context in which one matrix times many vectors is one product.

    `vmap` makes of M v a batch of products with as many references to M, each of which reads all of M again.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.bmm.default:
            M, v = args
            if v.shape[2] == 1 and M.stride(0) == 0:
                return torch.mm(v[:, :, 0], M[0].T).unsqueeze(2)
        return func(*args, **(kwargs or {}))


def jvp(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], tangents: Sequence[Tensor]
) -> tuple[list[Tensor], list[bool]]:
    """The products (∂outputs/∂inputs) Z with p tangents at once, by transposing the pull-back.

    v ↦ Jᵀ v is linear, and so its own pull-back is z ↦ J z. Two backward passes, the second one for all tangents: no
    forward-mode rule is needed, which some operations do not have, or have wrong where they are nested.

    Args:
        outputs: with a graph that reaches the inputs, and is freed.
        inputs: what to differentiate with respect to.
        tangents: Z, one tensor of shape (p, *shape of the input) for each input.

    Returns:
        Tensors of shape (p, *shape of the output), and for each input whether any output depends on it.
    """
    num = len(tangents[0])
    pushed = [y.new_zeros((num, *y.shape)) for y in outputs]
    reached = [k for k, y in enumerate(outputs) if y.requires_grad]
    movable = [k for k, x in enumerate(inputs) if x.requires_grad]
    uses = [False] * len(inputs)
    if not (reached and movable):
        return pushed, uses
    ys = [outputs[k] for k in reached]
    vs = [torch.zeros_like(y, requires_grad=True) for y in ys]
    pulled = torch.autograd.grad(ys, [inputs[k] for k in movable], vs, create_graph=True, allow_unused=True)
    pairs = [(x, tangents[k]) for k, x in zip(movable, pulled, strict=True) if x is not None]
    for k, x in zip(movable, pulled, strict=True):
        uses[k] = x is not None
    if pairs:
        xs, zs = zip(*pairs, strict=True)
        found = torch.autograd.grad(xs, vs, zs, is_grads_batched=True, allow_unused=True)
        for k, product in zip(reached, found, strict=True):
            if product is not None:
                pushed[k] = product
    return pushed, uses


def central_difference(
    function: Callable[[Tensors], Tensor], point: Tensors, direction: Tensors, step: float
) -> Tensor:
    """The directional derivative (f(x + h d) − f(x − h d)) / 2h, with error O(h²) before rounding.

    Args:
        function: maps named tensors to a tensor.
        point: x.
        direction: d, shaped as `point`.
        step: h > 0, in units of `point` per unit of `direction`.

    Returns:
        The estimate, shaped as the values of `function`.
    """
    ahead = function({name: x + step * direction[name] for name, x in point.items()})
    behind = function({name: x - step * direction[name] for name, x in point.items()})
    return (ahead - behind) / (2 * step)
