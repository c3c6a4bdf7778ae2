"""What people use without gradients: grid search, random search and TPE, on the same problems."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergrad.validation import require_int, require_real


@dataclass(frozen=True, kw_only=True)
class Search(ABC):
    """Proposes points in a box around the start, in unconstrained values: u₀ ± width in each of n entries.

    For a positive hyperparameter u is log λ, and a width of 7 is a factor of e⁷ ≈ 1100 to both sides. The first point
    is the start itself, the default that a search has to beat.

    Attributes:
        width: half the side of the box, > 0.
        seed: of what is drawn.
    """

    width: float = 7.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_real(self, "width", above=0)
        require_int(self, "seed", least=0)

    @abstractmethod
    def points(self, start: Tensor, num_trials: int, losses: list[float]) -> Iterator[Tensor]:
        """The points to try after the start, each of shape (n,).

        Args:
            start: u₀, shape (n,).
            num_trials: how many are to come, ≥ 0.
            losses: the dev losses of the points so far, that of the start first; whoever asks for the next point has
                appended that of the last.
        """


@dataclass(frozen=True, kw_only=True)
class Grid(Search):
    """The centres of a regular grid of k^n ≤ `num_trials` cells of the box, row by row."""

    def points(self, start: Tensor, num_trials: int, losses: list[float]) -> Iterator[Tensor]:
        n = len(start)
        k = int((num_trials + 0.5) ** (1 / n))
        if k < 2 and num_trials > 0:
            raise ValueError(
                f"A grid over {n} hyperparameters needs at least 2^{n} = {2**n:.3g} trials, but the budget is "
                f"{num_trials}; use method=random or method=tpe, or a gradient."
            )
        ticks = (torch.arange(k, dtype=start.dtype) + 0.5) / max(k, 1) * 2 - 1
        for cell in itertools.product(ticks.tolist(), repeat=n):
            yield start + self.width * torch.tensor(cell, dtype=start.dtype)


@dataclass(frozen=True, kw_only=True)
class Random(Search):
    """Independent uniform points of the box.

    Source: Bergstra & Bengio, "Random search for hyper-parameter optimization", JMLR (2012).
    """

    def points(self, start: Tensor, num_trials: int, losses: list[float]) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(num_trials):
            yield start + self.width * (2 * torch.rand(len(start), generator=generator, dtype=start.dtype) - 1)


@dataclass(frozen=True, kw_only=True)
class TPE(Search):
    """Tree-structured Parzen estimators, by Optuna, which is told the start.

    Source: Bergstra, Bardenet, Bengio & Kégl, "Algorithms for hyper-parameter optimization", NeurIPS (2011).
    """

    def points(self, start: Tensor, num_trials: int, losses: list[float]) -> Iterator[Tensor]:
        try:
            import optuna
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{error}. method=tpe needs Optuna: pip install 'torch-hypergrad[baseline]'."
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=self.seed))
        low, high = (start - self.width).tolist(), (start + self.width).tolist()
        box: dict[str, Any] = {
            str(i): optuna.distributions.FloatDistribution(a, b) for i, (a, b) in enumerate(zip(low, high, strict=True))
        }
        values = {str(i): x for i, x in enumerate(start.tolist())}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=box, value=losses[0]))
        for _ in range(num_trials):
            trial = study.ask(box)
            yield torch.tensor([trial.params[str(i)] for i in range(len(start))], dtype=start.dtype)
            study.tell(trial, losses[-1])


METHODS = {"grid": Grid, "random": Random, "tpe": TPE}
