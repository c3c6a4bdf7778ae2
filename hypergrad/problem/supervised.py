"""Any module, any loss, any data: supervised training with the hyperparameters that a user names."""

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hypergrad.autodiff import Tensors
from hypergrad.data import Split, Splits
from hypergrad.effect.base import Effect, Site
from hypergrad.effect.example_weights import ExampleWeights
from hypergrad.hyperparameter import Hyperparameter
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.criterion import Criterion
from hypergrad.problem.minibatch import rows_of_step
from hypergrad.problem.module import PureModule
from hypergrad.problem.source import read, require_classes, warn_of_overlap
from hypergrad.validation import require_int

_PROBE = 4


class Batch(NamedTuple):
    """What a training step sees: the rows of train, all when None, and the step, None where nothing is drawn."""

    rows: Tensor | None = None
    step: int | None = None


class Supervised(InnerProblem):
    """A module trained on examples, judged on others.

    g(w, λ) = mean_i c_i ℓ(z(w, x_i), y_i) + r(w) on train or a mini-batch of it, f(w, λ) = ℓ(z(w, X), y) on dev.

    Args:
        model: z, any module from a batch of inputs to a batch of outputs; it is not changed. What happens to batch
            normalisation, dropout, tied and frozen parameters says `PureModule`. Outputs of shape (n, 1) stand for (n,)
            where the targets have that shape.
        loss: ℓ(outputs, targets), such as `torch.nn.functional.cross_entropy`; averaged where it is not of shape ().
        train: (X, y), a Dataset, or an iterable of batches (X, y); all is held in memory, in the model's dtype.
        dev: the same.
        test: the same, or None.
        hyperparameters: by name, effects such as `hg.L2()`, or an `hg.Hyperparameter` that a coefficient of the solver
            names, such as a learning rate.
        batch_size: examples of a training step, ≥ 1; None takes all. Each epoch sees each example once.
        seed: of the batches and of random draws, such as dropout.

    Raises:
        TypeError: if data or a hyperparameter is none of these.
        ValueError: if data is empty, holds NaN, or does not fit the model, or an effect does not fit.
    """

    X: Tensor
    y: Tensor
    X_dev: Tensor
    y_dev: Tensor
    X_test: Tensor
    y_test: Tensor

    def __init__(
        self,
        *,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        train: Any,
        dev: Any,
        test: Any = None,
        hyperparameters: Mapping[str, Effect | Hyperparameter],
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.seed, self.criterion = batch_size, seed, Criterion(loss)
        if batch_size is not None:
            require_int(self, "batch_size", least=1)
        parts = self._keep(model, {"train": train, "dev": dev} | ({} if test is None else {"test": test}))
        # Two examples at least, for batch normalisation.
        self.model = PureModule(model, self.X[:_PROBE], seed)
        self.num_classes = self._classes(parts)
        site = Site(self.model.params(), self.X, self.num_classes)
        self._hyperparameters = {name: _space(name, declared, site) for name, declared in hyperparameters.items()}
        self._declared = dict(hyperparameters)
        self._initial, self._inputs, self._targets, self._weights, self._penalties = (
            _acting(self._declared, hook) for hook in ("initial", "inputs", "targets", "weights", "penalty")
        )

    def init_params(self) -> Tensors:
        return self.model.params()

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return self._hyperparameters

    def inner_batch(self, step: int) -> Batch | None:
        rows, size = None, len(self.X)
        if self.batch_size is not None and self.batch_size < size:
            rows = rows_of_step(step, size=size, batch_size=self.batch_size, seed=self.seed).to(self.X.device)
        if self.model.draws:
            return Batch(rows, step)
        return None if rows is None else Batch(rows)

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self.loss_of_outputs(self.outputs(params, hparams, batch), params, hparams, batch)

    def outputs(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        rows, step = batch or Batch()
        return self._evaluate(params, hparams, self.X if rows is None else self.X[rows], step or 0)

    def loss_of_outputs(self, outputs: Tensor, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        rows, _ = batch or Batch()
        y = self.y if rows is None else self.y[rows]
        for name, effect in self._targets.items():
            y = effect.targets(hparams[name], y, self.num_classes)
        if self._weights:
            losses = self.criterion.each(outputs, y)
            for name, effect in self._weights.items():
                losses = losses * effect.weights(hparams[name], rows)
            loss = losses.mean()
        else:
            loss = self.criterion.mean(outputs, y)
        w = self._displaced(params, hparams)
        for name, effect in self._penalties.items():
            loss = loss + effect.penalty(hparams[name], w)
        return loss

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self.criterion.mean(self._evaluate(params, hparams, self.X_dev, None), self.y_dev)

    def metrics(self, params: Tensors, hparams: Tensors) -> dict[str, Tensor | float]:
        if not hasattr(self, "X_test"):
            return {}
        outputs = self._evaluate(params, hparams, self.X_test, None)
        found: dict[str, Tensor | float] = {"test_loss": self.criterion.mean(outputs, self.y_test)}
        if self.num_classes is not None:
            found["test_accuracy"] = (outputs.argmax(1) == self.y_test).double().mean()
        return found

    def joined(self, hparams: Tensors) -> tuple[InnerProblem, Tensors]:
        both = copy(self)
        both._buffers = self._buffers | {
            "X": torch.cat([self.X, self.X_dev]),
            "y": torch.cat([self.y, self.y_dev]),
        }
        more = {k: effect.widened(hparams[k], len(self.X_dev)) for k, effect in self._weights.items()}
        return both, hparams | more

    def weighted(self, name: str) -> "Supervised":
        """The problem on all of train at each step, with a further hyperparameter: a weight for each example.

        At weights of 1 it has the same solution. At weight 0 an example is left out of the mean of the losses, which is
        still divided by their number, so that penalties keep their size beside the others.

        Args:
            name: of the weights.

        Raises:
            ValueError: if a hyperparameter has that name, or the model draws random numbers in training.
        """
        if name in self._hyperparameters:
            raise ValueError(f"The hyperparameters already have a {name!r}; give the weights another name.")
        if self.model.draws:
            raise ValueError(
                "The model draws random numbers in training, such as those of dropout, so that it has no one solution "
                "that could owe something to an example; call eval() on the module that draws them."
            )
        both, effect = copy(self), ExampleWeights()
        both.batch_size = None
        both._weights = self._weights | {name: effect}
        both._hyperparameters = self._hyperparameters | {
            name: effect.space(Site(self.model.params(), self.X, self.num_classes))
        }
        return both

    def _evaluate(self, params: Tensors, hparams: Tensors, X: Tensor, step: int | None) -> Tensor:
        for name, effect in self._inputs.items():
            X = effect.inputs(hparams[name], X)
        return self.model(self._displaced(params, hparams), X, step)

    def _displaced(self, params: Tensors, hparams: Tensors) -> Tensors:
        """The weights of the model: what is trained, plus what an effect on w₀ adds to it."""
        for name, effect in self._initial.items():
            moves = effect.initial(hparams[name], self.model.params())
            params = params | {key: params[key] + move for key, move in moves.items()}
        return params

    def _keep(self, model: nn.Module, sources: dict[str, Any]) -> dict[str, Split]:
        """The parts, read and registered in the dtype and on the device of the model."""
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        parts: dict[str, Split] = {}
        for name, source in sources.items():
            part = Split(
                *(v.to(like.device, like.dtype if v.is_floating_point() else v.dtype) for v in read(source, name))
            )
            warn_of_overlap(part, parts, name)
            suffix = "" if name == "train" else f"_{name}"
            self.register_buffer(f"X{suffix}", part.X)
            self.register_buffer(f"y{suffix}", part.y)
            parts[name] = part
        return parts

    @torch.no_grad()
    def _classes(self, parts: dict[str, Split]) -> int | None:
        """K, where the targets are classes, after a check that they fit the model."""
        outputs = self.model(self.model.params(), self.X[:_PROBE], None)
        if self.y.is_floating_point() or outputs.ndim != self.y.ndim + 1:
            return None
        for name, part in parts.items():
            require_classes(part.y, outputs.shape[1], self.criterion.ignored, name)
        return outputs.shape[1]


def on_splits(data: Splits, **settings: Any) -> Supervised:
    """`Supervised` on splits that are made already, for configs."""
    return Supervised(train=data.train, dev=data.dev, test=data.test, **settings)


def _space(name: str, declared: Any, site: Site) -> Hyperparameter:
    if isinstance(declared, Effect):
        return declared.space(site)
    if isinstance(declared, Hyperparameter):
        return declared
    raise TypeError(
        f"hyperparameters[{name!r}] must be an effect, such as hg.L2(), or an hg.Hyperparameter that a coefficient of "
        f"the solver names, but it is a {type(declared).__name__}."
    )


def _acting(declared: Mapping[str, Any], hook: str) -> dict[str, Any]:
    """The effects that do what `hook` says."""
    ours = getattr(Effect, hook)
    return {k: v for k, v in declared.items() if isinstance(v, Effect) and getattr(type(v), hook) is not ours}
