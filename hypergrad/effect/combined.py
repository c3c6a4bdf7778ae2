"""All effects of a problem together."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.effect.base import Effect, Site
from hypergrad.effect.example_weights import ExampleWeights


class CombinedEffects:
    """The effects of supervised training; each is applied to the result of the one before.

    Args:
        declared: by name, effects, or an `hg.Hyperparameter` that a coefficient of the solver names.

    Raises:
        TypeError: if a value is neither, a name is no string, or there is no dict.
    """

    def __init__(self, declared: Mapping[str, Effect | Hyperparameter]) -> None:
        if not isinstance(declared, Mapping):
            raise TypeError(
                "hyperparameters must be a dict of effects by the names that you choose, such as "
                f"{{'l2': hg.L2(init=0.01)}}, but it is a {type(declared).__name__}; give each effect a name."
            )
        for name, one in declared.items():
            if not isinstance(name, str):
                raise TypeError(
                    f"hyperparameters must have strings as names, such as 'l2', but one is {name!r} of "
                    f"{type(name).__name__}; write str(name)."
                )
            if not isinstance(one, Effect | Hyperparameter):
                raise TypeError(
                    f"hyperparameters[{name!r}] must be an effect, such as hg.L2(init=0.01), or an hg.Hyperparameter "
                    f"that a coefficient of the solver names, but it is {_shown(one)}."
                )
        self.declared = dict(declared)
        self._initial, self._buffers, self._inputs, self._augmented, self._targets, self._weights, self._penalties = (
            _acting(self.declared, method)
            for method in ("initial", "buffers", "inputs", "augmented", "targets", "weights", "penalty")
        )

    def with_more(self, declared: Mapping[str, Effect | Hyperparameter]) -> "CombinedEffects":
        """These effects and some more."""
        return CombinedEffects(self.declared | dict(declared))

    def spaces(self, site: Site) -> dict[str, Hyperparameter]:
        """Every hyperparameter at a site.

        Raises:
            ValueError: if an effect does not fit there.
            TypeError: if a value in it has another type.
        """
        found: dict[str, Hyperparameter] = {}
        for name, one in self.declared.items():
            try:
                found[name] = one.space(site) if isinstance(one, Effect) else one
            except ValueError as error:
                raise ValueError(_at(name, one, error)) from error
            except TypeError as error:
                raise TypeError(_at(name, one, error)) from error
        return found

    @property
    def tunes_initial(self) -> bool:
        """Whether an effect changes the parameters from which training starts."""
        return bool(self._initial)

    def initial(self, params: Tensors, hparams: Tensors) -> Tensors:
        """The parameters from which training starts instead of `params`."""
        for name, effect in self._initial.items():
            params = effect.initial(hparams[name], params)
        return params

    def buffers(self, hparams: Tensors) -> Tensors:
        """The buffers of the model that are hyperparameters."""
        return {name: x for key, effect in self._buffers.items() for name, x in effect.buffers(hparams[key]).items()}

    def inputs(self, X: Tensor, hparams: Tensors) -> Tensor:
        """The inputs that the model sees instead of X."""
        for name, effect in self._inputs.items():
            X = effect.inputs(hparams[name], X)
        return X

    @property
    def input_names(self) -> list[str]:
        """The names of the hyperparameters that change the inputs, also in evaluation."""
        return list(self._inputs)

    @property
    def without_effect(self) -> list[str]:
        """The names of the hyperparameters that are no effects, but coefficients of the solver."""
        return [name for name, one in self.declared.items() if isinstance(one, Hyperparameter)]

    @property
    def of_examples(self) -> list[str]:
        """The names of the hyperparameters with a row for each train example, which only this example uses."""
        return [name for name, one in self._weights.items() if type(one) is ExampleWeights]

    @property
    def changes_targets(self) -> bool:
        """Whether an effect changes the targets of training."""
        return bool(self._targets)

    @property
    def weighs(self) -> bool:
        """Whether an effect gives weights to the examples."""
        return bool(self._weights)

    @property
    def draws(self) -> bool:
        """Whether an effect draws random numbers in a training step."""
        return bool(self._augmented)

    def augmented(self, X: Tensor, hparams: Tensors, generator: torch.Generator) -> Tensor:
        """The inputs that a training step sees instead of X."""
        for name, effect in self._augmented.items():
            X = effect.augmented(hparams[name], X, generator)
        return X

    def targets(self, y: Tensor, hparams: Tensors, num_classes: int | None) -> Tensor:
        """The targets of training instead of y."""
        for name, effect in self._targets.items():
            y = effect.targets(hparams[name], y, num_classes)
        return y

    def weights(self, rows: Tensor | None, y: Tensor, hparams: Tensors) -> Tensor | None:
        """The weights of the train examples `rows` (all when None) with targets y; None where all weights are 1."""
        total = None
        for name, effect in self._weights.items():
            weights = effect.weights(hparams[name], rows, y)
            total = weights if total is None else total * weights
        return total

    def widened(self, hparams: Tensors, num_more: int) -> Tensors:
        """λ for a train part with `num_more` further examples at its end."""
        return hparams | {name: effect.widened(hparams[name], num_more) for name, effect in self._weights.items()}

    def penalised(self, loss: Tensor, params: Tensors, hparams: Tensors) -> Tensor:
        """The loss with all penalties, shape ()."""
        for name, effect in self._penalties.items():
            loss = loss + effect.penalty(hparams[name], params)
        return loss


def _at(name: str, one: object, error: Exception) -> str:
    return f"hyperparameters[{name!r}], {type(one).__name__}: {error}"


def _shown(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}; call it: {value.__name__}(…)"
    return f"a {type(value).__name__}"


def _acting(declared: Mapping[str, Any], method: str) -> dict[str, Any]:
    """The effects that override a method of `Effect`."""
    default = getattr(Effect, method)
    return {k: v for k, v in declared.items() if isinstance(v, Effect) and getattr(type(v), method) is not default}
