"""Supervised training of any module with any loss on any data, with hyperparameters that the user names."""

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.seed import seed_of
from hypergrad.core.validation import require_int
from hypergrad.data.minibatch import even_batches, rows_of_step
from hypergrad.data.parts import read_parts
from hypergrad.data.tables import Split, Splits
from hypergrad.effect.base import Effect, Site
from hypergrad.effect.combined import CombinedEffects
from hypergrad.effect.example_weights import ExampleWeights
from hypergrad.model.accuracy import hits
from hypergrad.model.criterion import Criterion
from hypergrad.model.loss_trial import try_loss
from hypergrad.model.probe import EXAMPLES
from hypergrad.model.pure_module import PureModule
from hypergrad.model.requirements import require_servable
from hypergrad.model.second_derivative import TwiceDifferentiable
from hypergrad.model.trial import require_batches
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.repartition import on_rows
from hypergrad.problem.supervised.effects_trial import try_effects
from hypergrad.problem.supervised.module_problem import ModuleProblem


class Batch(NamedTuple):
    """The data of a training step: the rows of train (None for all) and the step (None if nothing is random)."""

    rows: Tensor | None = None
    step: int | None = None


class Supervised(ModuleProblem):
    """A module trained on some examples and judged on others.

    g(w, λ) = 1/N Σ_i c_i u(z(w, x_i), y_i) + r(w) on train or a mini-batch of it, with the terms u and the denominator
    N of the loss ℓ = 1/N Σ_i u_i; f(w, λ) = ℓ(z(w, X), y) on dev.

    Args:
        model: z, any module from a batch of inputs to a batch of outputs; it is not changed. See `PureModule` for
            batch normalisation, dropout, tied and frozen parameters. Outputs of shape (n, 1) are read as (n,) if the
            targets have that shape.
        loss: ℓ(outputs, targets), such as `torch.nn.functional.cross_entropy`; a part of the problem, see `Criterion`.
        train: (X, y), a Dataset, or an iterable of batches (X, y); all is kept in memory, in the dtype of the model.
        dev: like train.
        test: like train, or None.
        hyperparameters: by name, effects such as `hg.L2()`, or an `hg.Hyperparameter` that a coefficient of the solver
            names, such as a learning rate.
        batch_size: examples of a training step, ≥ 1; None for all. Each epoch sees each example once.
        seed: of the batches and of random draws, such as dropout.
        probe: whether to compare the outputs and derivatives of the model on eight examples with those of a copy that
            has its parameters written into it. See docs/models.md for what is not known without it.

    Raises:
        TypeError: if data or a hyperparameter has another type.
        ValueError: if data is empty, holds NaN, or does not fit the model, or an effect does not fit.
    """

    X: Tensor
    y: Tensor
    X_dev: Tensor
    y_dev: Tensor
    X_test: Tensor
    y_test: Tensor
    examples: Tensor | None
    """The positions of train in the pool, if `on_examples` made this problem."""
    _has_dev = True

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
        probe: bool = True,
    ) -> None:
        super().__init__()
        require_servable(model)
        self.batch_size, self.seed = batch_size, seed
        if batch_size is not None:
            require_int(self, "batch_size", least=1)
        self.effects = CombinedEffects(hyperparameters)
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        self.criterion = Criterion(loss).to(like)
        parts = read_parts({"train": train, "dev": dev} | ({} if test is None else {"test": test}), like)
        self._hold(parts)
        self.model = PureModule(model, self.X[:EXAMPLES], seed, probe=probe)
        require_batches(self.model, self.X, batch_size)
        outputs = self._probe_outputs()
        self.num_classes = try_loss(self.criterion, outputs, parts)
        self._twice = TwiceDifferentiable(self.model, self.criterion)
        self._hyperparameters = self.effects.spaces(self._site(self.X))
        self._try_effects(outputs)

    def _hold(self, parts: dict[str, Split]) -> None:
        for name, part in parts.items():
            suffix = "" if name == "train" else f"_{name}"
            self.register_buffer(f"X{suffix}", part.X)
            self.register_buffer(f"y{suffix}", part.y)
        self.register_buffer("examples", None)

    def init_params(self) -> Tensors:
        return self.model.params()

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return self._hyperparameters

    def initial(self, params: Tensors, hparams: Tensors) -> Tensors:
        return self.effects.initial(params, hparams)

    @property
    def tunes_initial(self) -> bool:
        return self.effects.tunes_initial

    @property
    def draws(self) -> bool:
        """Whether a training step draws random numbers."""
        return self.model.draws or self.effects.draws

    def inner_batch(self, step: int) -> Batch | None:
        rows, size = None, len(self.X)
        if self.batch_size is not None and self.batch_size < size:
            rows = rows_of_step(step, size=size, batch_size=self.batch_size, seed=self.seed).to(self.X.device)
        if self.draws:
            return Batch(rows, step)
        return None if rows is None else Batch(rows)

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self.loss_of_outputs(self.outputs(params, hparams, batch), params, hparams, batch)

    def inner_loss_and_gradient(self, params: Tensors, hparams: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
        """As promised.

        Also raised, by what it calls: ValueError if the gradient is to be differentiated again, and a layer of the
        model allows no such thing.
        """
        if torch.is_grad_enabled():
            self._twice.require(self.X[:EXAMPLES], self.y[:EXAMPLES])
        return super().inner_loss_and_gradient(params, hparams, batch)

    def outputs(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        rows, step = batch or Batch()
        X = self.X if rows is None else self.X[rows]
        if self.effects.draws:
            generator = torch.Generator().manual_seed(seed_of("augmentation", self.seed, step or 0))
            X = self.effects.augmented(X, hparams, generator)
        return self._evaluate(params, hparams, X, step or 0)

    def loss_of_outputs(self, outputs: Tensor, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        rows, _ = batch or Batch()
        classes = self.y if rows is None else self.y[rows]
        y = self.effects.targets(classes, hparams, self.num_classes)
        weights = self.effects.weights(self._positions(rows), classes, hparams)
        if weights is None:
            loss = self.criterion.value(outputs, y, classes)
        else:
            loss = (self.criterion.each(outputs, y, classes) * weights).mean()
        return self.effects.penalised(loss, params, hparams)

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self.criterion.value(self._evaluate(params, hparams, self.X_dev, None), self.y_dev)

    def metrics(self, params: Tensors, hparams: Tensors) -> dict[str, Tensor | float]:
        """Loss and accuracy on test, and the accuracy on dev, if there are such examples and such targets.

        If the model has running averages, these are numbers of `trained_module(params, hparams)`, and
        `dev_loss_in_eval` is its dev loss. The outer loss, for which λ is tuned, uses the statistics of dev instead.
        """
        outputs_of = self.judged_outputs(params, hparams)
        found: dict[str, Tensor | float] = {}
        if hasattr(self, "X_test"):
            outputs = outputs_of(self.X_test)
            found = {"test_loss": self.criterion.value(outputs, self.y_test)} | self._accuracy("test", outputs)
        classifies = self.num_classes is not None or self.criterion.has_logits
        if self._has_dev and (classifies or self.model.averages):
            outputs = outputs_of(self.X_dev)
            found |= self._accuracy("dev", outputs)
            if self.model.averages:
                found["dev_loss_in_eval"] = self.criterion.value(outputs, self.y_dev)
        return found

    def train_inputs(self, hparams: Tensors) -> Iterator[Tensor]:
        for rows in even_batches(size=len(self.X), batch_size=self.batch_size, seed=self.seed):
            yield self.model_inputs(self.X if rows is None else self.X[rows.to(self.X.device)], hparams)

    def model_inputs(self, X: Tensor, hparams: Tensors) -> Tensor:
        return self.effects.inputs(X, hparams)

    def tuned_buffers(self, hparams: Tensors) -> Tensors:
        return self.effects.buffers(hparams)

    def changes_inputs(self) -> list[str]:
        return self.effects.input_names

    def pooled_targets(self) -> Tensor:
        return torch.cat([self.y, self.y_dev])

    def on_examples(self, train: Tensor, dev: Tensor) -> "Supervised":
        """As promised; weights of examples are for the whole pool, and training uses those of its own examples.

        Raises:
            ValueError: if `on_examples` made this problem too.
        """
        if self.examples is not None:
            raise ValueError("The problem is already on some examples of another; call on_examples of that one.")
        other = on_rows(self, train, dev)
        other._buffers["examples"] = train
        other._has_dev = not torch.equal(train, dev)
        other._hyperparameters = self.effects.spaces(self._site(torch.cat([self.X, self.X_dev])))
        return other

    def joined(self, hparams: Tensors) -> tuple[InnerProblem, Tensors]:
        both, _ = super().joined(hparams)
        return both, self.effects.widened(hparams, len(self.X_dev))

    def weighted(self, name: str) -> "Supervised":
        """The problem on all of train at each step, with one more hyperparameter: a weight for each example.

        With weights of 1 it has the same loss. An example of weight 0 does not count. The sum of the terms of the loss
        is divided by the same number as before, so that the penalties keep their relative size.

        Args:
            name: of the weights.

        Raises:
            ValueError: if a hyperparameter has that name, if training draws random numbers, or if `on_examples` made
                this problem.

        Also raised, by what it calls: ValueError if the loss has no term for each example.
        """
        if self.examples is not None:
            raise ValueError("The problem is on some examples of another; call weighted of that one.")
        if name in self._hyperparameters:
            raise ValueError(f"The hyperparameters already have a {name!r}; give the weights another name.")
        if self.draws:
            raise ValueError(
                "Weights of examples need training without random numbers, but this one draws some, as dropout and "
                "augmentation do. Call eval() on the module that draws them, and leave out the augmentation."
            )
        other = copy(self)
        other.batch_size, other.effects = None, self.effects.with_more({name: ExampleWeights()})
        other._hyperparameters = other.effects.spaces(self._site(self.X))
        other._try_effects(other._probe_outputs())
        return other

    def _evaluate(self, params: Tensors, hparams: Tensors, X: Tensor, step: int | None) -> Tensor:
        return self.model(params | self.effects.buffers(hparams), self.effects.inputs(X, hparams), step)

    def _accuracy(self, part: str, outputs: Tensor) -> dict[str, Tensor | float]:
        right = hits(self.criterion, outputs, self.get_buffer(f"y_{part}"), self.num_classes)
        return {} if right is None else {f"{part}_accuracy": right.double().mean()}

    def _positions(self, rows: Tensor | None) -> Tensor | None:
        """The positions, in the order of λ, of some rows of train."""
        if self.examples is None:
            return rows
        return self.examples if rows is None else self.examples[rows]

    def _site(self, X: Tensor) -> Site:
        return Site(self.model.params(), X, self.num_classes, dict(self.model.module.named_buffers()))

    def _try_effects(self, outputs: Tensor) -> None:
        """Try the loss with targets and weights as the effects make them."""
        y, pool = self.y, self.pooled_targets()
        try_effects(self.criterion, self.effects, self.init_hparams(), outputs, y, pool, self.num_classes)

    @torch.no_grad()
    def _probe_outputs(self) -> Tensor:
        return self.model(self.model.params(), self.X[:EXAMPLES], None)


def on_splits(data: Splits, **settings: Any) -> Supervised:
    """`Supervised` on given splits, for configs."""
    return Supervised(train=data.train, dev=data.dev, test=data.test, **settings)
