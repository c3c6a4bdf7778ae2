"""The usual schedules: how a coefficient of a solver changes over the inner steps."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Union

import torch
from torch import Tensor

from hypergrad.core.validation import require_int, require_real


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """A coefficient that changes by a fixed rule: base · factor(t) in step t = 0, 1, … of a training run.

    Schedules compose as a product: `Warmup(base=Cosine(base=0.1, steps=1000), steps=50)`.

    Attributes:
        base: what the factor multiplies: a number, the name of a hyperparameter, or another schedule.
    """

    base: Union[float, str, "Schedule"]

    def __post_init__(self) -> None:
        if not isinstance(self.base, str | Schedule):
            require_real(self, "base")

    @abstractmethod
    def factor(self, t: int) -> float:
        """What multiplies the base in step t ≥ 0, from 0 to 1."""

    def __call__(self, t: int) -> float:
        """The value in step t; with base 1 a schedule is an `lr_lambda` of `torch.optim.lr_scheduler.LambdaLR`.

        Also raised, by what it calls: TypeError if the base is the name of a hyperparameter.
        """
        base = self._known_base()
        return self.factor(t) * (base(t) if isinstance(base, Schedule) else base)

    @property
    def length(self) -> int:
        """The number of inner steps that the whole schedule needs, ≥ 1."""
        return 1

    def values(self, num_steps: int) -> Tensor:
        """The first `num_steps` values, shape (num_steps,), such as the initial value of a schedule that is tuned.

        Also raised, by what it calls: TypeError if the base is the name of a hyperparameter.
        """
        base, factors = self._known_base(), torch.tensor([self.factor(t) for t in range(num_steps)])
        return factors * (base.values(num_steps) if isinstance(base, Schedule) else base)

    def _known_base(self) -> Union[float, "Schedule"]:
        """The base, whose value is known here.

        Raises:
            TypeError: if it is the name of a hyperparameter.
        """
        if isinstance(self.base, str):
            raise TypeError(
                f"The values of a schedule need a base that is a number, but {type(self).__name__}.base is the name "
                f"{self.base!r}."
            )
        return self.base


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from 1 down to `end`: factor(t) = end + (1 − end) (1 + cos(π t / steps)) / 2, then `end`.

    Attributes:
        steps: inner steps until `end` is reached, ≥ 1 and at most the steps of the run.
        end: the last factor, from 0 to 1.

    Examples:
        >>> hg.Cosine(base=0.1, steps=4).values(4)
        tensor([0.1000, 0.0854, 0.0500, 0.0146])
        >>> solver = hg.Momentum(lr=hg.Cosine(base="rate", steps=100))  # the hyperparameter `rate` is tuned

    Source: Loshchilov & Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR (2017).
    """

    steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int(self, "steps", least=1)
        require_real(self, "end", least=0, most=1)

    def factor(self, t: int) -> float:
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * min(t, self.steps) / self.steps)) / 2

    @property
    def length(self) -> int:
        return self.steps


@dataclass(frozen=True, kw_only=True)
class StepDecay(Schedule):
    """A fall by the same ratio at regular intervals: factor(t) = ratio^⌊t / every⌋.

    Attributes:
        every: inner steps between two falls, ≥ 1.
        ratio: the factor after a fall divided by the one before it, > 0 and ≤ 1.
    """

    every: int
    ratio: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int(self, "every", least=1)
        require_real(self, "ratio", above=0, most=1)

    def factor(self, t: int) -> float:
        return self.ratio ** (t // self.every)

    @property
    def length(self) -> int:
        return self.every


@dataclass(frozen=True, kw_only=True)
class Warmup(Schedule):
    """A straight rise to 1: factor(t) = min(1, (t + 1) / steps).

    Attributes:
        steps: inner steps until the full base is reached, ≥ 1 and at most the steps of the run.

    Source: Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour" (2017).
    """

    steps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int(self, "steps", least=1)

    def factor(self, t: int) -> float:
        return min(1.0, (t + 1) / self.steps)

    @property
    def length(self) -> int:
        return self.steps
