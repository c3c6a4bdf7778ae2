"""Products of vectors with the gradients of single examples, from the inputs and outputs of linear layers.

A convolution is a linear layer that is applied at several places.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hypergrad.core.autodiff import Tensors

_MOST = 2**26
"""Entries of the gradients of single examples that are formed at once, where a layer is applied at several places."""


class _Call(NamedTuple):
    """y = W a + b for b examples, at one or several places of each.

    Attributes:
        weight: the name of W.
        bias: that of b; None if it is no trained tensor.
        a: shape (b, …, k); the images of a convolution, shape (b, c, h, w).
        y: shape (b, …, o); of a convolution, shape (b, o, h, w).
        windows: what `unfold` needs to make the inputs of a convolution at each place; None for linear layers.
    """

    weight: str
    bias: str | None
    a: Tensor
    y: Tensor
    windows: dict[str, Any] | None = None

    def by_places(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs, shape (b, places, k), and g = ∂u/∂y as (b, places, o)."""
        if self.windows is not None:
            a = nn.functional.unfold(self.a, **self.windows)
            return a.transpose(1, 2), g.flatten(2).transpose(1, 2)
        return self.a.reshape(len(g), -1, self.a.shape[-1]), g.reshape(len(g), -1, g.shape[-1])


class LinearCalls(TorchFunctionMode):
    """A context in which calls of `linear` and `conv2d` with trained tensors are recorded; their graph ends at W and b.

    The gradient of the loss u_i of example i in W is the sum over places of (∂u_i/∂y) aᵀ. So ⟨V, ∇_W u_i⟩ is the sum of
    (∂u_i/∂y)ᵀ V a, and one backward pass serves all examples and all V. What else W and b are used for stays in the
    graph.

    Args:
        params: leaves, with which the model is called in the context.
        layers: the names of the tensors W to serve.
        num: the examples b, which are the first axis of what the layers are called on; other calls are not served.
    """

    def __init__(self, params: Tensors, layers: Iterable[str], num: int) -> None:
        super().__init__()
        self._params, self._num, self._layers = params, num, frozenset(layers)
        self._names = {id(p): name for name, p in params.items()}
        self._calls: list[_Call] = []
        self._others: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.linear:
            return self._called(func, None, *args, **kwargs)
        if func is torch.conv2d:
            return self._convolution(*args, **kwargs)
        return func(*args, **kwargs)

    def _convolution(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        windows = {"kernel_size": weight.shape[2:], "stride": stride, "padding": padding, "dilation": dilation}
        if groups != 1 or isinstance(padding, str) or input.ndim != 4:
            self._others.add(self._names.get(id(weight), ""))
            return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
        return self._called(
            partial(torch.conv2d, stride=stride, padding=padding, dilation=dilation), windows, input, weight, bias
        )

    def _called(
        self,
        layer: Callable[..., Tensor],
        windows: dict[str, Any] | None,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
    ) -> Tensor:
        name = self._names.get(id(weight))
        if name not in self._layers or input.ndim < 2 or len(input) != self._num:
            self._others.add(name or "")
            return layer(input, weight, bias)
        bias_name = self._names.get(id(bias))
        y = layer(input, weight.detach(), bias if bias is None or bias_name is None else bias.detach())
        y = y if y.requires_grad else y.requires_grad_()
        self._calls.append(_Call(name, bias_name, input.detach(), y, windows))
        return y

    @property
    def served(self) -> set[str]:
        """The names of the tensors W of which all calls were served."""
        return {call.weight for call in self._calls} - self._others

    def products(self, terms: Tensor, V: Tensors) -> tuple[Tensor, list[str]]:
        """Σ over the recorded calls of ⟨V, ∇u_i⟩, shape (m, b), and the parameters that have other uses.

        Args:
            terms: u of b examples, shape (b,), computed in the context.
            V: of shape (m, *shape) for each parameter.
        """
        found = V[next(iter(V))].new_zeros(len(terms), len(V[next(iter(V))]))
        ys, params = [call.y for call in self._calls], list(self._params.values())
        pulled = torch.autograd.grad(terms.sum(), [*ys, *params], retain_graph=True, allow_unused=True)
        for call, g in zip(self._calls, pulled[: len(ys)], strict=True):
            if g is not None:
                found += _of_call(call, g, V)
        rest = [name for name, g in zip(self._params, pulled[len(ys) :], strict=True) if g is not None]
        return found.T, rest


def _of_call(call: _Call, g: Tensor, V: Tensors) -> Tensor:
    """The products of one call with g = ∂u/∂y, shape (b, m)."""
    matrix, bias = V[call.weight], None if call.bias is None else V[call.bias]
    a, g = call.by_places(g)
    m, o, k = len(matrix), g.shape[2], a.shape[2]
    if a.shape[1] == 1:
        moved = (a[:, 0] @ matrix.reshape(m * o, k).T).view(-1, m, o)
        found = torch.bmm(moved, g.transpose(1, 2)).squeeze(2)
    else:
        found = torch.cat([each @ matrix.reshape(m, o * k).T for each in _gradients(a, g)])
    return found if bias is None else found + g.sum(1) @ bias.T


def _gradients(a: Tensor, g: Tensor) -> Iterator[Tensor]:
    """Σ over places of g aᵀ for a few examples at a time, flat, shape (c, o · k)."""
    size = max(1, _MOST // (a.shape[2] * g.shape[2]))
    for inputs, outputs in zip(a.split(size), g.split(size), strict=True):
        yield torch.bmm(outputs.transpose(1, 2), inputs).flatten(1)
