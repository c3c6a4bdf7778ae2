"""Operations of PyTorch, each with the same in numbers of 70 digits: the letters of the random compositions.

Each maps x and y of shape (2, 3), and a constant c of that shape, to a result of any shape. Those in `SAME` are written
once, for tensors and for arrays.
"""

from collections.abc import Callable
from typing import Any

import exact_arrays as m
import mpmath
import numpy as np
import torch
from mpmath import mp
from torch import linalg, special
from torch.nn import functional

Operation = Callable[[Any, Any, Any], Any]
EYE2, EYE3 = torch.eye(2, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
ORDER = torch.tensor([[2, 0, 1], [1, 1, 2]])
TARGET = torch.tensor([2, 0])
KERNEL = torch.tensor([[[0.5, -1.0], [2.0, 0.25]]], dtype=torch.float64)
TALL = torch.tensor([[1.0, -0.5, 0.3], [0.2, 0.7, -1.0], [0.4, 0.1, 0.9], [-0.6, 1.1, 0.2]], dtype=torch.float64)
MASK = np.array([[True, False, True], [False, True, True]])
TMASK = torch.tensor(MASK)


def spd(x: Any, eye: Any) -> Any:
    """A well-conditioned symmetric matrix, 2 × 2."""
    return x @ x.T / 4 + eye


def square(x: Any, y: Any, eye: Any) -> Any:
    """A well-conditioned matrix, 3 × 3."""
    return x.T @ y / 8 + eye * 2


def logsumexp(x: Any) -> Any:
    """Of each row."""
    return m.log(m.exp(x).sum(-1))


def variance(x: Any, axis: Any = None, less: int = 1) -> Any:
    """The variance along an axis."""
    gap = x - x.mean(axis, keepdims=True)
    count = x.size if axis is None else x.shape[axis]
    return (gap * gap).sum(axis) / (count - less)


SAME: dict[str, Operation] = {
    "add": lambda x, y, c: x + y,
    "add-constant": lambda x, y, c: x + c,
    "sub": lambda x, y, c: x - y,
    "rsub": lambda x, y, c: 1 - x,
    "neg": lambda x, y, c: -x,
    "mul": lambda x, y, c: x * y,
    "mul-self": lambda x, y, c: x * x,
    "mul-constant": lambda x, y, c: c * x,
    "mul-zero": lambda x, y, c: x * 0 + y,
    "div": lambda x, y, c: x / (2 + y * y),
    "div-plain": lambda x, y, c: x / y,
    "rdiv": lambda x, y, c: 1 / (2 + x * x),
    "pow-0": lambda x, y, c: x**0 + y,
    "pow-1": lambda x, y, c: x**1,
    "pow-2": lambda x, y, c: x**2,
    "pow-5": lambda x, y, c: x**5,
    "pow-18": lambda x, y, c: x**18,
    "pow-minus-1": lambda x, y, c: x**-1,
    "pow-minus-2": lambda x, y, c: (x * x + 1) ** -2,
    "broadcast": lambda x, y, c: x + y[:1],
    "outer-sum": lambda x, y, c: x[0][:, None] + y[1],
    "index": lambda x, y, c: x[:, 1:],
    "index-list": lambda x, y, c: x[[1, 0, 1]],
    "index-last": lambda x, y, c: x[..., -1],
    "index-none": lambda x, y, c: x[:, None],
    "transpose": lambda x, y, c: x.T,
    "reshape": lambda x, y, c: x.reshape(3, 2),
    "flatten": lambda x, y, c: x.flatten(),
    "sum": lambda x, y, c: x.sum() + y,
    "sum-0": lambda x, y, c: x.sum(0),
    "mean": lambda x, y, c: x.mean(1),
    "cumsum": lambda x, y, c: x.cumsum(1),
    "cumprod": lambda x, y, c: x.cumprod(1),
    "prod": lambda x, y, c: x.prod() + y,
    "prod-1": lambda x, y, c: x.prod(1),
    "matmul": lambda x, y, c: x @ y.T,
    "matmul-constant": lambda x, y, c: c @ x.T,
    "matvec": lambda x, y, c: x @ y[0],
    "trace": lambda x, y, c: (x @ y.T).trace(),
    "diagonal": lambda x, y, c: (x.T @ y).diagonal(),
    "max": lambda x, y, c: x.max(),
    "min": lambda x, y, c: x.min() + y,
    "max-0": lambda x, y, c: x.max(0)[0] if isinstance(x, torch.Tensor) else x.max(0),
    "abs": lambda x, y, c: abs(x),
    "comparison": lambda x, y, c: (x > y) * x,
    "swapaxes": lambda x, y, c: x.swapaxes(0, 1),
    "squeeze": lambda x, y, c: x[:1].squeeze(),
    "repeat": lambda x, y, c: x[:, [0, 0, 1]],
}

PAIRS: dict[str, tuple[Operation, Operation]] = {
    "exp": (lambda x, y, c: torch.exp(x), lambda x, y, c: m.exp(x)),
    "expm1": (lambda x, y, c: x.expm1(), lambda x, y, c: m.exp(x) - 1),
    "exp2": (lambda x, y, c: torch.exp2(x), lambda x, y, c: m.exp(x * mp.log(2))),
    "log": (lambda x, y, c: torch.log(x * x + 1), lambda x, y, c: m.log(x * x + 1)),
    "log-plain": (lambda x, y, c: x.log(), lambda x, y, c: m.log(x)),
    "log1p": (lambda x, y, c: torch.log1p(x * x), lambda x, y, c: m.log(1 + x * x)),
    "log2": (lambda x, y, c: torch.log2(x * x + 2), lambda x, y, c: m.log(x * x + 2) / mp.log(2)),
    "log10": (lambda x, y, c: torch.log10(x * x + 2), lambda x, y, c: m.log(x * x + 2) / mp.log(10)),
    "sqrt": (lambda x, y, c: torch.sqrt(x), lambda x, y, c: m.sqrt(x)),
    "sqrt-safe": (lambda x, y, c: (x * x + 1e-3).sqrt(), lambda x, y, c: m.sqrt(x * x + mpmath.mpf(1e-3))),
    "rsqrt": (lambda x, y, c: torch.rsqrt(x * x + 1), lambda x, y, c: 1 / m.sqrt(x * x + 1)),
    "pow-half": (lambda x, y, c: x**0.5, lambda x, y, c: m.sqrt(x)),
    "pow-1.5": (lambda x, y, c: x**1.5, lambda x, y, c: m.sqrt(x) * x),
    "pow-4.5": (lambda x, y, c: x.pow(4.5), lambda x, y, c: m.sqrt(x) * x**4),
    "pow-tensor": (lambda x, y, c: x ** torch.tensor([2.0, 3.0, 1.0]), lambda x, y, c: x ** np.array([2, 3, 1])),
    "pow-scalar-tensor": (lambda x, y, c: x ** torch.tensor(3), lambda x, y, c: x**3),
    "pow-polynomial": (lambda x, y, c: (x * x + 1) ** y, lambda x, y, c: m.exp(y * m.log(x * x + 1))),
    "rpow": (lambda x, y, c: 2.5**x, lambda x, y, c: m.exp(x * mp.log(mpmath.mpf(2.5)))),
    "torch-pow-number": (lambda x, y, c: torch.pow(2.5, x), lambda x, y, c: m.exp(x * mp.log(mpmath.mpf(2.5)))),
    "zero-to-the": (
        lambda x, y, c: torch.zeros_like(c) ** (x * x + 0.5) + y,
        lambda x, y, c: y * 1,
    ),
    "square": (lambda x, y, c: torch.square(x), lambda x, y, c: x * x),
    "reciprocal": (lambda x, y, c: torch.reciprocal(x), lambda x, y, c: 1 / x),
    "tanh": (lambda x, y, c: torch.tanh(x), lambda x, y, c: m.tanh(x)),
    "sinh": (lambda x, y, c: torch.sinh(x), lambda x, y, c: m.each(mp.sinh)(x)),
    "cosh": (lambda x, y, c: torch.cosh(x), lambda x, y, c: m.each(mp.cosh)(x)),
    "special-exp2": (lambda x, y, c: special.exp2(x), lambda x, y, c: m.exp(x * mp.log(2))),
    "special-expm1": (lambda x, y, c: special.expm1(x), lambda x, y, c: m.exp(x) - 1),
    "special-log1p": (lambda x, y, c: special.log1p(x * x), lambda x, y, c: m.log(1 + x * x)),
    "special-log-softmax": (lambda x, y, c: special.log_softmax(x, 1), lambda x, y, c: m.log(m.softmax(x))),
    "float-power": (lambda x, y, c: x.float_power(3), lambda x, y, c: x**3),
    "sigmoid": (lambda x, y, c: torch.sigmoid(x), lambda x, y, c: 1 / (1 + m.exp(-x))),
    "softplus": (lambda x, y, c: functional.softplus(x), lambda x, y, c: m.softplus(x)),
    "softplus-threshold": (
        lambda x, y, c: functional.softplus(x, 2.0, 0.7),
        lambda x, y, c: m.softplus(x, 2, 0.7),
    ),
    "logsigmoid": (lambda x, y, c: functional.logsigmoid(x), lambda x, y, c: -m.softplus(-x)),
    "sin": (lambda x, y, c: x.sin(), lambda x, y, c: m.sin(x)),
    "cos": (lambda x, y, c: torch.cos(x), lambda x, y, c: m.cos(x)),
    "tan": (lambda x, y, c: torch.tan(x / 4), lambda x, y, c: m.each(mp.tan)(x / 4)),
    "atan": (lambda x, y, c: torch.atan(x), lambda x, y, c: m.atan(x)),
    "asin": (lambda x, y, c: torch.asin(torch.tanh(x)), lambda x, y, c: m.each(mp.asin)(m.tanh(x))),
    "asinh": (lambda x, y, c: torch.asinh(x), lambda x, y, c: m.each(mp.asinh)(x)),
    "atan2": (lambda x, y, c: torch.atan2(x, y), lambda x, y, c: np.frompyfunc(mp.atan2, 2, 1)(x, y)),
    "hypot": (lambda x, y, c: torch.hypot(x, y), lambda x, y, c: m.sqrt(x * x + y * y)),
    "erf": (lambda x, y, c: torch.erf(x), lambda x, y, c: m.erf(x)),
    "erfc": (lambda x, y, c: special.erfc(x), lambda x, y, c: 1 - m.erf(x)),
    "lgamma": (lambda x, y, c: torch.lgamma(x * x + 1), lambda x, y, c: m.lgamma(x * x + 1)),
    "digamma": (lambda x, y, c: torch.digamma(x * x + 1), lambda x, y, c: m.digamma(x * x + 1)),
    "i0": (lambda x, y, c: special.i0(x), lambda x, y, c: m.i0(x)),
    "i1": (lambda x, y, c: special.i1(x), lambda x, y, c: m.each(lambda v: mp.besseli(1, v))(x)),
    "sinc": (lambda x, y, c: torch.sinc(x), lambda x, y, c: m.each(lambda v: mp.sincpi(v))(x)),
    "logaddexp": (lambda x, y, c: torch.logaddexp(x, y), lambda x, y, c: m.log(m.exp(x) + m.exp(y))),
    "xlogy": (lambda x, y, c: torch.xlogy(x, y * y + 1), lambda x, y, c: x * m.log(y * y + 1)),
    "gelu": (lambda x, y, c: functional.gelu(x), lambda x, y, c: x * (1 + m.erf(x / mp.sqrt(2))) / 2),
    "silu": (lambda x, y, c: functional.silu(x), lambda x, y, c: x / (1 + m.exp(-x))),
    "mish": (lambda x, y, c: functional.mish(x), lambda x, y, c: x * m.tanh(m.softplus(x))),
    "elu": (lambda x, y, c: functional.elu(x), lambda x, y, c: m.choose(x > 0, x, m.exp(x) - 1)),
    "selu-celu": (lambda x, y, c: functional.celu(x, 0.5), lambda x, y, c: m.choose(x > 0, x, (m.exp(2 * x) - 1) / 2)),
    "softsign": (lambda x, y, c: functional.softsign(x), lambda x, y, c: x / (1 + abs(x))),
    "glu": (
        lambda x, y, c: functional.glu(torch.cat([x, y], 1)),
        lambda x, y, c: (lambda z: z[:, :3] / (1 + m.exp(-z[:, 3:])))(np.concatenate([x, y], 1)),
    ),
    "relu": (lambda x, y, c: torch.relu(x), lambda x, y, c: m.choose(x > 0, x, 0 * x)),
    "relu-inplace": (
        lambda x, y, c: (lambda h: functional.relu(h, inplace=True) + h)(x + c),
        lambda x, y, c: 2 * m.choose(x + c > 0, x + c, 0 * x),
    ),
    "relu-squared": (lambda x, y, c: torch.relu(x) ** 2, lambda x, y, c: m.choose(x > 0, x, 0 * x) ** 2),
    "leaky-relu": (
        lambda x, y, c: functional.leaky_relu(x, 0.25),
        lambda x, y, c: m.choose(x > 0, x, x / 4),
    ),
    "hardtanh": (lambda x, y, c: functional.hardtanh(x), lambda x, y, c: m.clamp(x, -1, 1)),
    "clamp": (lambda x, y, c: x.clamp(-0.5, 1.0), lambda x, y, c: m.clamp(x, mpmath.mpf(-0.5), 1)),
    "clamp-min": (lambda x, y, c: torch.clamp(x, min=0.0), lambda x, y, c: m.choose(x < 0, 0 * x, x)),
    "clamp-tensor": (
        lambda x, y, c: x[:1].clamp(min=c),
        lambda x, y, c: m.choose(x[:1] < c, c, x[:1]),
    ),
    "clamp-polynomial": (
        lambda x, y, c: torch.clamp(x, max=y[0]),
        lambda x, y, c: m.choose(x > y[0], y[0], x),
    ),
    "where": (lambda x, y, c: torch.where(c > 0, x, y), lambda x, y, c: m.choose(c > 0, x, y)),
    "where-broadcast": (
        lambda x, y, c: torch.where(TMASK[0], x[0, 0], torch.ones(2, 3)),
        lambda x, y, c: m.choose(MASK[0], x[0, 0], m.exact(np.ones((2, 3)))),
    ),
    "where-scalar-condition": (
        lambda x, y, c: torch.where(TMASK[0, 0], x[0, 0], c),
        lambda x, y, c: m.choose(MASK[0, 0], x[0, 0], c),
    ),
    "where-method": (lambda x, y, c: c.where(TMASK, x), lambda x, y, c: m.choose(MASK, c, x)),
    "where-data": (
        lambda x, y, c: torch.where(x > y, torch.exp(x), y * 2),
        lambda x, y, c: m.choose(x > y, m.exp(x), y * 2),
    ),
    "masked-fill": (lambda x, y, c: x.masked_fill(TMASK, 1.5), lambda x, y, c: m.choose(MASK, mpmath.mpf(1.5), x)),
    "masked-select": (lambda x, y, c: x.masked_select(TMASK), lambda x, y, c: x[MASK]),
    "masked-scatter": (
        lambda x, y, c: x.masked_scatter(TMASK, y),
        lambda x, y, c: (lambda z: (z.__setitem__(MASK, y.ravel()[: MASK.sum()]), z)[1])(x.copy()),
    ),
    "maximum": (lambda x, y, c: torch.maximum(x, y), lambda x, y, c: m.choose(x > y, x, y)),
    "minimum-constant": (lambda x, y, c: torch.min(c, x), lambda x, y, c: m.choose(x < c, x, c)),
    "amax": (lambda x, y, c: x.amax(1), lambda x, y, c: x.max(1)),
    "sign": (lambda x, y, c: torch.sign(x) * y, lambda x, y, c: m.each(mp.sign)(x) * y),
    "round": (lambda x, y, c: x.round() * y + x.floor(), lambda x, y, c: m.each(mp.nint)(x) * y + m.each(mp.floor)(x)),
    "frac": (lambda x, y, c: x.frac(), lambda x, y, c: x - m.each(lambda v: mp.sign(v) * mp.floor(abs(v)))(x)),
    "remainder": (lambda x, y, c: torch.remainder(x, 0.75), lambda x, y, c: x - m.each(mp.floor)(x / 0.75) * 0.75),
    "to-int": (
        lambda x, y, c: (x * 3).to(torch.int64) * y,
        lambda x, y, c: m.each(lambda v: mpmath.mpf(int(v)))(x * 3) * y,
    ),
    "long": (lambda x, y, c: x.long() + y, lambda x, y, c: m.each(lambda v: mpmath.mpf(int(v)))(x) + y),
    "double": (lambda x, y, c: x.double().to(torch.float64).type_as(c), lambda x, y, c: x),
    "detach": (lambda x, y, c: (x > 0).double() * y, lambda x, y, c: (x > 0) * y),
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
OPERATIONS: dict[str, tuple[Operation, Operation]] = {name: (f, f) for name, f in SAME.items()} | PAIRS
"""By name: on tensors, and on arrays."""
