"""A module trained on examples, as it is judged: on dev and test, with the effects that count in evaluation."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.data.minibatch import even_batches
from hypergrad.effect.combined import CombinedEffects
from hypergrad.model.accuracy import hits
from hypergrad.model.convention import LOSS
from hypergrad.model.criterion import Criterion
from hypergrad.problem.supervised.module_problem import ModuleProblem
from hypergrad.problem.supervised.returned_loss import with_labels
from hypergrad.problem.supervised.spread import SpreadProblem


class JudgedProblem(ModuleProblem, SpreadProblem):
    """A problem on examples that trains a module of the user with a loss and effects."""

    criterion: Criterion
    effects: CombinedEffects
    num_classes: int | None
    """K if the targets are classes, else None."""
    returns_loss: bool
    """Whether the model returns its loss."""
    has_dev = True
    """Whether dev holds other examples than train."""

    def metrics(self, params: Tensors, hparams: Tensors) -> dict[str, Tensor | float]:
        """Loss and accuracy on test, and the accuracy on dev, if there are such examples and such targets.

        If the model has running averages, these are numbers of `trained_module(params, hparams)`, and
        `dev_loss_in_eval` is its dev loss. The outer loss, for which λ is tuned, uses the statistics of dev instead.
        """
        found: dict[str, Tensor | float] = {}
        if self.has("test"):
            found = {f"test_{name}": value for name, value in self._measured("test", params, hparams).items()}
        if self.has_dev and (self._classifies or self.model.averages):
            on_dev = self._measured("dev", params, hparams)
            if "accuracy" in on_dev:
                found["dev_accuracy"] = on_dev["accuracy"]
            if self.model.averages:
                found["dev_loss_in_eval"] = on_dev["loss"]
        return found

    def test_losses(self, params: Tensors, hparams: Tensors) -> Tensor | None:
        if self.returns_loss or not self.has("test"):
            return None
        judge = self.judged_outputs(params, hparams)
        try:
            each = [self.criterion.each(judge(X), y, None, part) for X, y, part in self.in_parts("test")]
            return each[0] if len(each) == 1 else torch.cat(each)
        except ValueError:
            return None  # the loss has no term for each example

    def train_inputs(self, hparams: Tensors) -> Iterator[Any]:
        each = even_batches(size=self.size("train"), batch_size=self.batch_size, seed=self.seed)
        for X, y in self.parts_of("train", each):
            yield self.model_inputs(self.arguments(X, y), hparams)

    def model_inputs(self, X: Any, hparams: Tensors) -> Any:
        return self.effects.inputs(X, hparams)

    def tuned_buffers(self, hparams: Tensors) -> Tensors:
        return self.effects.buffers(hparams)

    def changes_inputs(self) -> list[str]:
        return self.effects.input_names

    def arguments(self, X: Any, y: Tensor) -> Any:
        """What the model is called with."""
        return with_labels(X, y) if self.returns_loss else X

    @property
    def _classifies(self) -> bool:
        return self.num_classes is not None or self.criterion.has_logits

    def _measured(self, name: str, params: Tensors, hparams: Tensors) -> dict[str, Tensor]:
        """The loss on a part, and the accuracy if the targets are classes."""
        judge, losses, rights = self.judged_outputs(params, hparams), [], []
        for X, y, part in self.in_parts(name):
            inputs = self.arguments(X, y)
            outputs = judge(inputs) if self._classifies or not self.returns_loss else None
            result: Any = judge(inputs, LOSS) if self.returns_loss else outputs
            losses.append(self.criterion.value(result, y, None, part) * (1.0 if part is None else part.share))
            rights.append(None if outputs is None else hits(self.criterion, outputs, y, self.num_classes))
        found = {"loss": sum(losses[1:], start=losses[0])}
        if any(right is None for right in rights):
            return found
        return found | {"accuracy": torch.cat(rights).double().mean()}
