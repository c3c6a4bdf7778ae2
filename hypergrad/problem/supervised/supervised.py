"""Supervised training of any module with any loss on any data, with hyperparameters that the user names."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors
from hypergrad.core.collectives import Ranks
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.kronecker import Kronecker
from hypergrad.core.seed import seed_of
from hypergrad.data.parts import in_memory, read_parts
from hypergrad.data.streaming import Streaming
from hypergrad.data.tables import Splits
from hypergrad.data.tree import joined
from hypergrad.effect.base import Effect
from hypergrad.effect.combined import CombinedEffects
from hypergrad.effect.example_weights import ExampleWeights
from hypergrad.model.blocks import Recompute
from hypergrad.model.convention import LOSS, OUTPUTS
from hypergrad.model.criterion import Criterion, Fraction
from hypergrad.model.loss_trial import try_loss
from hypergrad.model.padding import require_still_padding
from hypergrad.model.probe import EXAMPLES
from hypergrad.model.pure_module import PureModule
from hypergrad.model.second_derivative import TwiceDifferentiable
from hypergrad.model.trial import require_batches
from hypergrad.problem.base import InnerProblem, Parts
from hypergrad.problem.supervised.accepted import accepting, require_accepted, require_module
from hypergrad.problem.supervised.columns import column_readers
from hypergrad.problem.supervised.division_trial import try_division, try_sharing
from hypergrad.problem.supervised.effects_trial import require_read_targets, try_effects
from hypergrad.problem.supervised.examples import Batch
from hypergrad.problem.supervised.judged_problem import JudgedProblem
from hypergrad.problem.supervised.layered import layered
from hypergrad.problem.supervised.returned_loss import (
    num_logits,
    require_no_targets,
    require_outputs,
    returned,
)
from hypergrad.problem.supervised.site import require_weightable, site_of
from hypergrad.problem.supervised.streamed_pool import POOL


class Supervised(JudgedProblem):
    """A module trained on some examples and judged on others.

    g(w, λ) = 1/N Σ_i c_i u(z(w, x_i), y_i) + r(w) on train or a mini-batch of it, with the terms u and the denominator
    N of the loss ℓ = 1/N Σ_i u_i; f(w, λ) = ℓ(z(w, X), y) on dev.

    Args:
        model: z, any module from a batch of inputs to a batch of outputs; it is not changed. See `PureModule` for
            batch normalisation, dropout, tied and frozen parameters, and what it may return. Outputs of shape (n, 1)
            are read as (n,) if the targets have that shape.
        loss: ℓ(outputs, targets), such as `torch.nn.functional.cross_entropy`; a part of the problem, see `Criterion`.
            None if the model, called with all entries of a batch by name, returns an object with its `loss`.
        train: (X, y), a dict with the targets under "labels", a Dataset, or an iterable of such batches; see `read`. X
            may be several tensors, in a tuple for positional or a dict for keyword arguments of the model. All is kept
            in memory, in the dtype of the model, if it is not streamed; a data set that draws random numbers is read
            again in each epoch.
        dev: like train.
        test: like train, or None.
        hyperparameters: by name, effects such as `hg.L2()`, or an `hg.Hyperparameter` that a coefficient of the solver
            names, such as a learning rate.
        batch_size: examples of a training step, ≥ 1; None for all. Each epoch sees each example once.
        drop_last: whether each epoch leaves out its last batch if that is smaller; other examples in each epoch.
        fixed_batches: whether all epochs have the same batches of train, and samples of dev, in another order, as
            methods with a table of batches require; see docs/batches.md. It excludes `drop_last`.
        seed: of the batches and of random draws, such as dropout.
        micro_batch: most examples of a training step that are computed at once, ≥ 1; None for all. See docs/batches.md.
        dev_batch_size: most examples of dev and test that are computed at once, ≥ 1; None for all.
        dev_sample: examples of dev in the dev loss of an outer step, others in each, ≥ 1; None for all.
        probe: whether to compare the outputs and derivatives of the model on eight examples with those of a copy that
            has its parameters written into it. See docs/models.md for what is not known without it.
        recompute: blocks of the model whose activations are computed again in each backward pass, to save memory: True
            for all that repeat, or patterns of their names, such as ["layers.*"]. See `PureModule` and docs/memory.md.
        stream: whether data sets, and arrays, are read when they are used, and not kept in memory; see
            docs/streaming.md. None streams data sets of more than 1 GiB if there is a `batch_size`.
        num_workers: processes that read what is streamed, ≥ 0; 0 reads in this one.

    Raises:
        TypeError: if data, a hyperparameter or a setting has another type.
        ValueError: if data is empty, holds NaN, or does not fit the model, or an effect does not fit.

    Examples:
        >>> train, dev, test = hg.digits()
        >>> model, loss, decay = torch.nn.Linear(64, 10), torch.nn.CrossEntropyLoss(), hg.L2(init=0.01)
        >>> problem = hg.Supervised(model=model, loss=loss, train=train, dev=dev, hyperparameters={"decay": decay})
        >>> estimator = hg.Implicit(solver=hg.LBFGS())
        >>> found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
        >>> print(f"dev loss {found.outer_loss:.2f}, dF/dλ = {found.grad['decay']:.1f}")
        dev loss 0.64, dF/dλ = 28.9
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        train: Any,
        dev: Any,
        test: Any = None,
        hyperparameters: Mapping[str, Effect | Hyperparameter],
        batch_size: int | None = None,
        drop_last: bool = False,
        fixed_batches: bool = False,
        seed: int = 0,
        micro_batch: int | None = None,
        dev_batch_size: int | None = None,
        dev_sample: int | None = None,
        probe: bool = True,
        recompute: Recompute = False,
        stream: bool | None = None,
        num_workers: int = 0,
    ) -> None:
        require_module(model, loss)
        if not isinstance(probe, bool):
            raise TypeError(f"{type(self).__name__}.probe must be True or False, but it is {probe!r}.")
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        cut: Any = {"batch_size": batch_size, "drop_last": drop_last, "seed": seed, "fixed_batches": fixed_batches}
        streaming = Streaming(stream, num_workers, **cut, num_first=EXAMPLES)
        sources = {"train": train, "dev": dev} | ({} if test is None else {"test": test})
        parts = read_parts(sources, like, seed, streaming)
        super().__init__(parts, **cut)
        self.streaming = streaming
        streaming.require_use(parts)
        self.effects = CombinedEffects(hyperparameters)
        self.returns_loss = loss is None
        self.criterion = Criterion(returned if loss is None else loss).to(like)
        few, returns = {name: self._few(name) for name in parts}, LOSS if loss is None else OUTPUTS
        with accepting("train", few["train"]):
            self.model = PureModule(model, few["train"], seed, returns=returns, probe=probe, recompute=recompute)
        require_accepted(self.model, few)
        require_batches(self.model, few["train"], self.known_size("train"), batch_size, drop_last)
        self._readers = column_readers(self.model, few["train"]) if self._columns else frozenset()
        outputs = self._probe_outputs()
        known, (_, y) = {name: in_memory(part) for name, part in parts.items()}, self.first("train")
        of_loss = None if loss is None else try_loss(self.criterion, outputs, known)
        self.num_classes = num_logits(self.model, few["train"], y) if loss is None else of_loss
        if loss is not None:
            smoothed = self.num_classes if self.effects.changes_targets else None
            self.check_as_read(partial(require_read_targets, self.criterion, outputs, smoothed))
        if probe:
            require_still_padding(self.model, self.criterion, few["train"], y)
        self._twice = TwiceDifferentiable(self.model.keeping_activations(), self.criterion)
        self._hyperparameters = self.effects.spaces(site_of(self))
        self._try_effects(outputs)
        self.divide(micro_batch=micro_batch, dev_batch_size=dev_batch_size, dev_sample=dev_sample)
        try_division(self, few["train"], y)

    def with_model(self, model: PureModule) -> Self:
        other = super().with_model(model)
        other._twice = TwiceDifferentiable(model.keeping_activations(), self.criterion)
        return other

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
        return self.model.draws or self.effects.draws

    def settings(self) -> dict[str, object]:
        return super().settings() | {
            "model": self.model.module,
            "loss": self.criterion.description(),
            "effects": self.effects.declared,
            "batches": self.batches(),
        }

    def inner_parts(self, batch: Any) -> Parts | None:
        """As promised.

        Also raised, by what it calls: ValueError as by `inner_loss_and_gradient`, and not later, in a backward pass.
        """
        parts = super().inner_parts(batch)
        if parts is not None:
            self._require_twice()
        return parts

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        outputs = self._returned if self.returns_loss else self.outputs
        return self.loss_of_outputs(outputs(params, hparams, batch), params, hparams, batch)

    def inner_loss_and_gradient(self, params: Tensors, hparams: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
        """As promised.

        Also raised, by what it calls: ValueError if the gradient is to be differentiated again, and a layer of the
        model allows no such thing.
        """
        self._require_twice()
        return super().inner_loss_and_gradient(params, hparams, batch)

    def outputs(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        require_outputs(self.returns_loss)
        return self._returned(params, hparams, batch)

    def loss_of_outputs(self, outputs: Tensor, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        batch = batch or Batch()
        classes = self.step_targets(batch)
        y = self.effects.targets(classes, hparams, self.num_classes)
        weights = self.effects.weights(self.positions(batch.own_rows), classes, hparams)
        if weights is None:
            return self.effects.penalised(self.criterion.value(outputs, y, classes, batch.fraction), params, hparams)
        losses = self.criterion.each(outputs, y, classes, batch.fraction) * weights
        return self.effects.penalised(losses.mean(), params, hparams)

    def kronecker(self, params: Tensors, hparams: Tensors, batch: Any) -> Kronecker:
        return layered(self, params, hparams, batch)

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        batch = batch or Batch()
        X, y = self.part("dev", batch.rows)
        outputs = self._evaluate(params, hparams, self.arguments(X, y), None, batch.fraction)
        return self.judged(outputs, y, batch.fraction)

    def row_owners(self) -> Sequence[str]:
        # A subclass may use them in its losses.
        is_plain = type(self) is Supervised and self.examples is None and self.streamed("train") is None
        return self.effects.of_examples if is_plain else ()

    def on_ranks(self, ranks: Ranks) -> Self:
        """As promised; on a copy.

        Also raised, by what it calls: ValueError if the model or the loss cannot be shared.
        """
        normalises = try_sharing(self, *self.first("train"), ranks.world)
        other = super().on_ranks(ranks)
        other.has_batch_statistics = normalises
        return other

    def of_solver(self) -> list[str]:
        # A subclass may use them in its losses.
        return self.effects.without_effect if type(self) is Supervised else []

    def with_effect(self) -> list[str]:
        return [name for name in self.effects.declared if name not in self.effects.without_effect]

    def on_examples(self, train: Tensor, dev: Tensor) -> Self:
        other = super().on_examples(train, dev)
        other.has_dev = not torch.equal(train, dev)
        other._hyperparameters = self.effects.spaces(site_of(self, pooled=True))
        return other

    def joined(self, hparams: Tensors) -> tuple[InnerProblem, Tensors]:
        both, _ = super().joined(hparams)
        return both, self.effects.widened(hparams, self.size("dev"))

    def weighted(self, name: str, *, whole: bool = True) -> "Supervised":
        """The problem with one more hyperparameter: a weight for each train example.

        With weights of 1 it has the same loss. An example of weight 0 does not count. The sum of the terms of the loss
        is divided by the same number as before, so that the penalties keep their relative size.

        Args:
            name: of the weights.
            whole: whether training uses all of train at each step, and not the mini-batches of this problem.

        Also raised, by what it calls: ValueError if a hyperparameter has that name, if `on_examples` made this problem,
        or if the loss has no term for each example; with `whole`, also if training draws random numbers, or examples
        are streamed.
        """
        require_weightable(self, name, whole=whole)
        other = copy(self)
        other.batch_size = None if whole else self.batch_size
        other.effects = self.effects.with_more({name: ExampleWeights()})
        other._hyperparameters = other.effects.spaces(site_of(self))
        other._try_effects(other._probe_outputs())
        return other

    def _returned(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        """What the model returns for a training step: outputs, or its loss."""
        batch = batch or Batch()
        X, y = self.step_examples(batch)
        step = batch.draw
        if self.effects.draws:
            generator = torch.Generator().manual_seed(seed_of("augmentation", self.seed, step))
            X = self.effects.augmented(X, hparams, generator)
        return self._evaluate(params, hparams, self.arguments(X, y), step, batch.fraction)

    def _require_twice(self) -> None:
        if torch.is_grad_enabled():
            self._twice.require(self._few("train"), self.first("train")[1])

    def _few(self, name: str) -> Any:
        """The arguments of the model for a few examples of a part."""
        return self.arguments(*self.first(name))

    def _evaluate(
        self, params: Tensors, hparams: Tensors, X: Any, step: int | None, fraction: Fraction | None
    ) -> Tensor:
        values, X = params | self.effects.buffers(hparams), self.effects.inputs(X, hparams)
        return self.model(values, X, step, self.moments(fraction))

    def _try_effects(self, outputs: Tensor) -> None:
        """Try the loss with targets and weights as the effects make them."""
        if self.returns_loss:
            return require_no_targets(self.effects)
        y, dev = (self.known(name)[1] for name in POOL)
        hparams, pool = self.init_hparams(), joined(y, dev)
        return try_effects(self.criterion, self.effects, hparams, outputs, y, pool, self.num_classes)

    @torch.no_grad()
    def _probe_outputs(self) -> Tensor:
        return self.model(self.model.params(), self._few("train"), None)


def on_splits(data: Splits, **settings: Any) -> Supervised:
    """`Supervised` on given splits, for configs.

    Args:
        data: the train, dev and test parts, each with X of shape (n, …) and y of shape (n,).
        settings: of `Supervised`.
    """
    return Supervised(train=data.train, dev=data.dev, test=data.test, **settings)
