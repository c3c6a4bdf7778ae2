"""Dataset distillation: a few learned examples replace all of the train data."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hypergrad.core.autodiff import Tensors
from hypergrad.core.collectives import Ranks
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.validation import require_int, require_real
from hypergrad.data.own_rows import OwnRows, own_rows, rows_of
from hypergrad.data.tables import Splits
from hypergrad.model.criterion import Criterion
from hypergrad.model.network import softmax_regression
from hypergrad.model.probe import EXAMPLES
from hypergrad.model.pure_module import PureModule
from hypergrad.model.second_derivative import TwiceDifferentiable
from hypergrad.problem.supervised.division_trial import of_processes, require_divisible, require_no_batch_statistics
from hypergrad.problem.supervised.module_problem import ModuleProblem


class Distillation(ModuleProblem):
    """A classifier trained on learned images λ alone, the same number for each class, and judged on real images.

    g(w, λ) = mean_i ℓ(z(w, λ_i), y_i) with fixed labels y, f(w) = the mean of ℓ over the real train part, ℓ the
    cross-entropy. The hyperparameter `images` has shape (K · per_class, p), class after class, and starts at noise.

    The value of an image depends on the training steps, so use `Unrolled` and `warm_start=False`.

    Args:
        data: inputs of shape (n, p), and classes from 0; train is distilled, dev and test only judge.
        per_class: learned images for each class, ≥ 1.
        noise: the standard deviation of the initial images, > 0, in units of the inputs.
        model: the classifier; None for softmax regression from zero weights.
        seed: of the initial images.
        shape: (h, w) or (c, h, w) with product p, for showing the images; None for a square if p is a square number.

    Raises:
        ValueError: if an argument is out of its range.
        TypeError: if `per_class` is not an integer.

    Source: Maclaurin, Duvenaud & Adams, "Gradient-based hyperparameter optimization through reversible learning", ICML
    (2015); Wang, Zhu, Torralba & Efros, "Dataset distillation" (2018).
    """

    labels: Tensor
    first: Tensor

    def __init__(
        self,
        data: Splits,
        *,
        per_class: int = 1,
        noise: float = 0.1,
        model: nn.Module | None = None,
        seed: int = 0,
        shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.per_class, self.noise = per_class, noise
        require_int(self, "per_class", least=1)
        require_real(self, "noise", above=0)
        num_classes, num_features = 1 + int(data.train.y.max()), data.train.X.shape[1]
        self.shape = _image_shape(num_features, shape)
        for name, (X, y) in zip(data._fields, data, strict=True):
            self.register_buffer(f"X_{name}", X)
            self.register_buffer(f"y_{name}", y)
        self.register_buffer("labels", torch.arange(num_classes).repeat_interleave(per_class))
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("first", noise * torch.randn(len(self.labels), num_features, generator=generator))
        few = data.train.X[:EXAMPLES]
        self.model = PureModule(model or softmax_regression(num_features, num_classes), few, seed)
        self._twice = TwiceDifferentiable(self.model, Criterion(cross_entropy))

    def settings(self) -> dict[str, object]:
        return {"model": self.model.module, "images": f"{self.per_class} per class, noise {self.noise}"}

    def init_params(self) -> Tensors:
        return self.model.params()

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return {"images": Hyperparameter(self.first)}

    def pictures(self) -> dict[str, tuple[int, ...]]:
        return {} if self.shape is None else {"images": self.shape}

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        rows = rows_of(batch)
        return cross_entropy(self.model(params, hparams["images"][rows], None), self.labels[rows])

    def on_ranks(self, ranks: Ranks) -> Self:
        """As promised.

        Also raised, by what it calls: ValueError if the outputs of the model for an image depend on other images.
        """
        setting, X, y = of_processes(ranks.world), self.get_buffer("X_train"), self.get_buffer("y_train")
        require_no_batch_statistics(self.model.module, setting)
        few = X[:EXAMPLES]

        def outputs_of(rows: slice) -> Tensor:
            return self.model(self.model.params(), few[rows], None)

        require_divisible(Criterion(cross_entropy), outputs_of, y[:EXAMPLES], setting)
        return self

    def inner_share(self, batch: Any, rank: int, world: int) -> tuple[OwnRows, float]:
        own = own_rows(len(self.labels), rank, world)
        return own, own.share

    def outer_share(self, batch: Any, rank: int, world: int) -> tuple[OwnRows, float]:
        own = own_rows(len(self.get_buffer("y_train")), rank, world)
        return own, own.share

    def inner_loss_and_gradient(self, params: Tensors, hparams: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
        """As promised.

        Also raised, by what it calls: ValueError if the gradient is to be differentiated again, and a layer of the
        model allows no such thing.
        """
        if torch.is_grad_enabled():
            self._twice.require(self.get_buffer("X_train")[:EXAMPLES], self.get_buffer("y_train")[:EXAMPLES])
        return super().inner_loss_and_gradient(params, hparams, batch)

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        rows = rows_of(batch)
        return cross_entropy(
            self.model(params, self.get_buffer("X_train")[rows], None), self.get_buffer("y_train")[rows]
        )

    def metrics(self, params: Tensors, hparams: Tensors) -> dict[str, Tensor | float]:
        outputs_of = self.judged_outputs(params, hparams)
        outputs = {part: outputs_of(self.get_buffer(f"X_{part}")) for part in ("dev", "test")}
        found: dict[str, Tensor | float] = {
            f"{part}_accuracy": (z.argmax(1) == self.get_buffer(f"y_{part}")).double().mean()
            for part, z in outputs.items()
        }
        return found | {"test_loss": cross_entropy(outputs["test"], self.get_buffer("y_test"))}

    def train_inputs(self, hparams: Tensors) -> Iterator[Tensor]:
        yield hparams["images"]


def _image_shape(size: int, shape: Sequence[int] | None) -> tuple[int, ...] | None:
    """The given shape of images of `size` values, or a square if there is one.

    Raises:
        ValueError: if the given shape has another number of values.
    """
    if shape is None:
        side = math.isqrt(size)
        return (side, side) if side * side == size else None
    if math.prod(shape) != size:
        raise ValueError(
            f"Distillation.shape must have {size} values, as each input has, but {tuple(shape)} has {math.prod(shape)}."
        )
    return tuple(shape)
