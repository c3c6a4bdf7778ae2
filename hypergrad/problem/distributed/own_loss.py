"""A loss that is spread over the ranks, with its first derivatives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from hypergrad.core.autodiff import Tensors
from hypergrad.core.local_shard import LocalShard, plain
from hypergrad.model.sharded_module import ShardedModule
from hypergrad.problem.returned import require_scalar

NO_SECOND = (
    "hg.FullySharded has first derivatives alone, because FSDP2 is not differentiable twice. Use "
    "hg.Implicit(product=hg.CentredDifferences(), error_bar=False), or hg.SingleLoop with hg.F2SA or hg.SAMA."
)


@dataclass(frozen=True)
class OwnLoss:
    """(w, λ) ↦ Σ_k Σ_r share_kr loss(w, λ, part_kr) over the parts k of a batch and the ranks r.

    Each rank computes its own terms, and all get the sum. The first derivatives are formed along with the value, as
    FSDP2 does: no graph is kept.

    Attributes:
        model: holds the parameters of the module while the loss is evaluated.
        loss: of shards of w, λ and a part of a batch; it calls the model.
        parts: of this rank, with their shares; as many on all ranks.
        name: of the loss, for errors.
        epsilon: ε of the format in which the model computes.
    """

    model: ShardedModule
    loss: Callable[[Tensors, Tensors, Any], Tensor]
    parts: Sequence[tuple[Any, float]]
    name: str
    epsilon: float

    def __call__(self, params: Tensors, hparams: Tensors) -> Tensor:
        """The sum, shape (), which can be differentiated once if grad mode is enabled."""
        names, inputs = (list(params), list(hparams)), (*params.values(), *hparams.values())
        if torch.is_grad_enabled():
            return _Loss.apply(self, names, *inputs)  # type: ignore[return-value]
        value, _ = self.evaluate(names, inputs, [False] * len(inputs))
        return value

    def evaluate(
        self, names: tuple[list[str], list[str]], inputs: Sequence[Tensor], wanted: Sequence[bool]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The value, and the derivatives with respect to the inputs that are wanted: shards for those of w."""
        count = len(names[0])
        given = dict(zip(names[0], inputs[:count], strict=True))
        self.model.put(given)
        ranks, of_w = self.model.ranks, any(wanted[:count])
        w = {k: LocalShard.of(plain(x).detach(), ranks, is_own=True).requires_grad_(of_w) for k, x in given.items()}
        pairs = zip(names[1], inputs[count:], wanted[count:], strict=True)
        hp = {k: x.detach().requires_grad_(is_wanted) for k, x, is_wanted in pairs}
        try:
            with torch.set_grad_enabled(any(wanted)):
                value = sum(self._backward(w, hp, part, share) for part, share in self.parts)
        finally:
            self.model.release()
        of_module = self.model.take_gradients()
        total, of_hp = self._summed(torch.as_tensor(value), [x.grad for x in hp.values()])
        of_both = [_plus(g, x.grad) for g, x in zip(of_module, w.values(), strict=True)]
        return total, [g if is_wanted else None for g, is_wanted in zip([*of_both, *of_hp], wanted, strict=True)]

    def _backward(self, w: Tensors, hp: Tensors, part: Any, share: float) -> Tensor:
        """One term, of which a backward pass adds the derivatives to those of the others."""
        term = share * require_scalar(self.loss(w, hp, part), self.name).reshape(())
        if term.requires_grad:
            term.backward()
        return term.detach()

    def _summed(self, value: Tensor, grads: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor | None]]:
        """The sums over the ranks, in one all-reduce."""
        total, *sums = self.model.ranks.total([value, *(g for g in grads if g is not None)])
        found = iter(sums)
        return total.clone(), [None if g is None else next(found) for g in grads]  # not a view of what may change


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum; a may be changed."""
    if a is None or b is None:
        return b if a is None else a
    return a.add_(plain(b))


class _Loss(Function):
    @staticmethod
    def forward(ctx: Any, own: OwnLoss, names: tuple[list[str], list[str]], *inputs: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        value, ctx.grads = own.evaluate(names, inputs, ctx.needs_input_grad[2:])
        ctx.hidden = lambda _: own.epsilon  # for `coarsest`
        return value

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled():
            raise ValueError(NO_SECOND)
        if ctx.grads is None:
            raise RuntimeError("A loss of hg.FullySharded has one backward pass, whose derivatives it does not keep.")
        grads, ctx.grads = ctx.grads, None
        return None, None, *(None if g is None else g.mul_(cotangent) for g in grads)
