"""Whether a loss of a lent module is the function of its parameters that it seems to be."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, leaves
from hypergrad.model.lent_module import LentModule
from hypergrad.model.lost_gradient import Evaluated, Recording, refusal
from hypergrad.model.wrong_derivative import direction_like, errors, product


@dataclass(frozen=True)
class LentLoss:
    """A loss that calls a lent module, at fixed λ.

    Attributes:
        name: what an error calls it.
        lent: the module.
        of_params: the loss as a function of named parameters, which the module holds during the call.
    """

    name: str
    lent: LentModule
    of_params: Callable[[Tensors], Tensor]

    def require_gradient(self) -> None:
        """Require that the gradient with respect to parameters in their places is that for the module's own.

        Raises:
            ValueError: if it is not, as where something is computed again in backward.
        """
        found, wanted = self._gradient(leaves(self.lent.params())), self._gradient(self.lent.own)
        size = _norm(wanted)
        for name, g in wanted.items():
            off = torch.linalg.vector_norm(found[name] - g).item()
            if not off <= torch.finfo(g.dtype).eps ** (2 / 3) * size and size < float("inf"):
                raise ValueError(
                    self._refusal(f"another gradient with respect to {name!r}, by {off:.1e} of {size:.1e}")
                )

    def require_product(self) -> None:
        """Require that a product with the Hessian is that of differences, with parameters written into the module.

        Raises:
            ValueError: if it is not, as where a parameter is read elsewhere than where the module has registered it.
        """
        w = self.lent.params()
        v, at = direction_like(w), leaves(w)
        first = self._gradient(at, create_graph=True)
        found = product(list(first.values()), at, v)

        def evaluate(params: Tensors) -> Evaluated:
            with self.lent.written(params), torch.enable_grad():
                value = self.of_params(self.lent.own)
                return Evaluated(params, value.item(), self._gradient_of(value, self.lent.own))

        eager = Recording(evaluate)
        wrong = errors(found, eager.gradient, w, v)
        names = eager.lost()
        if names:
            raise ValueError(refusal(f"{self.name} of {type(self.lent.module).__name__}", names))
        if wrong and not eager.crosses_a_kink(wrong):
            off = max(wrong.values())
            raise ValueError(self._refusal(f"a product with the Hessian that is off by {off:.0%} from differences"))

    def _gradient(self, at: Tensors, *, create_graph: bool = False) -> Tensors:
        with torch.enable_grad():
            value = self.of_params(at)
            return self._gradient_of(value, at, create_graph=create_graph)

    @staticmethod
    def _gradient_of(value: Tensor, at: Tensors, *, create_graph: bool = False) -> Tensors:
        if not value.requires_grad:
            return {name: torch.zeros_like(p) for name, p in at.items()}
        found = torch.autograd.grad(
            value, tuple(at.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
        return dict(zip(at, found, strict=True))

    def _refusal(self, what: str) -> str:
        return (
            f"{self.name}, as a function of the parameters of {type(self.lent.module).__name__}, has {what} of the "
            "module whose parameters change in place: it reads a parameter, or what was computed from one, elsewhere "
            "than where the module has registered it, computes something again in backward, or has an operation whose "
            "second derivative is wrong. Compute everything in forward from registered parameters; for a wrong second "
            "derivative, product=hg.CentredDifferences() needs none."
        )


def _norm(tensors: Tensors) -> float:
    return torch.stack([torch.linalg.vector_norm(x) for x in tensors.values()]).norm().item()
