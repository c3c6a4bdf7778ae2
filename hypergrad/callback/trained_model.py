"""A trained model with the hyperparameters of its training, to use elsewhere."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from hypergrad.callback.hparams_file import save_hparams
from hypergrad.core.autodiff import Tensors
from hypergrad.core.display import assigned, on_screen
from hypergrad.problem.base import InnerProblem


@dataclass(frozen=True, repr=False)
class TrainedModel:
    """Trained parameters, and λ.

    Attributes:
        hparams: λ in natural units.
        params: the parameters trained there.
        problem: on which they were trained.
        losses: losses and metrics by name.
        origin: where it comes from, in words.
        labels: names of the entries of λ, by hyperparameter; may be empty.
        tuned: λ as it was tuned, if training on more examples requires other entries, such as weights of examples.
    """

    hparams: Tensors
    params: Tensors
    problem: InnerProblem = field(compare=False)
    losses: Mapping[str, float]
    origin: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tuned: Tensors | None = None

    def __repr__(self) -> str:
        """The losses and hyperparameters, and not the parameters."""
        numbers = [f"{name} {value:.6g}" for name, value in self.losses.items()]
        return on_screen("TrainedModel", [self.origin, *numbers, *assigned(self.hparams)])

    def module(self) -> nn.Module:
        """The user's module in `eval()` mode with these parameters, whose numbers are those of the metrics.

        Also raised, by what it calls: NotImplementedError if the problem trains no module; ValueError if there is one
        for each fold, or a hyperparameter changes the inputs.
        """
        return self.problem.trained_module(self.params, self.hparams)

    def save(self, folder: str | Path, *, writes: bool = True) -> None:
        """Write `hparams.yaml` and `model.pt`, or `model-fold-0.pt` and so on for folds.

        `torch.load("model.pt", weights_only=True)` is a state_dict for `load_state_dict` of the user's module, on the
        CPU; if the problem trains no module, it holds `params`.

        The two are replaced together: a process that is killed in between leaves no `hparams.yaml`, and a full disk
        those that were there.

        Args:
            folder: created when missing.
            writes: whether to write. Of ranks that each hold shards of the parameters, all must call it, and the first
                alone writes.
        """
        states = self.problem.state_dicts(self.params, self.hparams)
        if not writes or (self.problem.param_shards() and not self.problem.peers.is_first):
            return
        models = {f"{name}.pt": partial(_write, state) for name, state in states.items()}
        about: dict[str, Any] = {"origin": self.origin, "models": [*models]}
        changed = self.problem.changes_inputs()
        if changed:
            about["inputs"] = f"The models expect inputs that are changed by {', '.join(changed)}."
        about |= {"losses": {name: float(value) for name, value in self.losses.items()}}
        save_hparams(Path(folder), self.tuned or self.hparams, self.labels, about, models)


def _write(state: Mapping[str, Any], file: IO[bytes]) -> None:
    torch.save(_on_cpu(state), file)


def _on_cpu(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same dict with its tensors on the CPU; a state_dict keeps its versions."""
    kept: Any = copy(state)
    for name, value in state.items():
        if isinstance(value, Tensor):
            kept[name] = value.detach().cpu()
    return kept
