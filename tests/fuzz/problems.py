"""Random inner problems: losses, spectra, scales, dtypes and hyperparameters of every kind."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from choices import Choices
from torch import Tensor
from torch.nn.functional import huber_loss

import hypergrad as hg
from hypergrad.core.autodiff import Tensors, flatten, unflatten


def softplus(z: Tensor) -> Tensor:
    """log(1 + eᶻ); that of torch is linear from z = 20 on, with a slope that is 2e-9 off."""
    return torch.logaddexp(z, torch.zeros_like(z))


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squares": lambda z, y: (z - y).square() / 2,
    "logistic": lambda z, y: softplus(z) - y * z,
    "poisson": lambda z, y: z.exp() - y * z,
    "softplus": lambda z, y: softplus(z - y) + softplus(y - z),
    "huber": lambda z, y: huber_loss(z, y, reduction="none", delta=0.5),
    "absolute": lambda z, y: (z - y).abs(),
    "hinge": lambda z, y: (1 - (2 * y - 1) * z).clamp_min(0),
}
NETWORKS = {"tanh": torch.tanh, "relu": torch.relu}
FAMILIES = ("quadratic", *LOSSES, *NETWORKS)
COUNTED = {"logistic": 2, "hinge": 2, "poisson": 5}
"""Losses whose targets are counts below this."""
PARTS = ("l2", "each l2", "shift", "simplex", "interval", "empty")
"""What a hyperparameter can do; "start" and "lr" are for unrolled runs."""
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
GROUPS = 3


@dataclass(frozen=True)
class Spec:
    """All that makes a problem.

    Attributes:
        family: the inner loss.
        sizes: entries of the tensors of w; for a network the number of hidden units and of inputs.
        condition: log₁₀ κ of the data.
        spectrum: even, repeated, singular or indefinite.
        parts: what the hyperparameters do.
        log_l2: log₁₀ of the penalties.
        near: log₁₀ of the distance to a bound, of what has bounds.
        outer: dev, distance or linear.
        direct: whether the outer loss depends on λ too.
        scales: log₁₀ of the units of the inner loss, the outer loss, w.
        dtype: its name.
        seed: of the data.
    """

    family: str = "quadratic"
    sizes: tuple[int, ...] = (1,)
    condition: int = 0
    spectrum: str = "even"
    parts: tuple[str, ...] = ("l2",)
    log_l2: int = -1
    near: int = -1
    outer: str = "distance"
    direct: bool = False
    scales: tuple[int, int, int] = (0, 0, 0)
    dtype: str = "float64"
    seed: int = 0

    @property
    def is_smooth(self) -> bool:
        return self.family not in ("huber", "absolute", "hinge", "relu")


def draw_spec(choices: Choices, *, unrolled: bool) -> Spec:
    """A random problem, easy at first."""
    family = choices.one(FAMILIES)
    few = choices.one((2, 2, 3, 3, 3, 3, 6, 10))
    sizes = tuple(choices.integer(1, few) for _ in range(choices.integer(1, 3)))
    if family in NETWORKS:
        sizes = (choices.integer(1, 3), choices.integer(1, 4), choices.integer(1, 3))
    possible = (*PARTS, "start", "lr") if unrolled else PARTS
    parts = tuple(dict.fromkeys(choices.one(possible) for _ in range(choices.integer(1, 3))))
    dtype = choices.one(("float64", "float64", "float64", "float32", "float32", "bfloat16"))
    scales = _draw_scales(choices, dtype) if choices.one((False, False, False, False, True)) else (0, 0, 0)
    return Spec(
        family,
        sizes,
        choices.one((0, 0, 1, 2, 4, 6, 8, 10)),
        choices.one(("even", "even", "even", "repeated", "indefinite", "singular")),
        parts,
        choices.one((-1, 0, 1, -2, -4, -8, -12)),
        choices.one((-1, -1, -3, -6, -12)),
        choices.one(("distance", "dev", "linear")),
        choices.one((False, True)),
        scales,
        dtype,
        choices.integer(0, 2**16),
    )


def _draw_scales(choices: Choices, dtype: str) -> tuple[int, int, int]:
    """Extreme units; in float32 of one quantity, because products of two would leave the range of the format."""
    if dtype == "float64":
        inner, outer, unit = (choices.one((0, -30, 30, -10, 10)) for _ in range(3))
        return inner, outer, unit
    k = choices.integer(0, 2)
    size = choices.one((-10, 10) if k == 2 else (-10, 10, -30, 30))
    return (size * (k == 0), size * (k == 1), size * (k == 2))


def spectrum(kind: str, log_condition: int, n: int) -> np.ndarray:
    """n curvatures, the largest of them 1."""
    values = np.logspace(0, -log_condition, n)
    if kind == "repeated":
        values[1:] = values[-1]
    elif kind == "singular" and n > 1:
        values[-1] = 0
    elif kind == "indefinite" and n > 1:
        values[-1] *= -1
    return values


class RandomProblem(hg.InnerProblem):
    """g = 10^a G(w/10^c, λ) and f = 10^b F(w/10^c, λ); in u = w/10^c

    G = mean of weighted losses of z(u), or uᵀAu/2 − cᵀu,  + penalties,
    F = mean of losses on dev, ‖u − t‖²/2 or tᵀu,  + Σ λ²/2 if `direct`.
    """

    def __init__(self, spec: Spec):
        super().__init__()
        rng = np.random.default_rng(spec.seed)
        self.spec, dtype = spec, DTYPES[spec.dtype]
        self.shapes = _shapes(spec)
        self.n = n = sum(math.prod(shape) for shape in self.shapes.values())
        inputs = spec.sizes[1] if spec.family in NETWORKS else n
        m = inputs + 4
        self.inner_unit, self.outer_unit, self.unit = (10.0**k for k in spec.scales)
        values = spectrum(spec.spectrum, spec.condition, inputs)
        Q = np.linalg.qr(rng.standard_normal((inputs, inputs)))[0]
        data = {"A": Q * values @ Q.T, "c": rng.standard_normal(n), "t": rng.standard_normal(n)}
        U = np.linalg.qr(rng.standard_normal((m, inputs)))[0] * math.sqrt(m)
        data |= {"X": U * np.sqrt(np.maximum(values, 0)) @ Q.T, "X_dev": rng.standard_normal((m, inputs))}
        data |= {"y": _targets(spec.family, rng, m), "y_dev": _targets(spec.family, rng, m)}
        data |= {"C": rng.standard_normal((n, 4)), "D": rng.standard_normal((n, GROUPS))}
        data["start"] = 0.5 * rng.standard_normal(n) * self.unit
        for name, value in data.items():
            self.register_buffer(name, torch.from_numpy(value).to(dtype))
        self.A = (self.A + self.A.T) / 2
        self._spaces = {part: _space(part, spec, n, rng) for part in spec.parts}

    A: Tensor
    c: Tensor
    t: Tensor
    C: Tensor
    D: Tensor
    X: Tensor
    y: Tensor
    X_dev: Tensor
    y_dev: Tensor
    start: Tensor

    def init_params(self):
        like = {name: self.c.new_empty(shape) for name, shape in self.shapes.items()}
        return {name: w.clone() for name, w in unflatten(self.start, like).items()}

    def hyperparameters(self):
        return self._spaces

    def initial(self, params: Tensors, hparams: Tensors) -> Tensors:
        if "start" not in hparams:
            return params
        return {name: hparams["start"] * w for name, w in params.items()}

    @property
    def tunes_initial(self) -> bool:
        return "start" in self.spec.parts

    def predict(self, u: Tensor, X: Tensor) -> Tensor:
        if self.spec.family not in NETWORKS:
            return X @ u
        named = unflatten(u, {name: u.new_empty(shape) for name, shape in self.shapes.items()})
        hidden = NETWORKS[self.spec.family](X @ named["W"].T + named.get("b", 0.0))
        return hidden @ named["v"] if "v" in named else hidden.sum(1)

    def of_examples(self, z: Tensor, y: Tensor) -> Tensor:
        return LOSSES.get(self.spec.family, LOSSES["squares"])(z, y)

    def outputs(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        u = flatten(params) / self.unit
        return u if self.spec.family == "quadratic" else self.predict(u, self.X)

    def loss_of_outputs(self, outputs: Tensor, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        u = flatten(params) / self.unit
        if self.spec.family == "quadratic":
            fit = outputs @ (self.A @ outputs) / 2 - self.c @ outputs
        else:
            losses = self.of_examples(outputs, self.y)
            if "simplex" in hparams:
                losses = losses * hparams["simplex"][torch.arange(len(losses)) % GROUPS] * GROUPS
            fit = losses.mean()
        return self.inner_unit * (fit + self.penalty(u, hparams))

    def penalty(self, u: Tensor, hparams: Tensors) -> Tensor:
        total = u.new_zeros(())
        if "l2" in hparams:
            total = total + hparams["l2"] * (u @ u) / 2
        if "each l2" in hparams:
            total = total + hparams["each l2"] @ u.square() / 2
        if "interval" in hparams:
            total = total + hparams["interval"] / (1 - hparams["interval"]) * (u @ u) / 2
        if "shift" in hparams:
            total = total - u @ (self.C @ hparams["shift"].flatten())
        if "simplex" in hparams and self.spec.family == "quadratic":
            total = total - u @ (self.D @ hparams["simplex"])
        if "empty" in hparams:
            total = total + hparams["empty"].sum() * u.sum()
        return total

    def inner_loss(self, params, hparams, batch):
        return self.loss_of_outputs(self.outputs(params, hparams, batch), params, hparams, batch)

    def outer_loss(self, params, hparams, batch):
        u = flatten(params) / self.unit
        if self.spec.outer == "linear":
            loss = self.t @ u
        elif self.spec.outer == "distance" or self.spec.family == "quadratic":
            loss = (u - self.t).square().sum() / 2
        else:
            loss = self.of_examples(self.predict(u, self.X_dev), self.y_dev).mean()
        if self.spec.direct:
            loss = loss + torch.stack([x.square().sum() for x in hparams.values()]).sum() / 2
        return self.outer_unit * loss


def _shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    if spec.family not in NETWORKS:
        return {"abc"[k]: (size,) for k, size in enumerate(spec.sizes)}
    hidden, inputs, num_tensors = spec.sizes
    return dict(list({"W": (hidden, inputs), "v": (hidden,), "b": (hidden,)}.items())[:num_tensors])


def _targets(family: str, rng: np.random.Generator, m: int) -> np.ndarray:
    if family in COUNTED:
        return rng.integers(0, COUNTED[family], m) * 1.0
    return rng.standard_normal(m)


def _space(part: str, spec: Spec, n: int, rng: np.random.Generator) -> hg.Hyperparameter:
    near = 10.0**spec.near
    value, constraint = {
        "l2": (10.0**spec.log_l2, hg.positive),
        "each l2": (10.0**spec.log_l2 * rng.uniform(1, 2, n), hg.positive),
        "shift": (rng.standard_normal((2, 2)), None),
        "simplex": (np.array([near / 2, near / 2, 1 - near]), hg.simplex),
        "interval": (near if rng.integers(2) else 1 - near, hg.unit_interval),
        "empty": (np.zeros(0), None),
        "start": (rng.standard_normal(), None),
        "lr": (0.1 * 10.0 ** (2 * spec.scales[2] - spec.scales[0]), hg.positive),
    }[part]
    init = torch.as_tensor(value, dtype=torch.float64)
    return hg.Hyperparameter(init) if constraint is None else hg.Hyperparameter(init, constraint=constraint)
