"""A variational autoencoder that refines the posterior of each image, and learns through the refinement."""

from copy import copy
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from hypergrad.core.autodiff import Tensors
from hypergrad.core.collectives import Ranks
from hypergrad.core.device import sent
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.seed import seed_of
from hypergrad.core.torch_internals.modules import buffers_of, set_buffers
from hypergrad.core.validation import require_int
from hypergrad.data.minibatch import rows_of_step
from hypergrad.data.own_rows import OwnRows, own_rows
from hypergrad.data.tables import Splits
from hypergrad.model.criterion import Criterion
from hypergrad.model.probe import EXAMPLES
from hypergrad.model.pure_module import PureModule
from hypergrad.model.second_derivative import TwiceDifferentiable
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.supervised.division_trial import of_processes, require_no_batch_statistics

_TEST_SAMPLES = 10
"""Draws per test image: the mean of several makes the test loss less noisy than the dev loss."""


class OwnDraws(NamedTuple):
    """The draws ε for the images of one process, shape (samples, images, latent), and which images they are."""

    eps: Tensor
    own: OwnRows


class SemiAmortized(InnerProblem):
    """A variational autoencoder on binary images x_i; the inner problem trains the approximate posteriors.

    p(x, z) = N(z; 0, I) Π_j Bernoulli(x_j; σ(decoder(z)_j))    and    q_i(z) = N(z; μ_i, diag exp ρ_i)

    bound −log p(x_i) from above, in nats, by the negative ELBO

    L_i(μ_i, ρ_i) = −E_{q_i} log p(x_i | z) + KL(q_i ‖ N(0, I)),

    The first term is estimated with z = μ_i + exp(ρ_i/2) ε, and the second is ½ Σ (μ² + e^ρ − ρ − 1). The inner loss is
    Σ_i L_i, so that each posterior moves as it would alone. It starts at the output of the encoder,
    (μ_i, ρ_i) = encoder(x_i), or at the prior without an encoder. The dev loss is the mean of L_i after the steps.
    The hyperparameters are the weights of both networks, `encoder.…` and `decoder.…`.

    Each outer step has its own problem (`at_outer_step`) with `batch_size` train images, and each epoch uses each image
    once. It also has the first `num_test` test images, whose posteriors are refined too; their mean L_i is the metric
    `test_loss`. The problem itself has all train images. Draws ε are new at each inner and outer step, and depend only
    on the seed and the steps. Use `Unrolled` and `warm_start=False`.

    Args:
        data: inputs from 0 to 1, shape (n, p), thresholded at ½; the targets are not used.
        encoder: from (n, p) to (n, 2 · latent), μ and then ρ; None for posteriors that start at the prior.
        decoder: from (n, latent) to (n, p), the logits of the pixels.
        latent: dimensions of z, ≥ 1.
        batch_size: train images of an outer step, ≥ 1.
        num_test: test images refined in each outer step, ≥ 0.
        num_samples: draws ε for each image and step, ≥ 1.
        seed: of the batches and draws.

    Raises:
        ValueError: if an argument is out of its range, or a network has the wrong shapes.
        TypeError: if a number is not an integer.

    Source: Kim, Wiseman, Miller, Sontag & Rush, "Semi-amortized variational autoencoders", ICML (2018).
    """

    images: Tensor
    X_train: Tensor
    X_test: Tensor

    def __init__(
        self,
        data: Splits,
        *,
        encoder: nn.Module | None,
        decoder: nn.Module,
        latent: int = 8,
        batch_size: int = 100,
        num_test: int = 100,
        num_samples: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.latent, self.batch_size, self.num_test, self.num_samples = latent, batch_size, num_test, num_samples
        self.seed, self.number = seed, 0
        for name, least in (("latent", 1), ("batch_size", 1), ("num_test", 0), ("num_samples", 1)):
            require_int(self, name, least=least)
        self._hold(data)
        few = self.X_train[:EXAMPLES]
        latents = torch.randn(len(few), latent, generator=torch.Generator().manual_seed(0), dtype=few.dtype).to(few)
        self.decoder = _network("decoder", decoder, latents, few.shape[1], seed)
        self.encoder = None if encoder is None else _network("encoder", encoder, few, 2 * latent, seed)
        self._twice = [(TwiceDifferentiable(self.decoder, Criterion(_squares)), latents)]
        if self.encoder is not None:
            self._twice.append((TwiceDifferentiable(self.encoder, Criterion(_squares)), few))

    def _hold(self, data: Splits) -> None:
        """Keep the images.

        Raises:
            ValueError: if there are fewer test images than `num_test`.
        """
        for name, (X, _) in zip(data._fields, data, strict=True):
            self.register_buffer(f"X_{name}", (X > 0.5).to(X))
        if self.num_test > len(self.X_test):
            raise ValueError(
                f"SemiAmortized.num_test must be at most {len(self.X_test)}, the images of the test part, but it is "
                f"{self.num_test}."
            )
        self.register_buffer("images", torch.cat([self.X_train, self.X_test[: self.num_test]]))

    def settings(self) -> dict[str, object]:
        return {
            "networks": [None if one is None else one.module for one in (self.decoder, self.encoder)],
            "samples": f"{self.num_samples}, batch_size {self.batch_size}, seed {self.seed}",
        }

    def init_params(self) -> Tensors:
        prior = self.images.new_zeros(len(self.images), self.latent)
        return {"mean": prior, "log_var": prior.clone()}

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        networks = {"decoder": self.decoder} | ({} if self.encoder is None else {"encoder": self.encoder})
        return {
            f"{part}.{name}": Hyperparameter(value)
            for part, network in networks.items()
            for name, value in network.params().items()
        }

    def initial(self, params: Tensors, hparams: Tensors) -> Tensors:
        if self.encoder is None:
            return params
        mean, log_var = self.encoder(_weights(hparams, "encoder"), self.images, None).chunk(2, 1)
        return {"mean": params["mean"] + mean, "log_var": params["log_var"] + log_var}

    def at_outer_step(self, step: int) -> "SemiAmortized":
        rows = rows_of_step(step, size=len(self.X_train), batch_size=self.batch_size, seed=self.seed)
        images = torch.cat([self.X_train[rows.to(self.images.device)], self.X_test[: self.num_test]])
        return self.on_images(images, num_test=self.num_test, number=step)

    def on_images(self, images: Tensor, *, num_test: int = 0, number: int = 0) -> "SemiAmortized":
        """The problem on other images.

        Args:
            images: shape (n, p), of zeros and ones.
            num_test: how many images at the end are only for testing, ≥ 0.
            number: of the outer step, ≥ 0; the draws depend on it.
        """
        other = copy(self)
        set_buffers(other, buffers_of(self) | {"images": images})
        other.num_test, other.number = num_test, number
        return other

    def inner_batch(self, step: int) -> Tensor:
        return self.draws(self.num_samples, len(self.images), "inner", step)

    def outer_batch(self, step: int) -> Tensor:
        return self.draws(self.num_samples, len(self.images) - self.num_test, "outer", step)

    def draws(self, num_samples: int, num_images: int, *key: object) -> Tensor:
        """Standard normal ε, shape (samples, images, latent), from the seed, the outer step and a key."""
        generator = torch.Generator().manual_seed(seed_of("posterior", self.seed, self.number, *key))
        shape = (num_samples, num_images, self.latent)
        return sent(torch.randn(shape, generator=generator, dtype=self.images.dtype), self.images.device)

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        if isinstance(batch, OwnDraws):
            return batch.own.scale * self._bounds(params, hparams, batch.eps, batch.own.rows).sum()
        return self._bounds(params, hparams, batch, slice(None)).sum()

    def inner_loss_and_gradient(self, params: Tensors, hparams: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
        """As promised.

        Also raised, by what it calls: ValueError if the gradient is to be differentiated again, and a layer of a
        network allows no such thing.
        """
        if torch.is_grad_enabled():
            for twice, inputs in self._twice:
                twice.require(inputs.to(self.images), self.images)
        return super().inner_loss_and_gradient(params, hparams, batch)

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        if isinstance(batch, OwnDraws):
            return self._bounds(params, hparams, batch.eps, batch.own.rows).mean()
        return self._bounds(params, hparams, batch, slice(len(self.images) - self.num_test)).mean()

    def on_ranks(self, ranks: Ranks) -> Self:
        """As promised.

        Also raised, by what it calls: ValueError if a network normalises by the statistics of its batch.
        """
        for network in filter(None, (self.encoder, self.decoder)):
            require_no_batch_statistics(network.module, of_processes(ranks.world))
        return self

    def inner_share(self, batch: Tensor, rank: int, world: int) -> tuple[OwnDraws, float]:
        """A process's images of `batch`, shape (samples, images, latent); its gradient is zero for all others."""
        own = own_rows(batch.shape[1], rank, world)
        return OwnDraws(batch[:, own.rows], own), own.share

    def outer_share(self, batch: Tensor, rank: int, world: int) -> tuple[OwnDraws, float]:
        return self.inner_share(batch, rank, world)

    def metrics(self, params: Tensors, hparams: Tensors) -> dict[str, Tensor | float]:
        if self.num_test == 0:
            return {}
        # The same draws at every outer step, so that only the networks change the test loss.
        eps = self.on_images(self.images).draws(_TEST_SAMPLES, self.num_test, "test")
        rows = slice(len(self.images) - self.num_test, None)
        return {"test_loss": self._bounds(params, hparams, eps, rows).mean()}

    def _bounds(self, params: Tensors, hparams: Tensors, eps: Tensor, rows: slice) -> Tensor:
        """L_i of some images, shape (rows,)."""
        x, mu, rho = self.images[rows], params["mean"][rows], params["log_var"][rows]
        z = mu + (rho / 2).exp() * eps
        logits = self.decoder(_weights(hparams, "decoder"), z.flatten(0, 1), None).view(*z.shape[:2], -1)
        distortion = (softplus(logits) - x * logits).sum(-1).mean(0)
        return distortion + (mu.square() + rho.exp() - rho - 1).sum(-1) / 2


def _squares(outputs: Tensor, targets: Tensor) -> Tensor:
    """A curved function of the outputs, to try a network alone."""
    return outputs.square()


def _weights(hparams: Tensors, part: str) -> Tensors:
    """The weights of one network, by their names in it."""
    return {name.removeprefix(f"{part}."): x for name, x in hparams.items() if name.startswith(f"{part}.")}


def _network(name: str, module: nn.Module, inputs: Tensor, width: int, seed: int) -> PureModule:
    """A network as a function of its weights.

    Raises:
        ValueError: if its outputs are not of shape (n, width).
    """
    network = PureModule(module, inputs, seed)
    shape = tuple(network(network.params(), inputs, None).shape)
    if shape != (len(inputs), width):
        raise ValueError(
            f"The {name} must have outputs of shape (n, {width}), but for {len(inputs)} inputs they have shape {shape}."
        )
    return network
