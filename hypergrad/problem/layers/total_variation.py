"""Denoising by a quadratic programme whose penalty is learned: a layer that solves an optimisation problem."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from hypergrad.core.autodiff import Tensors
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.problem.base import InnerProblem


class TotalVariation(InnerProblem):
    """Signals that are constant in pieces, from noisy ones y, by z = argmin ½ ‖z − y‖² + strength ‖D z‖₁.

    As a quadratic programme, and in its dual: z = y − Dᵀu, where u minimises g = ½ ‖y − Dᵀu‖² within the box
    |u| ≤ strength. Its conditions (of Karush, Kuhn and Tucker) are a fixed point of projected gradient descent,

        φ(u) = u − clip(u + η D (y − Dᵀu), −strength, strength) = 0    with    η = 1/(‖D‖₁ ‖D‖_∞),

    differentiable where no entry sits on the edge of the box without being pressed against it. The step of
    `FixedPoint(rate=1)` is that descent; a linear solver must take a ∂φ/∂u that is not symmetric, as `GMRES` does.

    The dev loss is the mean squared error of z. The parameter is `dual`, u of all dev and test signals, shape
    (signals, m); the hyperparameters are `filters`, D, shape (m, size) with m = size − 1, which starts at the
    differences of neighbours, where ‖D z‖₁ is the total variation, and `strength` > 0, shape ().

    Args:
        size: length of a signal, ≥ 2.
        num_dev: signals that D and strength are learned on, ≥ 1.
        num_test: signals that judge them, ≥ 1.
        noise: standard deviation of the noise, > 0, where a signal jumps by a standard normal amount.
        jumps: the probability of a jump between two neighbours, in (0, 1).
        strength: where it starts, > 0.
        seed: of signals and noise.

    Raises:
        ValueError: if an argument is out of its range.

    Source: Amos & Kolter, "OptNet: differentiable optimization as a layer in neural networks", ICML (2017), 4.2; Rudin,
    Osher & Fatemi, "Nonlinear total variation based noise removal algorithms", Physica D (1992).
    """

    clean: Tensor
    noisy: Tensor

    def __init__(
        self,
        *,
        size: int = 30,
        num_dev: int = 200,
        num_test: int = 200,
        noise: float = 0.5,
        jumps: float = 0.1,
        strength: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if size < 2 or num_dev < 1 or num_test < 1 or not noise > 0 or not 0 < jumps < 1:
            raise ValueError(
                f"TotalVariation needs size ≥ 2, num_dev and num_test ≥ 1, noise > 0 and jumps in (0, 1), but they are "
                f"{size}, {num_dev}, {num_test}, {noise:g} and {jumps:g}."
            )
        generator = torch.Generator().manual_seed(seed)
        shape, self.num_dev = (num_dev + num_test, size), num_dev
        steps = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < jumps)
        steps[:, 0] = torch.randn(len(steps), generator=generator)
        self.register_buffer("clean", steps.cumsum(1))
        self.register_buffer("noisy", self.clean + noise * torch.randn(shape, generator=generator))
        differences = torch.eye(size)[1:] - torch.eye(size)[:-1]
        self._hyperparameters = {
            "filters": Hyperparameter(differences),
            "strength": Hyperparameter(strength, constraint=constraints.positive),
        }

    def init_params(self) -> Tensors:
        return {"dual": self.noisy.new_zeros(len(self.noisy), self.noisy.shape[1] - 1)}

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return self._hyperparameters

    def denoised(self, params: Tensors, hparams: Tensors) -> Tensor:
        """Z of all signals, shape (signals, size)."""
        return self.noisy - params["dual"] @ hparams["filters"]

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self.denoised(params, hparams).square().sum(1).mean() / 2

    def optimality(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensors:
        u, D, strength = params["dual"], hparams["filters"], hparams["strength"]
        eta = 1 / (torch.linalg.matrix_norm(D, 1) * torch.linalg.matrix_norm(D, torch.inf))
        ahead = u + eta * self.denoised(params, hparams) @ D.T
        return {"dual": u - torch.minimum(torch.maximum(ahead, -strength), strength)}

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self._error(params, hparams, slice(None, self.num_dev))

    def metrics(self, params: Tensors, hparams: Tensors) -> dict[str, Tensor | float]:
        return {"test_loss": self._error(params, hparams, slice(self.num_dev, None))}

    def _error(self, params: Tensors, hparams: Tensors, rows: slice) -> Tensor:
        return (self.denoised(params, hparams)[rows] - self.clean[rows]).square().mean()
