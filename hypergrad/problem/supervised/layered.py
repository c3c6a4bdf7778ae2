"""The Kronecker-factored curvature of supervised training."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors, detach, flatten, leaves
from hypergrad.core.kronecker import Kronecker, KroneckerSettings, Layer
from hypergrad.core.operator import CannotApproximateError
from hypergrad.core.seed import seed_of
from hypergrad.model.criterion import Criterion
from hypergrad.model.curvature import Examples, kronecker_layers, require_known
from hypergrad.model.steep_directions import steep_directions
from hypergrad.problem.supervised.examples import Batch


def layered(problem: Any, params: Tensors, hparams: Tensors, batch: Batch | None) -> Kronecker:
    """The curvature of a `Supervised`: that of the data term by its layers, and the diagonal of that of the penalties.

    Args:
        problem: it is not changed.
        params: w.
        hparams: λ.
        batch: an inner batch.
    """
    at = (problem, params, hparams, batch)
    return Kronecker(partial(_factors, *at), partial(_diagonal, *at), rows=partial(_rows, *at))


def _factors(
    problem: Any, params: Tensors, hparams: Tensors, batch: Batch | None, settings: KroneckerSettings
) -> list[Layer]:
    """The factors of the layers, from the batch and maybe some further ones."""
    _require_outputs(problem)
    batches = [batch, *(problem.inner_batch(k) for k in range(settings.num_batches - 1))]
    data = [some for one in batches for some in _examples(problem, hparams, one)]
    values = params | detach(problem.effects.buffers(hparams))
    return kronecker_layers(problem.model, problem.criterion, values, data, settings)


def _rows(problem: Any, params: Tensors, hparams: Tensors, batch: Batch | None, rank: int) -> Iterator[Tensor]:
    """Rows of J of few examples of the batch; see `steep_directions`."""
    _require_outputs(problem)
    values = params | detach(problem.effects.buffers(hparams))
    return steep_directions(problem.model, problem.criterion, values, list(_examples(problem, hparams, batch)), rank)


def _require_outputs(problem: Any) -> None:
    """Require that the model returns outputs.

    Raises:
        CannotApproximateError: if it returns its loss.
    """
    if problem.returns_loss:
        raise CannotApproximateError("its model returns the loss, whose curvature in the outputs is not known")


@torch.no_grad()
def _examples(problem: Any, hparams: Tensors, batch: Batch | None) -> Iterator[Examples]:
    """The examples of a batch, as training sees them, in its parts."""
    effects = problem.effects
    for part, _ in problem.inner_parts(batch) or [(batch, 1.0)]:
        part = part or Batch()
        X, y = problem.step_examples(part)
        if effects.draws:
            generator = torch.Generator().manual_seed(seed_of("augmentation", problem.seed, part.draw))
            X = effects.augmented(X, hparams, generator)
        weights = effects.weights(problem.positions(part.own_rows), y, hparams)
        terms = _terms(problem, y, part)
        yield Examples(effects.inputs(X, hparams), y, terms if weights is None else terms * weights, part.draw)


def _terms(problem: Any, y: Tensor, part: Batch) -> Tensor:
    """What the term of each example counts in the loss of torch of these examples, whose mean is over all of them."""
    criterion, like = problem.criterion, next(iter(problem.init_params().values()))
    terms = like.new_ones(len(y))
    if criterion.reduction == "sum":
        total = len(y) if part.fraction is None else len(y) / part.fraction.share
        return terms * (total * _num_entries(criterion, y))
    counts = criterion.count_each(y)
    if counts is None:
        return terms
    denominator, fraction = counts.sum(), part.fraction
    if fraction is not None and fraction.denominator is not None:
        denominator = fraction.denominator * fraction.share
    return (counts * (len(y) / denominator.clamp(min=1e-300))).to(terms)


def _num_entries(criterion: Criterion, y: Tensor) -> int:
    """Of how many entries of an example the loss of torch takes the mean, for targets of shape (n, …)."""
    are_probabilities = y.is_floating_point() and require_known(criterion) is nn.CrossEntropyLoss
    return math.prod(y.shape[2:] if are_probabilities else y.shape[1:])


def _diagonal(problem: Any, params: Tensors, hparams: Tensors, batch: Batch | None) -> Tensor:
    """The row sums of the Hessian of the loss at fixed outputs, which is its diagonal for penalties of each entry."""
    parts = problem.inner_parts(batch)
    part, w = batch if parts is None else parts[0][0], leaves(params)
    with torch.no_grad():
        outputs = None if problem.returns_loss else problem.outputs(params, hparams, part)
    flat = flatten(params)
    if outputs is None:
        return torch.zeros_like(flat)
    with torch.enable_grad():
        loss = problem.loss_of_outputs(outputs, w, hparams, part)
        if not loss.requires_grad:
            return torch.zeros_like(flat)
        each: Any = {"create_graph": True, "allow_unused": True, "materialize_grads": True}
        grad = flatten(dict(zip(w, torch.autograd.grad(loss, tuple(w.values()), **each), strict=True)))
        if not grad.requires_grad:
            return torch.zeros_like(flat)
        each["create_graph"] = False
        sums = torch.autograd.grad(grad, tuple(w.values()), torch.ones_like(grad), **each)
    return flatten(dict(zip(w, sums, strict=True))).clamp(min=0)
