"""L2 penalties."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.effect.scope import Scoped


@dataclass(frozen=True, kw_only=True)
class L2(Scoped):
    """The penalty r(w) = Σ_j λ_j w_j², one λ for all entries, or one per tensor, feature, output or entry.

    With an `L1` beside it, this is the elastic net.

    Examples:
        >>> train, dev, test = hg.digits()
        >>> model, loss = torch.nn.Linear(64, 10), torch.nn.CrossEntropyLoss()
        >>> penalties = {"all": hg.L2(), "pixel": hg.L2(per="feature", on="weight")}
        >>> problem = hg.Supervised(model=model, loss=loss, train=train, dev=dev, hyperparameters=penalties)
        >>> {name: tuple(λ.shape) for name, λ in problem.init_hparams().items()}
        {'all': (), 'pixel': (64,)}

    Source: Hoerl & Kennard, "Ridge regression", Technometrics (1970).
    """

    init: float = 1e-3

    def penalty(self, value: Tensor, params: Tensors) -> Tensor:
        return self.total(value, params, torch.square)
