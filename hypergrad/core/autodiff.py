"""Gradients, Jacobian products and finite differences of functions of named tensors."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from hypergrad.core.cost import spend
from hypergrad.core.formats import autocasts
from hypergrad.core.order import differentiated, first_order
from hypergrad.core.torch_internals.tracing import TorchDispatchMode
from hypergrad.core.torch_internals.transforms import get_unwrapped, is_functorch_wrapped_tensor, peek_interpreter_stack

Tensors = dict[str, Tensor]
"""Named tensors, in the order of their names: the parameters w, or the hyperparameters λ.

The problem gives each its shape. A gradient, a direction or a solution has the names and shapes of what it belongs to.
"""
GRADIENTS: dict[type, Callable[[Callable[[Tensors], Tensor], Tensors], tuple[Tensor, Tensors]]] = {}
"""What `value_and_gradient` does with named tensors of a subclass that has derivatives of its own."""
_IGNORED = (
    "{} depends on none of {}; compute it from the tensors in its arguments, without detach() or no_grad(), and for a "
    "module with torch.func.functional_call(module, params, inputs)."
)
_MANY = 1024
"""Entries of V from which matrices are shared. A judgement: below, a call of Python per operation costs more."""


def flatten(tensors: Tensors) -> Tensor:
    """One flat vector, shape (n,), of all entries in the order of the names; a view if there is only one tensor."""
    return _join(tuple(tensors.values()))


def unflatten(flat: Tensor, like: Tensors) -> Tensors:
    """The inverse of `flatten`: named tensors shaped as in `like`, views of `flat`, or `flat` if it is the only one."""
    if len(like) == 1:
        # A view of all of it would be one more call of torch.
        return {name: flat if flat.shape == x.shape else flat.view_as(x) for name, x in like.items()}
    pieces = flat.split([tensor.numel() for tensor in like.values()])
    return {name: piece.view_as(like[name]) for name, piece in zip(like, pieces, strict=True)}


def _join(pieces: tuple[Tensor, ...]) -> Tensor:
    # One tensor is not copied: a torch call costs microseconds, which matter in a product of a small problem.
    return pieces[0].reshape(-1) if len(pieces) == 1 else torch.cat([piece.reshape(-1) for piece in pieces])


def detach(tensors: Tensors) -> Tensors:
    """The same values outside any graph."""
    return {name: tensor.detach() for name, tensor in tensors.items()}


def leaves(tensors: Tensors) -> Tensors:
    """The same values as new leaves that require gradients; the arguments do not change."""
    return {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}


def base_of(x: Tensor) -> Tensor:
    """The tensor under all transforms of `torch.func`, with the graph of `torch.autograd`."""
    while is_functorch_wrapped_tensor(x):
        x = get_unwrapped(x)
    return x


def inside_transform() -> bool:
    """Whether a transform of `torch.func` is at work."""
    return peek_interpreter_stack() is not None


def nodes_before(tensors: Iterable[Tensor]) -> set[Node]:
    """Every node that a backward pass from the tensors would visit."""
    found: set[Node] = set()
    waiting: list[Any] = [x.grad_fn for x in tensors]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [following for following, _ in node.next_functions]
    return found


def value_and_gradient(
    function: Callable[[Tensors], Tensor], params: Tensors, name: str = "The function"
) -> tuple[Tensor, Tensors]:
    """The scalar f(w) and ∇f(w).

    If grad mode is enabled, both can be differentiated again with respect to everything that `params` and the closure
    of `function` depend on; under `torch.no_grad()` no graph is kept. Inside a transform of `torch.func` both can be
    transformed again. A tensor that f ignores has gradient 0. The call counts as one gradient, see
    `hypergrad.core.cost`. Where no graph is kept, models may use kernels with one derivative, see
    `hypergrad.core.order`.

    Args:
        function: maps named tensors to a tensor of shape ().
        params: where to differentiate.
        name: what an error calls the function.

    Returns:
        f(w), shape (), and ∇f(w), shaped as `params`.

    Also raised, by what it calls: ValueError if f depends on none of the parameters.
    """
    spend(gradients=1)
    own = next((GRADIENTS[type(p)] for p in params.values() if type(p) in GRADIENTS), None)
    if own is not None:
        return own(function, params)
    if inside_transform():
        return _transformed(function, params, name)
    if torch.is_grad_enabled():
        point = {name: p if p.requires_grad else p.detach().requires_grad_() for name, p in params.items()}
        with differentiated(once=False):
            return _with_gradient(function, point, name, differentiable=True)
    value, grads = first_order(lambda: _with_gradient(function, leaves(params), name, differentiable=False))
    return value.detach(), grads


def _with_gradient(
    function: Callable[[Tensors], Tensor], point: Tensors, name: str, *, differentiable: bool
) -> tuple[Tensor, Tensors]:
    """f and ∇f at leaves.

    Raises:
        ValueError: if f depends on none of them.
    """
    with torch.enable_grad():
        value = function(point)
        grads: tuple[Tensor | None, ...] = (None,) * len(point)
        if value.requires_grad:
            with outside_autocast(value):
                grads = torch.autograd.grad(
                    value, tuple(point.values()), create_graph=differentiable, allow_unused=True
                )
    if all(grad is None for grad in grads):
        raise ValueError(_IGNORED.format(name, ", ".join(point)))
    pairs = zip(point.items(), grads, strict=True)
    return value, {name: torch.zeros_like(p) if grad is None else grad for (name, p), grad in pairs}


def outside_autocast(value: Tensor) -> AbstractContextManager[Any]:
    """A context in which a backward pass runs each operation in the format of the forward pass."""
    device = value.device.type
    return torch.autocast(device, enabled=False) if autocasts(device) else nullcontext()


def _transformed(function: Callable[[Tensors], Tensor], params: Tensors, name: str) -> tuple[Tensor, Tensors]:
    """`value_and_gradient` inside a transform of `torch.func`, which allows no new leaves of `torch.autograd`."""

    def scalar(params: Tensors) -> Tensor:
        value = function(params)
        if not value.requires_grad:
            raise ValueError(_IGNORED.format(name, ", ".join(params)))
        return value.reshape(())

    grads, value = torch.func.grad_and_value(scalar)(params)
    return value, grads


def vjp(output: Tensor, inputs: Tensors) -> Callable[[Tensor], Tensor]:
    """The map V ↦ (∂output/∂inputs)ᵀ V on flat vectors; it keeps the graph.

    For output = ∇_w g(w), flat, and inputs = w this is the Hessian-vector product, reverse over reverse. It is the
    fastest eager product on a CPU, because the graph of the gradient is built once and each product walks it once.

    Args:
        output: a vector of shape (m,) with a graph that reaches `inputs`.
        inputs: the tensors to differentiate with respect to.

    Returns:
        A function from shape (m,) to shape (n,), where n counts the entries of the inputs, or from (m, k) to (n, k).
        The k products are one batched walk if every operation of the graph has a batched rule, else one walk each. An
        input that the output does not depend on contributes zeros.
    """
    ins = tuple(inputs.values())
    if not output.requires_grad:  # a constant
        return lambda V: V.new_zeros((sum(x.numel() for x in ins), *V.shape[1:]))
    pull = partial(torch.autograd.grad, output, ins, retain_graph=True, allow_unused=True)

    def product(V: Tensor) -> Tensor:
        if V.ndim == 1:
            return _join(pull(V, materialize_grads=True))
        try:
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

    `vmap` turns M v into a batch of products with as many references to M, and each of them reads all of M again.
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
    """The Jacobian-vector products (∂outputs/∂inputs) Z with p tangents at once, by two backward passes.

    v ↦ Jᵀ v is linear, so its own vector-Jacobian product is z ↦ J z. The second pass is for all tangents at once. No
    forward-mode rule is needed: some operations have none, or one that is wrong when nested.

    Args:
        outputs: with a graph that reaches the inputs; it is freed.
        inputs: the tensors to differentiate with respect to.
        tangents: Z, one tensor of shape (p, *shape of the input) for each input.

    Returns:
        One tensor of shape (p, *shape of the output) for each output, and for each input whether any output uses it.
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
    if pairs and num > 0:
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
