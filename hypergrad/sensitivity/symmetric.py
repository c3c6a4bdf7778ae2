"""Symmetric tensors from their values along single directions."""

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement

import torch
from torch import Tensor

_MOST = 3000
"""Different entries up to which a tensor is made. A judgement: their equations take 72 MB in float64."""


@dataclass(frozen=True)
class Symmetric:
    """A symmetric tensor T of order k in d variables, found from T[u, …, u] along enough directions u.

    T[u, …, u] = Σ_a (k! / Π_i m_i!) T_a Π_l u_{a_l} over the different entries a = (a₁ ≤ … ≤ a_k), where m_i counts how
    often a holds i. With u = m, the integer points of a simplex, these N = C(d + k − 1, k) equations determine T_a.

    Attributes:
        directions: the u, shape (N, d).
        equations: their matrix, shape (N, N).
        entries: for each a of the full tensor, which of the N different ones it is, shape (d, …, d).

    Source: Griewank, Utke & Walther, "Evaluating higher derivative tensors by forward propagation of univariate Taylor
    series", Mathematics of Computation (2000).
    """

    directions: Tensor
    equations: Tensor
    entries: Tensor

    @classmethod
    def of(cls, like: Tensor, order: int) -> "Symmetric":
        """For tensors of this order in as many variables as `like` has entries, in its dtype and on its device.

        Raises:
            ValueError: if it has more than 3000 different entries.
        """
        d = like.numel()
        count = math.comb(d + order - 1, order)
        if count > _MOST:
            raise ValueError(
                f"The derivatives of order {order} in {d} hyperparameters have {count} different entries, but "
                f"tensors are made with at most {_MOST}. Use `derivatives` along the directions that matter."
            )
        different = torch.tensor(list(combinations_with_replacement(range(d), order)), device=like.device)
        u = torch.nn.functional.one_hot(different, d).sum(1).to(like)
        repeats = math.factorial(order) / torch.exp(torch.lgamma(u + 1)).prod(1)
        equations = repeats.round() * u[:, different].prod(2)
        place = d ** torch.arange(order, device=like.device)
        every = torch.cartesian_prod(*[torch.arange(d, device=like.device)] * order).view(-1, order)
        codes, ranks = torch.sort((different * place).sum(1))
        entries = ranks[torch.searchsorted(codes, (every.sort(1).values * place).sum(1))]
        return cls(u, equations, entries.view(*[d] * order))

    def tensor(self, along: Tensor) -> Tensor:
        """The tensor of n components, shape (n, d, …, d), from its values along the directions, shape (N, n)."""
        return torch.linalg.solve(self.equations, along)[self.entries].movedim(-1, 0)
