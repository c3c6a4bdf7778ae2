"""The losses of single examples of a supervised problem, and their derivatives."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, jvp, leaves
from hypergrad.core.errors import NonFiniteError
from hypergrad.model.criterion import Fraction
from hypergrad.problem.supervised.division_trial import batch_statistics
from hypergrad.problem.supervised.examples import Batch
from hypergrad.problem.supervised.supervised import Supervised


@dataclass(frozen=True)
class Terms:
    """The terms of both losses at fixed hyperparameters.

    Attributes:
        problem: without random draws, and with a loss that has a term for each example.
        hparams: λ.
    """

    problem: Supervised
    hparams: Tensors

    def train(self, params: Tensors, rows: slice) -> Tensor:
        """c_i u_i / N of some train examples, shape (b,); the sum over all of them is the data term of the loss."""
        problem, effects = self.problem, self.problem.effects
        batch = Batch(rows, fraction=self._fraction("train", rows))
        classes = problem.step_targets(batch)
        y = effects.targets(classes, self.hparams, problem.num_classes)
        weights = effects.weights(problem.positions(rows), classes, self.hparams)
        terms = problem.criterion.each(problem.outputs(params, self.hparams, batch), y, classes, batch.fraction)
        return (terms if weights is None else terms * weights) / problem.size("train")

    def dev(self, params: Tensors, row: int) -> Tensor:
        """The loss of a dev example, shape (); the mean over all of them is the dev loss."""
        problem, effects, rows = self.problem, self.problem.effects, slice(row, row + 1)
        X, y = problem.part("dev", rows)
        outputs = problem.model(params | effects.buffers(self.hparams), effects.inputs(X, self.hparams), None)
        return problem.criterion.each(outputs, y, None, self._fraction("dev", rows)).squeeze(0)

    def dev_gradient(self, params: Tensors, row: int) -> list[Tensor]:
        """The gradient of the loss of a dev example, shaped as the parameters.

        Raises:
            NonFiniteError: if it is NaN or infinite.
        """
        w = leaves(params)
        with torch.enable_grad():
            found = torch.autograd.grad(self.dev(w, row), list(w.values()), allow_unused=True, materialize_grads=True)
        if not all(bool(x.isfinite().all()) for x in found):
            raise NonFiniteError(_non_finite("dev", row))
        return list(found)

    def products(self, params: Tensors, V: list[Tensor], block: int) -> Tensor:
        """⟨v, ∇(c_i u_i / N)⟩ for m vectors v and all n train examples, shape (m, n).

        Args:
            params: w.
            V: tensors of shape (m, *shape) for each of the parameters.
            block: train examples at once, ≥ 1.

        Raises:
            NonFiniteError: if one is NaN or infinite, though v is not.
        """
        n = self.problem.size("train")
        out = V[0].new_empty(len(V[0]), n)
        for rows in _blocks(n, block):
            w = leaves(params)
            with torch.enable_grad():
                terms = self.train(w, rows)
                ((found,), _) = jvp([terms], list(w.values()), V)
            bad = ~found.isfinite().all(0)
            if bad.any():
                raise NonFiniteError(_non_finite("train", rows.start + int(bad.nonzero()[0])))
            out[:, rows] = found.detach()
        return out

    def _fraction(self, name: str, rows: slice) -> Fraction:
        """What some examples are of the part."""
        size, criterion = self.problem.size(name), self.problem.criterion
        count = criterion.count(self.problem.targets(name)) if criterion.counts else None
        return Fraction(None, (rows.stop - rows.start) / size, count)


def require_separable(problem: Supervised) -> None:
    """Require a model whose outputs for an example do not depend on the others.

    Raises:
        ValueError: if a layer normalises by the statistics of its batch.
    """
    name = batch_statistics(problem.model.module)
    if name:
        raise ValueError(
            f"Influence in blocks of examples needs outputs that do not depend on the other examples, but the layer "
            f"{name!r} normalises by the statistics of its batch. Call eval() on it, which fixes its running averages, "
            "or replace it by nn.GroupNorm."
        )


def _blocks(size: int, block: int) -> Iterator[slice]:
    """Consecutive rows, at most `block` at a time."""
    return (slice(start, min(start + block, size)) for start in range(0, size, block))


def _non_finite(part: str, row: int) -> str:
    return (
        f"The gradient of the loss of {part} example {row} is NaN or infinite. Look at its inputs and target, or leave "
        "it out of the data."
    )
