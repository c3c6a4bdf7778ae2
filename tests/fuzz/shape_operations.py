"""Products, layers and selections, on tensors and in numbers of 70 digits; see `torch_operations`."""

import exact_arrays as m
import mpmath
import numpy as np
import torch
from operands import EYE2, KERNEL, ORDER, TALL, TARGET, Operation
from torch import linalg
from torch.nn import functional

SHAPES: dict[str, tuple[Operation, Operation]] = {
    "addcmul": (lambda x, y, c: torch.addcmul(c, x, y, value=0.5), lambda x, y, c: c + x * y / 2),
    "add-alpha": (lambda x, y, c: torch.add(x, y, alpha=-2), lambda x, y, c: x - 2 * y),
    "rsub-alpha": (lambda x, y, c: torch.rsub(x, y, alpha=3), lambda x, y, c: y - 3 * x),
    "lerp": (lambda x, y, c: torch.lerp(x, y, 0.3), lambda x, y, c: x + mpmath.mpf(0.3) * (y - x)),
    "addmm": (lambda x, y, c: torch.addmm(EYE2, x, y.T), lambda x, y, c: x @ y.T + m.eye(2)),
    "baddbmm": (lambda x, y, c: torch.bmm(x[None], y.T[None]), lambda x, y, c: (x @ y.T)[None]),
    "einsum": (lambda x, y, c: torch.einsum("ij,kj->ik", x, y), lambda x, y, c: x @ y.T),
    "einsum-1": (lambda x, y, c: torch.einsum("ij->j", x), lambda x, y, c: x.sum(0)),
    "einsum-3": (
        lambda x, y, c: torch.einsum("ij,ij,ik->k", x, y, c),
        lambda x, y, c: ((x * y).sum(1)[:, None] * c).sum(0),
    ),
    "einsum-list": (lambda x, y, c: torch.einsum("ij,jk->ik", [x, y.T]), lambda x, y, c: x @ y.T),
    "einsum-diagonal": (lambda x, y, c: torch.einsum("ii->i", x @ y.T), lambda x, y, c: (x @ y.T).diagonal()),
    "outer": (lambda x, y, c: torch.outer(x[0], y[1]), lambda x, y, c: x[0][:, None] * y[1]),
    "dot": (lambda x, y, c: torch.dot(x[0], y[1]), lambda x, y, c: (x[0] * y[1]).sum()),
    "inner": (lambda x, y, c: torch.inner(x, y), lambda x, y, c: x @ y.T),
    "kron": (lambda x, y, c: torch.kron(x[0], y[1, :2]), lambda x, y, c: (x[0][:, None] * y[1, :2]).ravel()),
    "tensordot": (lambda x, y, c: torch.tensordot(x.T, y, dims=1), lambda x, y, c: x.T @ y),
    "cross": (
        lambda x, y, c: linalg.cross(x, y),
        lambda x, y, c: x[:, [1, 2, 0]] * y[:, [2, 0, 1]] - x[:, [2, 0, 1]] * y[:, [1, 2, 0]],
    ),
    "bilinear": (
        lambda x, y, c: functional.bilinear(x, y, TALL[None, :3]),
        lambda x, y, c: ((x @ m.exact(TALL[:3])) * y).sum(1)[:, None],
    ),
    "linear": (
        lambda x, y, c: functional.linear(TALL, x, y[:, 0]),
        lambda x, y, c: m.exact(TALL) @ x.T + y[:, 0],
    ),
    "conv1d": (
        lambda x, y, c: functional.conv1d(x, KERNEL, y[0, :1], padding=1),
        lambda x, y, c: m.image(lambda v: functional.conv1d(v, KERNEL, padding=1), x) + y[0, 0],
    ),
    "conv1d-weight": (
        lambda x, y, c: functional.conv1d(TALL[None, :2], x[None], stride=2),
        lambda x, y, c: m.image(lambda v: functional.conv1d(TALL[None, :2], v[None], stride=2), x),
    ),
    "conv2d": (
        lambda x, y, c: functional.conv2d(x[None, None], x[None, None, :, :2]),
        lambda x, y, c: np.array([[[[(x[:, j : j + 2] * x[:, :2]).sum() for j in range(2)]]]], dtype=object),
    ),
    "conv-transpose": (
        lambda x, y, c: functional.conv_transpose1d(x[None], KERNEL.mT.reshape(2, 1, 2)),
        lambda x, y, c: m.image(lambda v: functional.conv_transpose1d(v[None], KERNEL.mT.reshape(2, 1, 2)), x),
    ),
    "cat": (lambda x, y, c: torch.cat([x, c, y]), lambda x, y, c: np.concatenate([x, c, y])),
    "stack": (lambda x, y, c: torch.stack((x, y), dim=1), lambda x, y, c: np.stack((x, y), 1)),
    "hstack": (lambda x, y, c: torch.hstack([c, x[:, :1]]), lambda x, y, c: np.concatenate([c, x[:, :1]], 1)),
    "split": (lambda x, y, c: torch.cat(x.split(2, 1)[::-1], 1), lambda x, y, c: x[:, [2, 0, 1]]),
    "unbind": (lambda x, y, c: x.unbind(1)[1] * y[:, 0], lambda x, y, c: x[:, 1] * y[:, 0]),
    "iterate": (lambda x, y, c: sum(row * row for row in x), lambda x, y, c: (x * x).sum(0)),
    "flip": (lambda x, y, c: x.flip(1), lambda x, y, c: x[:, ::-1]),
    "roll": (lambda x, y, c: torch.roll(x, 1, 1), lambda x, y, c: np.roll(x, 1, 1)),
    "tril": (lambda x, y, c: x.tril(), lambda x, y, c: m.exact(np.tril(np.ones((2, 3)))) * x),
    "diag-embed": (lambda x, y, c: torch.diag_embed(x), lambda x, y, c: x[:, :, None] * m.eye(3)),
    "block-diag": (
        lambda x, y, c: torch.block_diag(x[:, :1], y[:1]),
        lambda x, y, c: (
            m.image(lambda v: torch.block_diag(v[:, :1], v[1:] * 0), x)
            + m.image(lambda v: torch.block_diag(v[:, :1] * 0, v[:1]), y)
        ),
    ),
    "pad": (lambda x, y, c: functional.pad(x, (1, 0)), lambda x, y, c: np.concatenate([0 * x[:, :1], x], 1)),
    "pad-value": (
        lambda x, y, c: functional.pad(x, (1, 0), value=1.5),
        lambda x, y, c: np.concatenate([0 * x[:, :1] + mpmath.mpf(1.5), x], 1),
    ),
    "pad-reflect": (
        lambda x, y, c: functional.pad(x[None], (1, 1), mode="reflect"),
        lambda x, y, c: x[None][:, :, [1, 0, 1, 2, 1]],
    ),
    "diff": (lambda x, y, c: torch.diff(x), lambda x, y, c: x[:, 1:] - x[:, :-1]),
    "diff-prepend": (
        lambda x, y, c: torch.diff(x, prepend=c[:, :1]),
        lambda x, y, c: x - np.concatenate([c[:, :1], x[:, :-1]], 1),
    ),
    "broadcast-tensors": (
        lambda x, y, c: torch.mul(*torch.broadcast_tensors(x[0], c)),
        lambda x, y, c: x[0] * c,
    ),
    "expand": (lambda x, y, c: x[:1].expand(2, -1) * c, lambda x, y, c: x[:1] * c),
    "gather": (lambda x, y, c: x.gather(1, ORDER), lambda x, y, c: np.take_along_axis(x, ORDER.numpy(), 1)),
    "scatter": (
        lambda x, y, c: x.scatter(1, ORDER[:, :1], y[:, :1]),
        lambda x, y, c: m.choose(np.eye(3)[ORDER[:, 0]] > 0, y[:, :1], x),
    ),
    "scatter-add": (
        lambda x, y, c: x.scatter_add(1, ORDER, y),
        lambda x, y, c: x + np.stack([y[i] @ m.exact(np.eye(3)[ORDER[i]]) for i in range(2)]),
    ),
    "index-add": (lambda x, y, c: x.index_add(0, TARGET[1:], y[:1]), lambda x, y, c: x + np.stack([y[0], 0 * y[0]])),
    "index-select": (lambda x, y, c: x.index_select(1, TARGET), lambda x, y, c: x[:, [2, 0]]),
    "index-put": (
        lambda x, y, c: torch.zeros(2, 3).index_put((TARGET[1:],), x[0]) + y,
        lambda x, y, c: np.stack([x[0], 0 * x[0]]) + y,
    ),
    "take": (lambda x, y, c: x.take(ORDER), lambda x, y, c: x.ravel()[ORDER.numpy()]),
    "sort": (lambda x, y, c: x.sort(1).values, lambda x, y, c: np.sort(x, 1)),
    "topk": (lambda x, y, c: x.topk(2)[0], lambda x, y, c: np.sort(x, 1)[:, ::-1][:, :2]),
    "median": (lambda x, y, c: x.median(1).values, lambda x, y, c: np.sort(x, 1)[:, 1]),
    "argsort": (
        lambda x, y, c: y.gather(1, x.argsort(1)),
        lambda x, y, c: np.take_along_axis(y, np.argsort(x, 1), 1),
    ),
    "cummax": (lambda x, y, c: x.cummax(1).values, lambda x, y, c: np.maximum.accumulate(x, 1)),
    "logcumsumexp": (lambda x, y, c: x.logcumsumexp(1), lambda x, y, c: m.log(m.exp(x).cumsum(1))),
    "quantile": (
        lambda x, y, c: x.quantile(0.25, 1),
        lambda x, y, c: (np.sort(x, 1)[:, 0] + np.sort(x, 1)[:, 1]) / 2,
    ),
}
