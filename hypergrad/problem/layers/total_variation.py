"""Denoising by a quadratic programme with a learned penalty: a layer that solves an optimisation problem."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from hypergrad.core.autodiff import Tensors
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.problem.base import InnerProblem


class TotalVariation(InnerProblem):
    """Piecewise constant signals z from noisy signals y: z = argmin ½ ‖z − y‖² + strength ‖D z‖₁.

    This is a quadratic programme. By its dual, z = y − Dᵀu, where u minimises g = ½ ‖y − Dᵀu‖² within the box
    |u| ≤ strength. Its KKT conditions are a fixed point of projected gradient descent,

        φ(u) = u − clip(u + η D (y − Dᵀu), −strength, strength) = 0    with    η = 1/(‖D‖₁ ‖D‖_∞),

    differentiable unless an entry is on the edge of the box without being pressed against it. A step of
    `FixedPoint(rate=1)` is a step of that descent. ∂φ/∂u is not symmetric, so use a linear solver such as `GMRES`.

    The dev loss is the mean squared error of z. The parameter is `dual`, u of all dev and test signals, shape
    (signals, m). The hyperparameters are `filters`, D, shape (m, size) with m = size − 1, and `strength` > 0, shape ().
    D starts at the differences of neighbours, with which ‖D z‖₁ is the total variation.

    Args:
        size: length of a signal, ≥ 2.
        num_dev: signals for learning D and strength, ≥ 1.
        num_test: signals for testing them, ≥ 1.
        noise: standard deviation of the noise, > 0; the jumps of a signal have standard deviation 1.
        jumps: the probability of a jump between two neighbours, in (0, 1).
        strength: the initial strength, > 0.
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
        generator, self.num_dev = torch.Generator().manual_seed(seed), num_dev
        self.register_buffer("clean", _signals((num_dev + num_test, size), jumps, generator))
        self.register_buffer("noisy", self.clean + noise * torch.randn(self.clean.shape, generator=generator))
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
        """All denoised signals z, shape (signals, size)."""
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


def _signals(shape: tuple[int, int], jumps: float, generator: torch.Generator) -> Tensor:
    """Random walks that stay where they are with probability 1 − `jumps`, one in each row."""
    steps = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < jumps)
    steps[:, 0] = torch.randn(len(steps), generator=generator)
    return steps.cumsum(1)
