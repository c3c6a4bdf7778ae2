"""A module trained on examples, as it is judged: on dev and test, with the effects that count in evaluation."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.data.minibatch import even_batches
from hypergrad.effect.combined import CombinedEffects
from hypergrad.model.accuracy import hits
from hypergrad.model.convention import LOSS
from hypergrad.model.criterion import Criterion
from hypergrad.problem.supervised.examples import ExampleProblem
from hypergrad.problem.supervised.module_problem import ModuleProblem
from hypergrad.problem.supervised.returned_loss import with_labels


class JudgedProblem(ModuleProblem, ExampleProblem):
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
        X, y = self.part("test")
        try:
            return self.criterion.each(self.judged_outputs(params, hparams)(X), y)
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
        X, y = self.part(name)
        judge, inputs = self.judged_outputs(params, hparams), self.arguments(X, y)
        if not self.returns_loss:
            outputs = judge(inputs)
            loss = self.criterion.value(outputs, y)
        else:
            outputs = judge(inputs) if self._classifies else None
            loss = self.criterion.value(judge(inputs, LOSS), y)
        right = None if outputs is None else hits(self.criterion, outputs, y, self.num_classes)
        return {"loss": loss} | ({} if right is None else {"accuracy": right.double().mean()})
