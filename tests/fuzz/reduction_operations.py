"""Reductions, linear algebra and losses, on tensors and in numbers of 70 digits; see `torch_operations`."""

import exact_arrays as m
import mpmath
import numpy as np
import torch
from mpmath import mp
from operands import EYE2, EYE3, MASK, TARGET, TMASK, Operation, logsumexp, spd, square, variance
from torch import linalg
from torch.nn import functional

REDUCTIONS: dict[str, tuple[Operation, Operation]] = {
    "logsumexp": (lambda x, y, c: torch.logsumexp(x, 1), lambda x, y, c: logsumexp(x)),
    "logsumexp-all": (lambda x, y, c: torch.logsumexp(x, (0, 1)), lambda x, y, c: logsumexp(x.reshape(1, 6))[0]),
    "softmax": (lambda x, y, c: torch.softmax(x, 1), lambda x, y, c: m.softmax(x)),
    "log-softmax": (lambda x, y, c: functional.log_softmax(x, -1), lambda x, y, c: m.log(m.softmax(x))),
    "softmin": (lambda x, y, c: functional.softmin(x, 1), lambda x, y, c: m.softmax(-x)),
    "masked-softmax": (
        lambda x, y, c: x.masked_fill(TMASK, -torch.inf).softmax(1),
        lambda x, y, c: m.choose(MASK, 0 * x, m.exp(x)) / m.choose(MASK, 0 * x, m.exp(x)).sum(1, keepdims=True),
    ),
    "norm": (lambda x, y, c: x.norm(), lambda x, y, c: m.sqrt((x * x).sum())),
    "norm-1": (lambda x, y, c: x.norm(dim=1), lambda x, y, c: m.sqrt((x * x).sum(1))),
    "norm-p3": (lambda x, y, c: torch.norm(x, 3), lambda x, y, c: m.each(mp.cbrt)((abs(x) ** 3).sum())),
    "norm-keepdim": (
        lambda x, y, c: linalg.vector_norm(x, keepdim=True),
        lambda x, y, c: m.sqrt((x * x).sum(keepdims=True)),
    ),
    "norm-inf": (lambda x, y, c: linalg.vector_norm(x, torch.inf), lambda x, y, c: abs(x).max()),
    "linalg-norm": (lambda x, y, c: linalg.norm(x), lambda x, y, c: m.sqrt((x * x).sum())),
    "spectral-norm": (
        lambda x, y, c: linalg.norm(x, 2),
        lambda x, y, c: (lambda A: m.sqrt((A.trace() + mp.sqrt(A.trace() ** 2 - 4 * m.det(A))) / 2))(x @ x.T),
    ),
    "normalize": (
        lambda x, y, c: functional.normalize(x, dim=1),
        lambda x, y, c: x / m.sqrt((x * x).sum(1, keepdims=True)),
    ),
    "cosine": (
        lambda x, y, c: functional.cosine_similarity(x, y, dim=1),
        lambda x, y, c: (x * y).sum(1) / m.sqrt((x * x).sum(1) * (y * y).sum(1)),
    ),
    "cdist": (
        lambda x, y, c: torch.cdist(x, y + 3),
        lambda x, y, c: m.sqrt(((x[:, None] - y[None] - 3) ** 2).sum(2)),
    ),
    "pairwise-distance": (
        lambda x, y, c: functional.pairwise_distance(x, y, eps=0.0),
        lambda x, y, c: m.sqrt(((x - y) ** 2).sum(1)),
    ),
    "var": (lambda x, y, c: x.var(1), lambda x, y, c: variance(x, 1)),
    "var-biased": (lambda x, y, c: torch.var(x, correction=0), lambda x, y, c: variance(x, less=0)),
    "var-unbiased": (lambda x, y, c: torch.var(x, unbiased=False), lambda x, y, c: variance(x, less=0)),
    "std": (lambda x, y, c: x.std(), lambda x, y, c: m.sqrt(variance(x))),
    "std-1": (lambda x, y, c: x.std(1, keepdim=True), lambda x, y, c: m.sqrt(variance(x, 1)[:, None])),
    "var-mean": (lambda x, y, c: sum(torch.var_mean(x)), lambda x, y, c: variance(x) + x.mean()),
    "cov": (lambda x, y, c: torch.cov(x), lambda x, y, c: (lambda g: g @ g.T / 2)(x - x.mean(1, keepdims=True))),
    "layer-norm": (lambda x, y, c: functional.layer_norm(x, (3,), y[0]), lambda x, y, c: m.standardised(x) * y[0]),
    "group-norm": (
        lambda x, y, c: functional.group_norm(x[None], 2, y[:, 0]),
        lambda x, y, c: (m.standardised(x) * y[:, :1])[None],
    ),
    "rms-norm": (
        lambda x, y, c: functional.rms_norm(x, (3,), eps=0.1),
        lambda x, y, c: x / m.sqrt((x * x).mean(1, keepdims=True) + mpmath.mpf(0.1)),
    ),
    "instance-norm": (lambda x, y, c: functional.instance_norm(x[None]), lambda x, y, c: m.standardised(x)[None]),
    "batch-norm": (
        lambda x, y, c: functional.batch_norm(x.T, None, None, training=True),
        lambda x, y, c: m.standardised(x).T,
    ),
    "solve": (
        lambda x, y, c: linalg.solve(square(x, y, EYE3), c.T),
        lambda x, y, c: m.solve(square(x, y, m.eye(3)), c.T),
    ),
    "solve-vector": (
        lambda x, y, c: linalg.solve(spd(x, EYE2), y[:, 0]),
        lambda x, y, c: m.solve(spd(x, m.eye(2)), y[:, 0]),
    ),
    "solve-batch-vector": (
        lambda x, y, c: linalg.solve(torch.stack([spd(x, EYE2), spd(y, EYE2)]), c[:, 0]),
        lambda x, y, c: np.stack([m.solve(spd(z, m.eye(2)), c[:, 0]) for z in (x, y)]),
    ),
    "solve-right": (
        lambda x, y, c: linalg.solve(square(x, y, EYE3), c, left=False),
        lambda x, y, c: m.solve(square(x, y, m.eye(3)).T, c.T).T,
    ),
    "solve-triangular": (
        lambda x, y, c: linalg.solve_triangular(square(x, y, EYE3).tril(), c.T, upper=False),
        lambda x, y, c: m.solve(square(x, y, m.eye(3)) * m.exact(np.tril(np.ones((3, 3)))), c.T),
    ),
    "inv": (lambda x, y, c: linalg.inv(square(x, y, EYE3)), lambda x, y, c: m.solve(square(x, y, m.eye(3)), m.eye(3))),
    "pinv": (lambda x, y, c: linalg.pinv(spd(x, EYE2)), lambda x, y, c: m.solve(spd(x, m.eye(2)), m.eye(2))),
    "cholesky": (lambda x, y, c: linalg.cholesky(spd(x, EYE2)), lambda x, y, c: m.cholesky(spd(x, m.eye(2)))),
    "det": (lambda x, y, c: linalg.det(x @ y.T) + x, lambda x, y, c: m.det(x @ y.T) + x),
    "det-3": (lambda x, y, c: linalg.det(square(x, y, EYE3)), lambda x, y, c: m.det(square(x, y, m.eye(3)))),
    "slogdet": (
        lambda x, y, c: linalg.slogdet(square(x, y, EYE3))[1],
        lambda x, y, c: mp.log(abs(m.det(square(x, y, m.eye(3))))),
    ),
    "logdet": (lambda x, y, c: torch.logdet(spd(x, EYE2)), lambda x, y, c: mp.log(m.det(spd(x, m.eye(2))))),
    "eigvalsh": (
        lambda x, y, c: linalg.eigvalsh(x @ x.T).sum() + y,
        lambda x, y, c: (x @ x.T).trace() + y,
    ),
    "matrix-power": (
        lambda x, y, c: linalg.matrix_power(x @ y.T, 3),
        lambda x, y, c: (x @ y.T) @ (x @ y.T) @ (x @ y.T),
    ),
    "multi-dot": (lambda x, y, c: linalg.multi_dot([x, y.T, c]), lambda x, y, c: x @ y.T @ c),
    "interpolate": (
        lambda x, y, c: functional.interpolate(x[None], 5, mode="linear"),
        lambda x, y, c: m.image(lambda v: functional.interpolate(v[None], 5, mode="linear"), x),
    ),
    "avg-pool": (lambda x, y, c: functional.avg_pool1d(x, 2, 1), lambda x, y, c: (x[:, 1:] + x[:, :-1]) / 2),
    "max-pool": (
        lambda x, y, c: functional.max_pool1d(x, 2, 1),
        lambda x, y, c: m.choose(x[:, 1:] > x[:, :-1], x[:, 1:], x[:, :-1]),
    ),
    "nansum": (
        lambda x, y, c: x.masked_fill(TMASK, 0).add(torch.where(TMASK, torch.nan, 0.0)).nansum() + y,
        lambda x, y, c: m.choose(MASK, 0 * x, x).sum() + y,
    ),
    "nan-to-num": (lambda x, y, c: torch.nan_to_num(x), lambda x, y, c: x),
    "dropout": (lambda x, y, c: functional.dropout(x, 0.5, training=False), lambda x, y, c: x),
    "cross-entropy": (
        lambda x, y, c: functional.cross_entropy(x, TARGET),
        lambda x, y, c: (logsumexp(x) - x[[0, 1], [2, 0]]).mean(),
    ),
    "bce": (
        lambda x, y, c: functional.binary_cross_entropy_with_logits(x, (c > 0).double()),
        lambda x, y, c: (m.softplus(x) - (c > 0) * x).mean(),
    ),
    "mse": (lambda x, y, c: functional.mse_loss(x, y), lambda x, y, c: ((x - y) ** 2).mean()),
    "l1": (lambda x, y, c: functional.l1_loss(x, c), lambda x, y, c: abs(x - c).mean()),
    "huber": (
        lambda x, y, c: functional.huber_loss(x, y, delta=0.5),
        lambda x, y, c: m.choose(abs(x - y) < 0.5, (x - y) ** 2 / 2, (abs(x - y) - mpmath.mpf(0.25)) / 2).mean(),
    ),
    "kl": (
        lambda x, y, c: functional.kl_div(x, y.exp(), reduction="sum"),
        lambda x, y, c: (m.exp(y) * (y - x)).sum(),
    ),
    "poisson": (
        lambda x, y, c: functional.poisson_nll_loss(x, y),
        lambda x, y, c: (m.exp(x) - y * x).mean(),
    ),
}
