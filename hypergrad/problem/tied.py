"""The same problem with fewer hyperparameters."""

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.wrapper import Wrapper


class Tied(Wrapper):
    """A problem whose vector hyperparameter λ, shape (p,), has only d different values: entry j has value ⌊j d / p⌋.

    Each d from 1 to p gives a search space, which is a subset of the space of any multiple of d. So searches can be
    compared over the number of hyperparameters, while the training stays the same.

    Args:
        problem: what is tuned; its other hyperparameters are not changed.
        name: of the hyperparameter, which starts at one value for all of its entries.
        groups: d, from 1 to p.

    Raises:
        ValueError: if the problem has an L1 penalty or no such hyperparameter, if that is not a vector or does not
            start at one value, or if d is out of range.
    """

    group: Tensor

    def __init__(self, problem: InnerProblem, *, name: str, groups: int) -> None:
        super().__init__(problem)
        spaces = problem.hyperparameters()
        if name not in spaces:
            raise ValueError(f"Tied.name must be one of {', '.join(spaces)}, but it is {name!r}.")
        start = problem.init_hparams()[name]
        if start.ndim != 1 or not 1 <= groups <= len(start) or (start != start[0]).any():
            raise ValueError(
                f"Tied.groups must be from 1 to the length of a vector hyperparameter that starts at one value, but it "
                f"is {groups}, and {name!r} has shape {tuple(start.shape)} and starts at {start.unique().numel()}."
            )
        self.name = name
        self.register_buffer("group", torch.arange(len(start)) * groups // len(start))
        one = Hyperparameter(start[0].item(), shape=(groups,), constraint=spaces[name].constraint)
        self._hyperparameters = spaces | {name: one}

    def untied(self, hparams: Tensors) -> Tensors:
        return hparams | {self.name: hparams[self.name][self.group]}

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return self._hyperparameters
