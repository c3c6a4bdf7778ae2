"""Least squares on batches that differ, for loops by hand: two tensors of parameters, and two hyperparameters."""

import torch
from torch import Tensor

import hypergrad as hg
from hypergrad.core.autodiff import flatten, unflatten


class LeastSquares(hg.InnerProblem):
    """g = ‖X w − y‖² / 2n + ½ penalty ‖w‖² − wᵀ C shift and f = ‖Z w − t‖² / 2m + shiftᵀ D w + ½ ‖shift‖² + penalty².

    w is two tensors of 3 and 4 entries, penalty > 0. The train part of n = 22 examples has batches of 5, and the dev
    part of m = 17 has batches of 4, so that the last ones are short; step s uses batch s mod K.
    """

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = {"X": (22, 7), "y": (22,), "Z": (17, 7), "t": (17,), "C": (7, 3), "D": (3, 7)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.randn(*shape, generator=generator))

    def init_params(self):
        return {"a": torch.zeros(3), "b": torch.zeros(2, 2)}

    def hyperparameters(self):
        shift = hg.Hyperparameter(torch.tensor([0.3, -0.2, 0.5]))
        return {"penalty": hg.Hyperparameter(0.4, constraint=hg.positive), "shift": shift}

    def inner_loss(self, params, hparams, batch):
        (X, y), w = batch, flatten(params)
        return ((X @ w - y) ** 2).mean() / 2 + hparams["penalty"] * w @ w / 2 - w @ self.C @ hparams["shift"]

    def outer_loss(self, params, hparams, batch):
        (Z, t), w, shift = batch, flatten(params), hparams["shift"]
        return ((Z @ w - t) ** 2).mean() / 2 + shift @ self.D @ w + shift @ shift / 2 + hparams["penalty"] ** 2

    def inner_batch(self, step):
        return self.X.split(5)[step % 5], self.y.split(5)[step % 5]

    def outer_batch(self, step):
        return self.Z.split(4)[step % 5], self.t.split(4)[step % 5]

    def inner_place(self, step):
        return hg.BatchPlace(step % 5, 5, 5 * len(self.inner_batch(step)[0]) / 22, is_fixed=True)

    def outer_place(self, step):
        return hg.BatchPlace(step % 5, 5, 5 * len(self.outer_batch(step)[0]) / 17, is_fixed=True)

    def inner_terms(self, step: int, w: Tensor, penalty: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """∇_w g and ∇²_ww g on the batch of a step, times its weight."""
        (X, y), weight = self.inner_batch(step), self.inner_place(step).weight
        H = X.T @ X / len(X) + penalty * torch.eye(7)
        return weight * (H @ w - X.T @ y / len(X) - self.C @ shift), weight * H

    def outer_gradient(self, step: int, w: Tensor, shift: Tensor) -> Tensor:
        """∇_w f on the batch of a step, times its weight."""
        (Z, t), weight = self.outer_batch(step), self.outer_place(step).weight
        return weight * (Z.T @ (Z @ w - t) / len(Z) + self.D.T @ shift)

    def direction(self, steps: tuple[int, int], w: Tensor, v: Tensor, penalty: Tensor, shift: Tensor) -> Tensor:
        """D_λ on the batches of an inner and an outer step, shape (4,)."""
        g, f = self.inner_place(steps[0]).weight, self.outer_place(steps[1]).weight
        return torch.cat([
            (g * v @ w + f * 2 * penalty).reshape(1),
            -g * self.C.T @ v + f * (self.D @ w + shift),
        ])

    def shaped(self, w: Tensor) -> dict[str, Tensor]:
        """Flat parameters by name."""
        return unflatten(w, self.init_params())
