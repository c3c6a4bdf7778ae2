"""What `python -m hypergrad.influence method=…` does: train, score in blocks, and write."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten
from hypergrad.influence.base import InfluenceMethod
from hypergrad.influence.examples import Influences, require_supervised
from hypergrad.influence.implicit import in_blocks
from hypergrad.influence.progress import tracked
from hypergrad.influence.score_folder import ScoreFolder, digest
from hypergrad.influence.scores import on_all_of_train, prepared
from hypergrad.influence.tables import shown, write_table
from hypergrad.influence.terms import Terms
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.supervised.supervised import Supervised
from hypergrad.training.training import Training

if TYPE_CHECKING:
    from rich.console import Console

_BLOCK = 512
"""Examples at once where no method says how many."""
_OPTIMAL = 1e-4
"""Of ‖∇g‖, relative to the start, below which parameters count as a minimum in a remark. A judgement."""


@dataclass(frozen=True)
class Scoring:
    """A run that scores train examples; a killed one goes on in its folder.

    Attributes:
        problem: what is trained.
        method: how examples are scored.
        training: of the parameters, if the method does not train by itself.
        folder: of the run.
        console: for remarks and progress.
    """

    problem: Supervised
    method: InfluenceMethod
    training: Training
    folder: ScoreFolder
    console: "Console"

    @classmethod
    def of(
        cls, problem: InnerProblem, method: InfluenceMethod, training: Training, folder: Path, console: "Console"
    ) -> "Scoring":
        """The run, after a check of what would otherwise fail after training.

        Also raised, by what it calls: TypeError if the problem is no `Supervised`; ValueError if the influence of its
        examples cannot be computed.
        """
        given = require_supervised(problem)
        if not method.trains:
            on_all_of_train(given)
        return cls(given, method, training, ScoreFolder(folder), console)

    def params(self) -> Tensors:
        """The trained parameters, of before or trained now; it says how far they are from a minimum."""
        problem, hparams = self.problem, self.problem.init_hparams()

        def train() -> Tensors:
            return self.training.run(problem, hparams, problem.init_params()).params

        found = self.folder.params(self._key(self.training), train)
        if not self.method.trains:
            self._say_how_optimal(found)
        return found

    def mean(self, params: Tensors) -> Influences:
        """The influence of each train example on the mean dev loss."""
        terms = self._terms(params)
        change = prepared(self.method, self.problem, params, terms.hparams)(None)
        return self._described(terms, change)

    def each(self, params: Tensors, top: int, kind: str) -> Influences:
        """The influence on the mean dev loss, after that on each dev loss is written to `scores.npy` and `top`.

        Args:
            params: the trained parameters.
            top: examples to write for each dev example, the most harmful and the most helpful ones.
            kind: of the file `top`.
        """
        terms, folder = self._terms(params), self.folder
        rows = torch.arange(self.problem.size("dev")).split(self.method.dev_block)
        key = self._key(self.method, params)
        done = sum(folder.has_block(key, number) for number in range(len(rows)))
        if done:
            self.console.print(f"{done} of {len(rows)} blocks of dev examples were scored before", highlight=False)
        score = None
        change = params[next(iter(params))].new_zeros(self.problem.size("train"), device="cpu")
        tables = _Tops(terms, top)
        for number in tracked(len(rows), "block of dev examples", self.console, done):
            if score is None and not folder.has_block(key, number):
                score = prepared(self.method, self.problem, params, terms.hparams)
            block = folder.block(key, number, lambda part=rows[number], score=score: score(part))  # type: ignore[misc]
            change += block.sum(0)
            tables.add(rows[number], block)
        folder.join(folder.folder / "scores.npy", key, len(rows))
        write_table(folder.folder, "top", tables.columns, kind)
        folder.clear()
        return self._described(terms, change / self.problem.size("dev"))

    def _terms(self, params: Tensors) -> Terms:
        return Terms(self.problem, params, self.problem.init_hparams(), _BLOCK)

    def _described(self, terms: Terms, change: Tensor) -> Influences:
        return Influences(change, terms.train_losses(), self.problem.y, terms.dev_losses().mean().item())

    def _key(self, *settings: Any) -> str:
        """A digest of the problem, its data, λ, and further settings."""
        problem = self.problem
        data = {name: x for name, x in problem.named_buffers() if x is not None}
        return digest(problem.settings(), data, problem.init_params(), problem.init_hparams(), *settings)

    def _say_how_optimal(self, params: Tensors) -> None:
        oracle = Oracle(in_blocks(on_all_of_train(self.problem), _BLOCK), self.problem.init_hparams())
        after, before = (
            torch.linalg.vector_norm(flatten(oracle(w)[1])).item() for w in (params, self.problem.init_params())
        )
        part = after / before if before else 0.0
        remark = f"‖∇g‖ is {after:.1e} at the trained parameters, {part:.1e} of that at the start"
        if part > _OPTIMAL:
            remark += "; they are not a minimum, so influences are those of a local model (docs/influence.md)"
        self.console.print(remark, highlight=False)


class _Tops:
    """The most harmful and the most helpful train examples of each dev example.

    Args:
        terms: of the problem.
        top: of each, ≥ 1.
    """

    def __init__(self, terms: Terms, top: int) -> None:
        self._targets, self._dev_targets = terms.problem.y, terms.problem.targets("dev")
        self._dev_losses, self._top = terms.dev_losses().tolist(), min(top, len(terms.problem.y))
        names = ("dev_example", "dev_target", "dev_loss", "example", "target", "dev_loss_change_without")
        self.columns: dict[str, list[Any]] = {name: [] for name in names}

    def add(self, rows: Tensor, scores: Tensor) -> None:
        """Add some dev examples with their scores, shape (m, n)."""
        for row, one in zip(rows.tolist(), scores, strict=True):
            harmful, helpful = one.topk(self._top, largest=False).indices, one.topk(self._top).indices.flip(0)
            for i in torch.cat([harmful, helpful]).tolist():
                dev = (row, shown(self._dev_targets[row]), self._dev_losses[row])
                values: Sequence[Any] = (*dev, i, shown(self._targets[i]), one[i].item())
                for column, value in zip(self.columns.values(), values, strict=True):
                    column.append(value)
