"""Denoising of binary images by mean-field inference, with potentials that are learned through it."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from hypergrad.core.autodiff import Tensors
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.data.tables import Splits
from hypergrad.problem.base import InnerProblem


class MeanField(InnerProblem):
    """Binary images x from noisy images y, by a Markov random field on the grid of the pixels x_i, y_i = ±1.

        p(x | y) ∝ exp(Σ_i (unary y_i + field_i) x_i + Σ_k coupling_k Σ_i x_i x_{i + o_k})

    is approximated by independent pixels with means m_i = tanh θ_i, which minimise the free energy
    g = −Σ_i (unary y_i + field_i) m_i − Σ_k coupling_k Σ_i m_i m_{i + o_k} − Σ_i entropy(m_i), per image, where

        φ(θ) = θ − (unary y + field + C m) = 0    with    (C m)_i = Σ_k coupling_k (m_{i + o_k} + m_{i − o_k}).

    φ is the natural gradient of g, and a step of `FixedPoint` is a mean-field update of all pixels at once. The dev
    loss is −log q(clean pixel), in nats, averaged over pixels. The parameter is `logits`, θ of all dev and test images,
    shape (n, pixels). The hyperparameters are `unary`, shape (), which starts at the log-odds of the noise, and
    `field`, shape (pixels,), and `coupling`, one for each offset o_k, which start at 0. This start is the best
    prediction from each pixel alone, without knowledge of the images.

    Args:
        data: square images with inputs from 0 to 1, shape (n, pixels), thresholded at ½; train is not used, because
            inference has nothing to train.
        flip: the probability that the noise flips a pixel, in (0, ½).
        radius: the largest offset o_k to each side, in pixels, ≥ 1; radius 1 gives 4 offsets, 2 gives 12.
        seed: of the noise.

    Raises:
        ValueError: if an argument is out of its range, or the images are not square.

    Source: Wainwright & Jordan, "Graphical models, exponential families, and variational inference" (2008); Domke,
    "Generic methods for optimization-based modeling", AISTATS (2012).
    """

    noisy: Tensor
    clean: Tensor
    neighbours: Tensor

    def __init__(self, data: Splits, *, flip: float = 0.1, radius: int = 1, seed: int = 0) -> None:
        super().__init__()
        images = torch.cat([data.dev.X, data.test.X])
        side = round(images.shape[1] ** 0.5)
        if not 0 < flip < 0.5 or radius < 1 or side**2 != images.shape[1]:
            raise ValueError(
                f"MeanField needs square images, flip in (0, 0.5) and radius ≥ 1, but there are {images.shape[1]} "
                f"pixels, and flip and radius are {flip:g} and {radius}."
            )
        clean = torch.where(images > 0.5, 1.0, -1.0).to(images)
        flips = torch.rand(clean.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) < flip
        self.num_dev = len(data.dev.X)
        self.register_buffer("clean", clean)
        self.register_buffer("noisy", torch.where(flips, -clean, clean))
        self.register_buffer("neighbours", _neighbours(side, radius).to(images))
        self._hyperparameters = {
            "unary": Hyperparameter(torch.tensor((1 - flip) / flip).log().item() / 2),
            "field": Hyperparameter(0.0, shape=(side**2,)),
            "coupling": Hyperparameter(0.0, shape=(len(self.neighbours),)),
        }

    def init_params(self) -> Tensors:
        return {"logits": torch.zeros_like(self.clean)}

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return self._hyperparameters

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        theta = params["logits"]
        m = theta.tanh()
        # entropy = −Σ_± p log p with p = σ(±2θ)
        entropy = softplus(-2 * theta) + (1 - m) * theta
        energy = m * (self._evidence(hparams) + m @ self._couplings(hparams) / 2)
        return -(energy + entropy).sum(1).mean()

    def optimality(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensors:
        theta = params["logits"]
        return {"logits": theta - self._evidence(hparams) - theta.tanh() @ self._couplings(hparams)}

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self._log_loss(params["logits"], slice(None, self.num_dev))

    def metrics(self, params: Tensors, hparams: Tensors) -> dict[str, Tensor | float]:
        theta, test = params["logits"], slice(self.num_dev, None)
        wrong = (theta[test].sign() != self.clean[test]).double().mean()
        return {"test_loss": self._log_loss(theta, test), "test_pixel_error": wrong}

    def _log_loss(self, theta: Tensor, rows: slice) -> Tensor:
        return softplus(-2 * self.clean[rows] * theta[rows]).mean()

    def _evidence(self, hparams: Tensors) -> Tensor:
        return hparams["unary"] * self.noisy + hparams["field"]

    def _couplings(self, hparams: Tensors) -> Tensor:
        return torch.tensordot(hparams["coupling"], self.neighbours, 1)


def _neighbours(side: int, radius: int) -> Tensor:
    """For each offset o in half of the plane, the matrix of pixel pairs at that offset, shape (offsets, p, p)."""
    reach = range(-radius, radius + 1)
    offsets = [(down, right) for down in reach for right in reach if (down, right) > (0, 0)]
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    apart = torch.stack([x.reshape(1, -1) - x.reshape(-1, 1) for x in (rows, columns)], -1)
    one_way = torch.stack([(apart == torch.tensor(offset)).all(-1) for offset in offsets])
    return (one_way | one_way.mT).double()
