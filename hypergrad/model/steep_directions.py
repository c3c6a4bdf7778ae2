"""The directions along which the loss of single examples has the most curvature."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors, leaves
from hypergrad.core.cost import spend
from hypergrad.core.operator import CannotApproximateError
from hypergrad.data.tree import take
from hypergrad.model.criterion import Criterion
from hypergrad.model.curvature import Examples, require_known
from hypergrad.model.pure_module import PureModule

_CHUNK = 8
"""Directions found together. A judgement: each takes a backward pass of all examples of its chunk."""


class _Steep(NamedTuple):
    """Directions in the outputs of some examples.

    Attributes:
        curvature: c_i γ along each, shape (m,).
        rows: the example of each, shape (m,).
        vectors: q, shape (m, k).
    """

    curvature: Tensor
    rows: Tensor
    vectors: Tensor


def steep_directions(
    model: PureModule, criterion: Criterion, values: Tensors, data: Sequence[Examples], rank: int
) -> Iterator[Tensor]:
    """The rows of J, shape (m, n) with m ≤ rank, a few at a time: JᵀJ is a part of the Gauss–Newton matrix.

    It is that of the mean loss of N examples. Let the loss of example i have the curvature Σ_j γ_ij q_ij q_ijᵀ in its
    outputs z_i, and the weight c_i. The rows are √(c_i γ_ij / N) q_ijᵀ ∂z_i/∂w. Those with the largest c_i γ_ij
    are made, from the `rank` examples with the largest sums of these.

    Args:
        model: the module.
        criterion: its loss.
        values: its parameters by name, in the order of the flat vector; then buffers.
        data: examples, of which the mean curvature is taken.
        rank: most rows, ≥ 1.

    Raises:
        CannotApproximateError: if outputs have another shape than (N, k).

    Also raised, by what it calls: CannotApproximateError if the loss is not known.
    """
    kind = require_known(criterion)
    with torch.no_grad():
        outputs = [model(values, some.X, some.step) for some in data]
    if any(z.ndim > 2 for z in outputs):
        raise CannotApproximateError(f"its outputs have the shape {tuple(outputs[0].shape)}, and not (n, k)")
    spend(gradients=len(data))
    steep = [
        _steepest(kind, z.flatten(1) if z.ndim == 2 else z[:, None], e, rank)
        for z, e in zip(outputs, data, strict=True)
    ]
    curvature = torch.cat([one.curvature for one in steep])
    chosen = torch.zeros_like(curvature, dtype=torch.bool)
    chosen[curvature.argsort(descending=True)[:rank]] = True
    count = sum(len(some.y) for some in data)
    for one, keep, some in zip(steep, chosen.split([len(one.rows) for one in steep]), data, strict=True):
        yield from _pulled_back(model, values, some, _scaled(one, keep, count))


def _steepest(kind: type[nn.Module], z: Tensor, some: Examples, rank: int) -> _Steep:
    """The `rank` steepest directions in the outputs z, shape (n, k), of some examples."""
    diagonal, off = _curvature(kind, z)
    weights = some.weights.to(z).clamp(min=0)
    trace = weights * (diagonal - off.square()).sum(1)
    rows = trace.argsort(descending=True)[:rank]
    d, o = diagonal[rows], off[rows]
    values, vectors = torch.linalg.eigh(torch.diag_embed(d) - o[:, :, None] * o[:, None, :])
    curvature = (weights[rows, None] * values.clamp(min=0)).flatten()
    chosen = curvature.argsort(descending=True)[:rank]
    k = z.shape[1]
    return _Steep(curvature[chosen], rows[chosen // k], vectors.transpose(1, 2).reshape(-1, k)[chosen])


def _curvature(kind: type[nn.Module], z: Tensor) -> tuple[Tensor, Tensor]:
    """D and o with the curvature diag(D) − o oᵀ of the loss of each example in its outputs, both of shape (n, k)."""
    if kind is nn.CrossEntropyLoss:
        p = z.softmax(1)
        return p, p
    if kind is nn.BCEWithLogitsLoss:
        p = z.sigmoid()
        return p * (1 - p) / z.shape[1], torch.zeros_like(z)
    return torch.full_like(z, 2 / z.shape[1]), torch.zeros_like(z)


def _scaled(steep: _Steep, keep: Tensor, count: int) -> _Steep:
    """Some of them, with vectors √(c γ / N) q."""
    root = (steep.curvature[keep] / count).sqrt()
    return _Steep(steep.curvature[keep], steep.rows[keep], root[:, None] * steep.vectors[keep])


def _pulled_back(model: PureModule, values: Tensors, some: Examples, steep: _Steep) -> Iterator[Tensor]:
    """The rows of J, a few together."""
    trained = leaves({name: values[name] for name in model.params()})
    if len(steep.rows) == 0:
        return
    for rows, vectors in zip(steep.rows.split(_CHUNK), steep.vectors.split(_CHUNK), strict=True):
        with torch.enable_grad():
            z = model(values | trained, take(some.X, rows), some.step)
        each = torch.diag_embed(vectors.T).permute(1, 2, 0) if z.ndim == 2 else torch.diag(vectors[:, 0])
        grads = torch.autograd.grad(z, tuple(trained.values()), each, is_grads_batched=True, allow_unused=True)
        flat = [
            z.new_zeros(len(rows), w.numel()) if grad is None else grad.reshape(len(rows), -1)
            for grad, w in zip(grads, trained.values(), strict=True)
        ]
        yield torch.cat(flat, 1)
