"""Problems that train a module of the user, which can be taken home."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import Any, Self

from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors
from hypergrad.core.torch_internals.modules import set_submodules, submodules_of
from hypergrad.model.convention import OUTPUTS
from hypergrad.model.pure_module import PureModule
from hypergrad.problem.base import InnerProblem


class ModuleProblem(InnerProblem):
    """A problem whose parameters are those of a module, `model`."""

    model: PureModule

    def with_model(self, model: PureModule) -> Self:
        """The same problem, which trains another module in the place of its own."""
        other = copy(self)
        set_submodules(other, submodules_of(self) | {"model": model})
        return other

    @abstractmethod
    def train_inputs(self, hparams: Tensors) -> Iterator[Any]:
        """The train inputs in batches, as evaluation sees them: running averages are formed over these."""

    def model_inputs(self, X: Any, hparams: Tensors) -> Any:
        """The inputs that the model sees in evaluation instead of X."""
        return X

    def tuned_buffers(self, hparams: Tensors) -> Tensors:
        """The buffers of the model that are hyperparameters, by name."""
        return {}

    def trained_module(self, params: Tensors, hparams: Tensors) -> nn.Module:
        """The user's module in `eval()` mode with trained parameters, tuned buffers, and running averages over train.

        The averages are cumulative over the batches of `train_inputs`, without augmentation and dropout.

        Raises:
            ValueError: if a hyperparameter changes the inputs, which is not part of the module.
        """
        changed = self.changes_inputs()
        if changed:
            raise ValueError(
                f"The hyperparameter {changed[0]!r} changes the inputs of the model, also in evaluation, so the module "
                "alone does not give the outputs that were judged. Load problem.state_dicts(params, hparams)['model'] "
                "into your module, and call it on problem.model_inputs(X, hparams)."
            )
        return self._trained(params, hparams)

    def state_dicts(self, params: Tensors, hparams: Tensors) -> dict[str, Mapping[str, Any]]:
        return {"model": self._trained(params, hparams).state_dict()}

    def judged_outputs(self, params: Tensors, hparams: Tensors) -> Callable[..., Tensor]:
        """The outputs that metrics judge, as a function of inputs: those of the trained module in `eval()`.

        It has an argument `entry`, what to use of an object that the module returns.
        """
        if not self.model.averages:
            buffers = self.tuned_buffers(hparams)
            return lambda X, entry=OUTPUTS: self.model.returning(entry)(
                params | buffers, self.model_inputs(X, hparams), None
            )
        trained = self._trained(params, hparams)
        return lambda X, entry=OUTPUTS: self.model.returning(entry).outputs_of(trained, self.model_inputs(X, hparams))

    def _trained(self, params: Tensors, hparams: Tensors) -> nn.Module:
        return self.model.trained(params | self.tuned_buffers(hparams), self.train_inputs(hparams))
