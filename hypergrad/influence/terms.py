"""The losses of single examples of a supervised problem, and their gradients."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors, flatten, jvp, leaves
from hypergrad.core.errors import NonFiniteError
from hypergrad.influence.linear_calls import LinearCalls
from hypergrad.model.criterion import Fraction
from hypergrad.problem.supervised.division_trial import batch_statistics
from hypergrad.problem.supervised.examples import Batch
from hypergrad.problem.supervised.supervised import Supervised

_TRIED = 7
"""Examples on which products by layers are compared with derivatives."""
_MARGIN = 10.0
"""Their difference that is rounding, in units of √ε: a judgement, as a wrong order of examples changes all digits."""


@dataclass(frozen=True)
class Terms:
    """The terms of both losses at a point.

    Attributes:
        problem: without random draws, and with a loss that has a term for each example.
        params: w.
        hparams: λ.
        block: train examples at once, ≥ 1.
    """

    problem: Supervised
    params: Tensors
    hparams: Tensors
    block: int

    def train(self, params: Tensors, rows: slice) -> Tensor:
        """c_i u_i / N of some train examples, shape (b,); the sum over all of them is the data term of the loss."""
        problem, effects = self.problem, self.problem.effects
        batch = Batch(rows, fraction=self._fraction("train", rows))
        classes = problem.step_targets(batch)
        y = effects.targets(classes, self.hparams, problem.num_classes)
        positions = torch.arange(rows.start, rows.stop, device=classes.device)
        weights = effects.weights(problem.positions(positions), classes, self.hparams)
        terms = problem.criterion.each(problem.outputs(params, self.hparams, batch), y, classes, batch.fraction)
        return (terms if weights is None else terms * weights) / problem.size("train")

    def dev(self, params: Tensors, rows: slice) -> Tensor:
        """The losses of some dev examples, shape (b,); the mean over all of them is the dev loss."""
        problem, effects = self.problem, self.problem.effects
        X, y = problem.part("dev", rows)
        outputs = problem.model(params | effects.buffers(self.hparams), effects.inputs(X, self.hparams), None)
        return problem.criterion.each(outputs, y, None, self._fraction("dev", rows))

    @torch.no_grad()
    def train_losses(self) -> Tensor:
        """The loss of each train example, without effects, shape (n,); the mean is the train loss."""
        problem, each = self.problem, []
        for rows in _blocks(problem.size("train"), self.block):
            batch = Batch(rows, fraction=self._fraction("train", rows))
            outputs, y = problem.outputs(self.params, self.hparams, batch), problem.step_targets(batch)
            each.append(problem.criterion.each(outputs, y, None, batch.fraction))
        return torch.cat(each)

    @torch.no_grad()
    def dev_losses(self) -> Tensor:
        """The loss of each dev example, shape (m,)."""
        return torch.cat([self.dev(self.params, rows) for rows in _blocks(self.problem.size("dev"), self.block)])

    def require_finite(self) -> None:
        """Require that the gradient of each train example is finite, by its product with one vector.

        Also raised, by what it calls: NonFiniteError if one is not; it names the first.
        """
        self.products(self._random())

    def dev_gradient(self, row: int) -> Tensor:
        """The gradient of the loss of a dev example, flat, shape (p,).

        Also raised, by what it calls: NonFiniteError if it is NaN or infinite.
        """
        w = leaves(self.params)
        with torch.enable_grad():
            loss = self.dev(w, slice(row, row + 1)).squeeze(0)
            each = torch.autograd.grad(loss, list(w.values()), allow_unused=True, materialize_grads=True)
        found = flatten(dict(zip(w, each, strict=True)))
        _require_finite("dev", found.sum()[None], row)
        return found

    def products(self, V: Tensors) -> Tensor:
        """⟨v, ∇(c_i u_i / N)⟩ for m vectors v and all n train examples, shape (m, n).

        Args:
            V: of shape (m, *shape) for each parameter. No derivative is taken by a parameter where it is 0.

        Also raised, by what it calls: NonFiniteError if one is NaN or infinite.
        """
        first = next(iter(V.values()))
        out = first.new_empty(len(first), self.problem.size("train"))
        counted = {name for name, v in V.items() if v.any()}
        for rows in _blocks(out.shape[1], self.block):
            if self._layers:
                found, _ = self._by_layers(V, rows, self._layers, counted)
            else:
                found = self._by_derivative(V, rows, counted)
            _require_finite("train", found.sum(0), rows.start)
            out[:, rows] = found
        return out

    def _by_layers(
        self, V: Tensors, rows: slice, layers: Iterable[str], counted: Collection[str]
    ) -> tuple[Tensor, set[str]]:
        """The products with a few train examples, without their gradients in linear layers.

        Args:
            V: as for `products`.
            rows: of train.
            layers: the names of matrices that may be those of linear layers.
            counted: the names of the parameters where V is not 0.

        Returns:
            The products, shape (m, b), and the names of the matrices that were.
        """
        w = leaves(self.params)
        calls = LinearCalls(w, layers, rows.stop - rows.start)
        with torch.enable_grad():
            with calls:
                terms = self.train(w, rows)
            found, others = calls.products(terms, V)
            rest = [name for name in others if name in counted]
            if rest:
                ((other,), _) = jvp([terms], [w[name] for name in rest], [V[name] for name in rest])
                found = found + other
        return found.detach(), calls.served

    def _by_derivative(self, V: Tensors, rows: slice, counted: Collection[str]) -> Tensor:
        """The same by differentiating the terms along V."""
        w = leaves(self.params)
        along = [name for name in w if name in counted] or list(w)[:1]
        with torch.enable_grad():
            ((found,), _) = jvp([self.train(w, rows)], [w[name] for name in along], [V[name] for name in along])
        return found.detach()

    @cached_property
    def _layers(self) -> frozenset[str]:
        """The matrices of linear layers, if products by layers are right on a few examples: their order may differ."""
        rows, one = slice(0, min(self.block, _TRIED, self.problem.size("train"))), self._random()
        known, (found, served) = self._by_derivative(one, rows, one), self._by_layers(one, rows, self.params, one)
        off = (found - known).abs().max() / known.abs().max().clamp(min=torch.finfo(known.dtype).tiny)
        return frozenset(served) if off <= _MARGIN * torch.finfo(known.dtype).eps ** 0.5 else frozenset()

    def _random(self) -> Tensors:
        """A random vector, as one for each of m = 1."""
        generator = torch.Generator().manual_seed(0)
        return {
            name: torch.randn(1, *p.shape, generator=generator, dtype=p.dtype).to(p.device)
            for name, p in self.params.items()
        }

    @cached_property
    def _counts(self) -> dict[str, Tensor | None]:
        """The denominators of the losses of both parts."""
        criterion, targets = self.problem.criterion, self.problem.targets
        return {name: criterion.count(targets(name)) if criterion.counts else None for name in ("train", "dev")}

    def _fraction(self, name: str, rows: slice) -> Fraction:
        """What some examples are of the part."""
        return Fraction(None, (rows.stop - rows.start) / self.problem.size(name), self._counts[name])


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


def _require_finite(part: str, values: Tensor, start: int) -> None:
    """Require that no value of the examples from row `start` on is NaN or infinite.

    Raises:
        NonFiniteError: if one is.
    """
    bad = ~values.isfinite()
    if bad.any():
        row = start + int(bad.nonzero()[0])
        raise NonFiniteError(
            f"The loss of {part} example {row}, or its gradient, is NaN or infinite. Look at its inputs and its "
            "target, and leave it out if they are wrong."
        )
