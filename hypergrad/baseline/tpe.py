"""Tree-structured Parzen estimators."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hypergrad.baseline.base import Search


@dataclass(frozen=True, kw_only=True)
class TPE(Search):
    """Tree-structured Parzen estimators of Optuna, which gets the start as its first trial.

    Source: Bergstra, Bardenet, Bengio & Kégl, "Algorithms for hyper-parameter optimization", NeurIPS (2011).
    """

    def points(self, start: Tensor, num_trials: int | None, losses: list[float]) -> Iterator[Tensor]:
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
        for _ in itertools.count() if num_trials is None else range(num_trials):
            trial = study.ask(box)
            yield torch.tensor([trial.params[str(i)] for i in range(len(start))], dtype=start.dtype)
            study.tell(trial, losses[-1])
