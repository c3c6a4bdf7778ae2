"""Products by differences of sharded gradients, compared with exact ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, leaves, unflatten
from hypergrad.problem.supervised.supervised import Supervised

_PRODUCTS = 2
_ALLOWED = 10.0
"""The error allowed, over ε^⅓, which differences have for values of order 1; a judgement. A wrong product is off by
its own size."""
_MOST = 0.5
"""The error allowed in any format, relative to the product."""


class _Sharded(Protocol):
    """What is compared: a `FullySharded`."""

    @property
    def epsilon(self) -> float: ...
    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor: ...
    def init_params(self) -> Tensors: ...
    def local(self, params: Tensors) -> Tensors: ...


@dataclass(frozen=True)
class ExactProducts:
    """Products (∂²g/∂(w, λ)∂w) v at w₀ and the first λ, on one process.

    Attributes:
        batch: the inner batch.
        hparams: λ.
        pairs: each v with its product; whole tensors by name, of w for v, and of w and λ.
    """

    batch: Any
    hparams: Tensors
    pairs: Sequence[tuple[Tensors, Tensors, Tensors]]

    @classmethod
    def of(cls, problem: Supervised) -> "ExactProducts":
        """Two products, along random directions, on the first inner batch.

        Raises:
            ValueError: if the loss draws random numbers, which are others on each rank.
        """
        if problem.draws:
            raise ValueError(
                "hg.FullySharded compares products with exact ones at the start, but this problem draws random "
                "numbers, such as dropout, which are others on each rank. Give check=hg.Supervised(…) without them, "
                "or check=False."
            )
        batch, hparams = problem.inner_batch(0), problem.init_hparams()
        w, hp = leaves(problem.init_params()), leaves(hparams)
        with torch.enable_grad():
            _, grads = problem.inner_loss_and_gradient(w, hp, batch)
            phi = flatten(grads)
        generator, pairs = torch.Generator().manual_seed(0), []
        for _ in range(_PRODUCTS):
            v = torch.randn(phi.shape, generator=generator, dtype=torch.float64).to(phi)
            inputs = (*w.values(), *hp.values())
            found = torch.autograd.grad(phi, inputs, v, retain_graph=True, allow_unused=True, materialize_grads=True)
            of_w, of_hp = dict(zip(w, found[: len(w)], strict=True)), dict(zip(hp, found[len(w) :], strict=True))
            pairs.append((unflatten(v, w), of_w, of_hp))
        return cls(batch, hparams, pairs)

    def require_close(self, sharded: _Sharded) -> None:
        """Require that differences of sharded gradients give the same products.

        Raises:
            ValueError: if they do not.
        """
        least = sharded.epsilon ** (1 / 3)
        allowed = min(_ALLOWED * least, _MOST)
        for v, of_w, of_hp in self.pairs:
            found, mixed = self._differences(sharded, flatten(sharded.local(v)), least)
            off = {"Hessian": _apart(found, flatten(sharded.local(of_w)))}
            off |= {f"mixed derivative of {name!r}": _apart(mixed[name], x.flatten()) for name, x in of_hp.items()}
            worst = max(off, key=lambda name: off[name])
            if not off[worst] <= allowed:
                raise ValueError(
                    f"hg.FullySharded must give the products of one process, but a product with the {worst} by "
                    f"differences of sharded gradients differs from the exact one by {off[worst]:.1e} of its size, "
                    f"where {allowed:.1e} is allowed. Look for a part of the model that does not treat each example by "
                    "itself; or, if the model has large curvature, give check=False and compare hypergradients "
                    "yourself."
                )

    def _differences(self, sharded: _Sharded, v: Tensor, least: float) -> tuple[Tensor, Tensors]:
        """The products with the Hessian and the mixed derivatives."""
        start = sharded.init_params()
        w = flatten(start)
        length = least * max(torch.linalg.vector_norm(w).item(), 1.0)
        h = length / torch.linalg.vector_norm(v).item()
        ahead, behind = (self._gradients(sharded, unflatten(at, start)) for at in (w + h * v, w - h * v))
        size = len(start)
        of_w = [(a - b) / (2 * h) for a, b in zip(ahead, behind, strict=True)]
        mixed = {name: x.flatten() for name, x in zip(self.hparams, of_w[size:], strict=True)}
        return flatten(dict(zip(start, of_w[:size], strict=True))), mixed

    def _gradients(self, sharded: _Sharded, params: Tensors) -> Sequence[Tensor]:
        w, hp = leaves(params), leaves(self.hparams)
        with torch.enable_grad():
            loss = sharded.inner_loss(w, hp, self.batch)
            return torch.autograd.grad(loss, (*w.values(), *hp.values()), allow_unused=True, materialize_grads=True)


def _apart(x: Tensor, exact: Tensor) -> float:
    """‖x − exact‖ / ‖exact‖; 0 if both are 0."""
    size = torch.linalg.vector_norm(exact).item()
    off = torch.linalg.vector_norm(x - exact).item()
    return off if off == 0 else off / max(size, torch.finfo(exact.dtype).tiny)
