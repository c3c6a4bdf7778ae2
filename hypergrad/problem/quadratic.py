"""A synthetic quadratic with a given condition number and a closed form, to test estimators."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.problem.base import InnerProblem


class Quadratic(InnerProblem):
    """A strongly convex quadratic whose hyperparameters also enter the outer loss directly.

    g(w, λ) = ½ wᵀ (A + penalty · I) w − wᵀ (c + C shift)
    f(w, λ) = ½ (w − target)ᵀ M (w − target) + shiftᵀ D w + ½ ‖shift‖² + penalty²

    w is two tensors, `a` and `b`, which a dense A couples; λ is `penalty` > 0, shape (), and `shift`, shape (3,). The
    eigenvalues of A are spaced evenly in their logarithm from `curvature` / `condition` to `curvature`.

    Args:
        size: number of parameters, ≥ 2.
        condition: condition number of A, ≥ 1.
        curvature: largest eigenvalue of A, > 0.
        penalty: the initial value of the hyperparameter `penalty`, > 0.
        seed: of the random matrices.

    Raises:
        ValueError: if an argument is out of its range.
    """

    A: Tensor
    c: Tensor
    C: Tensor
    M: Tensor
    D: Tensor
    target: Tensor

    def __init__(
        self,
        *,
        size: int = 10,
        condition: float = 10.0,
        curvature: float = 3.0,
        penalty: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if size < 2 or condition < 1 or curvature <= 0:
            raise ValueError(
                f"Quadratic needs size ≥ 2, condition ≥ 1 and curvature > 0, but they are {size}, {condition:g} and "
                f"{curvature:g}."
            )
        eigenvalues = curvature * torch.logspace(0, -1, size) ** torch.log10(torch.tensor(float(condition)))
        generator = torch.Generator().manual_seed(seed)
        for name, value in _coefficients(eigenvalues, generator).items():
            self.register_buffer(name, value)
        self._hyperparameters = {
            "penalty": Hyperparameter(penalty, shape=(), constraint=constraints.positive),
            "shift": Hyperparameter(torch.randn(3, generator=generator)),
        }

    def init_params(self) -> Tensors:
        first = len(self.c) // 2
        return {"a": self.c.new_zeros(first), "b": self.c.new_zeros(len(self.c) - first)}

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return self._hyperparameters

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        w = flatten(params)
        return w @ (self.A @ w) / 2 + hparams["penalty"] * (w @ w) / 2 - w @ (self.c + self.C @ hparams["shift"])

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        w, shift = flatten(params), hparams["shift"]
        gap = w - self.target
        direct = shift @ shift / 2 + hparams["penalty"] ** 2
        return gap @ self.M @ gap / 2 + shift @ self.D @ w + direct

    def solution(self, hparams: Tensors) -> Tensors:
        w = torch.linalg.solve(self._hessian(hparams), self.c + self.C @ hparams["shift"])
        return unflatten(w, self.init_params())

    def hypergradient(self, hparams: Tensors) -> Tensors:
        """dF/dλ in closed form, with H v = ∂f/∂w: −vᵀw + 2 penalty, and Cᵀv + D w + shift."""
        w = flatten(self.solution(hparams))
        df_dw = self.M @ (w - self.target) + self.D.T @ hparams["shift"]
        v = torch.linalg.solve(self._hessian(hparams), df_dw)
        return {
            "penalty": 2 * hparams["penalty"] - v @ w,
            "shift": self.C.T @ v + self.D @ w + hparams["shift"],
        }

    def _hessian(self, hparams: Tensors) -> Tensor:
        return self.A + hparams["penalty"] * torch.eye(len(self.c), dtype=self.A.dtype, device=self.A.device)


def _coefficients(eigenvalues: Tensor, generator: torch.Generator) -> Tensors:
    """Random A with these eigenvalues, and random c, C, M, D and target."""
    size = len(eigenvalues)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def symmetric(matrix: Tensor) -> Tensor:
        # to the last bit, so that it remains so in a longer format, where the closed form is compared
        return (matrix + matrix.T) / 2

    Q = torch.linalg.qr(normal(size, size)).Q
    root = normal(size, size) / size**0.5
    return {
        "A": symmetric(Q @ (eigenvalues[:, None] * Q.T)),
        "c": normal(size),
        "C": normal(size, 3),
        "M": symmetric(root @ root.T),
        "D": normal(3, size),
        "target": normal(size),
    }
