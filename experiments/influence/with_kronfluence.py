"""kronfluence: EK-FAC, with its default damping and with a tenth of the mean eigenvalue of each layer."""
# pyright: reportMissingImports=false

import logging
import tempfile
from functools import partial
from typing import Any

import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from experiments.influence.handed import Handed, serve

BATCH = 250
"""Train examples at once; dev examples at once are all of the 100."""


class Classification(Task):
    """Cross-entropy, on targets of the data or drawn from the model.

    Args:
        names: of the layers that have factors.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self._names = names

    def get_influence_tracked_modules(self) -> list[str]:
        """Those layers."""
        return self._names

    def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
        """The sum over the batch."""
        X, y = batch
        z = model(X)
        if sample:
            y = torch.multinomial(z.detach().softmax(-1), num_samples=1).flatten()
        return cross_entropy(z, y, reduction="sum")

    def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
        """The dev loss."""
        return self.compute_train_loss(batch, model)


def scores(handed: Handed, damping: float | None) -> Tensor:
    """∇f_jᵀ (G + δI)⁻¹ ∇ℓ_i for dev example j and train example i."""
    served = nn.Linear, nn.Conv2d  # and no classes derived from them, which kronfluence does not know
    task = Classification([name for name, part in handed.model.named_modules() if type(part) in served])
    model = prepare_model(handed.model, task)
    train, dev = TensorDataset(*handed.train), TensorDataset(*handed.dev)
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer("lds", model, task, cpu=True, disable_tqdm=True, output_dir=folder, log_level=logging.ERROR)
        analyzer.fit_all_factors("f", train, BATCH, factor_args=FactorArguments(strategy="ekfac"))
        arguments = ScoreArguments(damping_factor=damping)
        analyzer.compute_pairwise_scores("s", "f", dev, train, len(dev), BATCH, score_args=arguments)
        found = analyzer.load_pairwise_scores("s")
    return found["all_modules"].clone()


if __name__ == "__main__":
    torch.backends.mha.set_fastpath_enabled(False)  # it reads weights of layers that kronfluence has wrapped
    serve({"kronfluence": partial(scores, damping=None), "kronfluence-default": partial(scores, damping=1e-8)})
