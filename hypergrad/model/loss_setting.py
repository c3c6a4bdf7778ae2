"""The settings of a loss, such as its reduction: read and changed, for a module, a function and a partial."""

import inspect
from copy import copy, deepcopy
from functools import partial
from typing import Any

from torch import Tensor, nn

from hypergrad.core.torch_internals.modules import set_submodules, submodules_of
from hypergrad.core.torch_internals.trees import tree_leaves


class PartialLoss(nn.Module):
    """A `functools.partial` whose tensors move with the module that holds it.

    Args:
        given: the partial; it is not changed.

    Raises:
        TypeError: if it holds a tensor in another way than as the value of a keyword.
    """

    def __init__(self, given: partial) -> None:
        super().__init__()
        self.function: Any = deepcopy(given.func) if isinstance(given.func, nn.Module) else given.func
        self._arguments, self._keywords, self._tensors = given.args, dict[str, Any](), dict[str, str]()
        for name, value in given.keywords.items():
            if isinstance(value, Tensor):
                self._tensors[name] = f"{name}_of_partial"
                self.register_buffer(self._tensors[name], value.detach().clone())
            else:
                self._keywords[name] = value
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves([self._arguments, self._keywords])):
            raise TypeError(
                "The loss is a functools.partial with a tensor among its positional arguments, or inside a list or "
                "dict, so that it could not move to another dtype or device. Give each tensor by a keyword of its own, "
                "or write the loss as an nn.Module that registers them by register_buffer."
            )

    def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss, with the settings of the partial."""
        return self.function(*self._arguments, outputs, y, **self.keywords)

    @property
    def keywords(self) -> dict[str, Any]:
        """The keyword arguments by name."""
        return self._keywords | {name: getattr(self, held) for name, held in self._tensors.items()}

    def changed(self, **settings: Any) -> "PartialLoss":
        """This loss with other settings; it shares the tensors."""
        other = copy(self)
        if isinstance(self.function, nn.Module):
            set_submodules(other, submodules_of(self) | {"function": changed(self.function, **settings)})
        else:
            other._keywords = self._keywords | settings
        return other


def setting(loss: Any, name: str) -> Any:
    """The value of a setting: an attribute of a module, a keyword of a partial, or a default; None if there is none."""
    if isinstance(loss, PartialLoss):
        return loss.keywords[name] if name in loss.keywords else setting(loss.function, name)
    if isinstance(loss, nn.Module):
        return getattr(loss, name, None)
    parameter = _parameters(loss).get(name)
    return None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default


def changed(loss: Any, **settings: Any) -> Any:
    """The loss with other settings, where it has settings of these names; it shares its tensors."""
    if isinstance(loss, PartialLoss):
        function = loss.function
        known = {k: v for k, v in settings.items() if isinstance(function, nn.Module) or k in _parameters(function)}
        return loss.changed(**known)
    if isinstance(loss, nn.Module):
        other: Any = copy(loss)
        for name, value in settings.items():
            if hasattr(other, name):
                setattr(other, name, value)
        return other
    known = {name: value for name, value in settings.items() if name in _parameters(loss)}
    return partial(loss, **known) if known else loss


def _parameters(function: Any) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except ValueError:  # a function of C has none
        return {}
