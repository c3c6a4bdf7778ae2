"""What `argmin` needs to know about the transforms of `torch.func` and about `torch.autograd`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from hypergrad.core.torch_internals.transforms import (
    TransformType,
    forward_ad_level,
    retrieve_all_functorch_interpreters,
    temporarily_clear_interpreter_stack,
)
from hypergrad.sensitivity.optimum import Optimum


def differentiations() -> int:
    """How many differentiating transforms are active: an upper bound on the orders of derivative they can form."""
    kinds = [interpreter.key() for interpreter in retrieve_all_functorch_interpreters()]
    is_dual = forward_ad_level() >= 0 and TransformType.Jvp not in kinds
    return sum(kind != TransformType.Vmap for kind in kinds) + int(is_dual)


def limited_zero(base: Tensor, order: int) -> Tensor:
    """Zero, shape (), whose derivatives with respect to `base` are zero up to `order`; the next one is an error.

    Added to a result that is computed from `base`, it limits how often `torch.autograd` may differentiate the result.
    """
    with temporarily_clear_interpreter_stack():
        return _OrderLimit.apply((0 * base).sum(), order, order)  # type: ignore[return-value]


class Solved(Function):
    """`solve(λ)`, whose results are constant to all derivatives; under `vmap` one λ is solved after the other."""

    @staticmethod
    def forward(flat: Tensor, solve: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:  # type: ignore[override]
        with torch.no_grad():
            return tuple(value.clone() for value in solve(flat.detach()))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(*output)
        ctx.num_outputs = len(output)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[None, None]:
        return None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[None, ...]:
        return (None,) * ctx.num_outputs

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        flat, solve = args
        found = [Solved.apply(row, solve) for row in flat.movedim(in_dims[0], 0)]
        return tuple(torch.stack(values) for values in zip(*found, strict=True)), (0,) * len(found[0])  # type: ignore[arg-type]


class Inverse(Function):
    """b ↦ (∂φ/∂w)⁻¹ b, or (∂φ/∂w)⁻ᵀ b, at one of several optima, by its linear solver; its derivatives are solves too.

    Its rules hold at any depth of nesting, because the derivative of a linear function needs only the tangent. Under
    `vmap` each b is solved for at its own optimum, one after the other.
    """

    @staticmethod
    def forward(b: Tensor, which: Tensor, optima: list[Optimum], is_adjoint: bool) -> Tensor:  # type: ignore[override]
        return optima[int(which)].solve(b.detach(), adjoint=is_adjoint)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, which, ctx.optima, ctx.is_adjoint = inputs
        ctx.save_for_backward(which)
        ctx.save_for_forward(which)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (which,) = ctx.saved_tensors
        return Inverse.apply(grad, which, ctx.optima, not ctx.is_adjoint), None, None, None  # type: ignore[return-value]

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:  # type: ignore[override]
        (which,) = ctx.saved_tensors
        return Inverse.apply(tangent, which, ctx.optima, ctx.is_adjoint)  # type: ignore[return-value]

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        b, which, optima, is_adjoint = args
        rows, places = (
            [x] * info.batch_size if dim is None else x.movedim(dim, 0)
            for x, dim in zip((b, which), in_dims[:2], strict=True)
        )
        found = [Inverse.apply(row, place, optima, is_adjoint) for row, place in zip(rows, places, strict=True)]
        return torch.stack(found), 0  # type: ignore[arg-type]


class _OrderLimit(Function):
    """The identity, which `torch.autograd` may differentiate a limited number of times.

    Its derivative is an identity with a limit lower by one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, left: int, order: int) -> Tensor:  # type: ignore[override]
        ctx.left, ctx.order = left, order
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        if ctx.left == 0:
            raise ValueError(
                f"argmin was made for derivatives up to order {ctx.order} by torch.autograd, but a higher one was "
                f"requested. Make it with order={ctx.order + 1}, or use torch.func, which needs no order."
            )
        return _OrderLimit.apply(grad, ctx.left - 1, ctx.order), None, None  # type: ignore[return-value]
