"""One move of each single-loop method in extended precision, as the docstring of the method defines it.

All batches are whole. A memory is that of the method as named arrays, with w; a move gives D_λ and the next w.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath as mp
import numpy as np
import torch
from problems import GROUPS, NETWORKS
from problems_known import STEP, Array, Known, exp, flat, norm, of_tensors, tanh
from runs_known import UPDATES

import hypergrad as hg
from hypergrad.core.autodiff import flatten

Memory = dict[str, Array]
Found = tuple[Array, Array]
"""D_λ and the next w."""
log1p = np.frompyfunc(mp.log1p, 1, 1)


def softplus(z: Array) -> Array:
    return np.where(z > 0, z, 0) + log1p(exp(-abs(z)))


LOSSES: dict[str, Callable[[Array, Array], Array]] = {
    "squares": lambda z, y: (z - y) ** 2 / 2,
    "logistic": lambda z, y: softplus(z) - y * z,
    "poisson": lambda z, y: exp(z) - y * z,
    "softplus": lambda z, y: softplus(z - y) + softplus(y - z),
    "huber": lambda z, y: np.where(abs(z - y) < 0.5, (z - y) ** 2 / 2, (abs(z - y) - mp.mpf(1) / 4) / 2),
    "absolute": lambda z, y: abs(z - y),
    "hinge": lambda z, y: np.maximum(1 - (2 * y - 1) * z, 0),
}
"""ℓ(z, y)."""


@dataclass(frozen=True)
class Terms:
    """The terms of a move at λ, each with the rounding error that is asked for."""

    known: Known
    hp: dict[str, Array]
    rounded: Callable[[Array], Array]

    def inner(self, w: Array) -> Array:
        """∇_w g."""
        return self.rounded(self.known.phi(w, self.hp))

    def outer(self, w: Array) -> tuple[Array, Array]:
        """∇_w f and ∇_λ f, flat."""
        wrt_w, wrt_hp = self.known.outer(w, self.hp)
        return self.rounded(wrt_w), self.rounded(flat(wrt_hp))

    def hvp(self, w: Array, v: Array) -> Array:
        return self.rounded(self.known.jacobian(w, self.hp) @ v)

    def mixed(self, w: Array, v: Array) -> Array:
        return self.rounded(v @ self.known.mixed(w, self.hp))

    def inner_wrt_hparams(self, w: Array) -> Array:
        """∇_λ g, flat, by hand."""
        inner, _, unit = self.known.units
        slopes = {name: inner * self._slope(name, w / unit) for name in self.hp}
        return self.rounded(flat(slopes))

    def _slope(self, name: str, u: Array) -> Array:
        x, data, family = self.hp[name], self.known.data, self.known.spec.family
        if name == "each l2":
            return u * u / 2
        if name == "shift":
            return -(data["C"].T @ u).reshape(x.shape)
        if name == "empty":
            return np.zeros(0, dtype=object)
        if name == "simplex" and family == "quadratic":
            return -(data["D"].T @ u)
        if name == "simplex":
            each = LOSSES.get(family, LOSSES["squares"])(self._outputs(u), data["y"])
            return GROUPS * np.array([each[k::GROUPS].sum() for k in range(GROUPS)], dtype=object) / len(each)
        half = np.array(u @ u / 2, dtype=object)
        return half if name == "l2" else half / (1 - x) ** 2

    def _outputs(self, u: Array) -> Array:
        X = self.known.data["X"]
        if self.known.spec.family not in NETWORKS:
            return X @ u
        named = self.known.named(u)
        before = X @ named["W"].T + named.get("b", 0)
        hidden = tanh(before) if self.known.spec.family == "tanh" else before * (before > 0)
        return hidden @ named["v"] if "v" in named else hidden.sum(1)


def _sampled(terms: Terms, w: Array, v: Array) -> tuple[Array, Array, Array]:
    """D_w, D_v and D_λ of SOBA."""
    f_w, f_hp = terms.outer(w)
    return terms.inner(w), terms.hvp(w, v) + f_w, terms.mixed(w, v) + f_hp


def soba(terms: Terms, m: Memory, lr: Any, t: int) -> Found:
    D_w, _, D_hp = _sampled(terms, m["w"], m["v"])
    return D_hp, m["w"] - lr * D_w


def masoba(terms: Terms, m: Memory, lr: Any, t: int) -> Found:
    D_hp, w = soba(terms, m, lr, t)
    return m["average"] + mp.mpf(0.1) * (D_hp - m["average"]), w


def saba(terms: Terms, m: Memory, lr: Any, t: int) -> Found:
    """With one batch the row of a table is the average of its rows, so that both cancel."""
    f_w, f_hp = terms.outer(m["w"])
    of_g = np.concatenate([terms.inner(m["w"]), terms.hvp(m["w"], m["v"]), terms.mixed(m["w"], m["v"])])
    of_f = np.concatenate([f_w, f_hp])
    of_g = terms.rounded(of_g - m["inner row"]) + m["inner average"]
    of_f = terms.rounded(of_f - m["outer row"]) + m["outer average"]
    n = len(m["w"])
    return of_g[2 * n :] + of_f[n:], m["w"] - lr * of_g[:n]


def srba(terms: Terms, m: Memory, lr: Any, t: int) -> Found:
    """Every second move is on all data, which with one batch is SOBA."""
    D_w, _, D_hp = now = _sampled(terms, m["w"], m["v"])
    if t % 2:
        before = _sampled(terms, m["w before"], m["v before"])
        D_w, D_hp = (m[name] + terms.rounded(now[k] - before[k]) for name, k in (("D_w", 0), ("D_hp", 2)))
    return D_hp, m["w"] - lr * D_w


def amigo(terms: Terms, m: Memory, lr: Any, t: int) -> Found:
    w, v = m["w"], m["v"]
    for _ in range(10):
        w = terms.rounded(w - lr * terms.inner(w))
    f_w, f_hp = terms.outer(w)
    H = terms.known.jacobian(w, terms.hp)
    for _ in range(10):
        v = terms.rounded(v - lr * (terms.rounded(H @ v) + f_w))
    return terms.mixed(w, v) + f_hp, w


def bome(terms: Terms, m: Memory, lr: Any, t: int) -> Found:
    ahead, (f_w, f_hp), g_w = m["w"], terms.outer(m["w"]), terms.inner(m["w"])
    for _ in range(10):
        ahead = terms.rounded(ahead - mp.mpf(0.1) * terms.inner(ahead))
    q_hp = terms.inner_wrt_hparams(m["w"]) - terms.inner_wrt_hparams(ahead)
    squared, dot = g_w @ g_w + q_hp @ q_hp, f_w @ g_w + f_hp @ q_hp
    s = max(mp.mpf(0.5) - dot / squared, 0) if squared > 0 else 0
    return f_hp + s * q_hp, m["w"] - lr * (f_w + s * g_w)


def f2sa(terms: Terms, m: Memory, lr: Any, t: int) -> Found:
    s, (f_w, f_hp) = mp.mpf(10 + 0.01 * t), terms.outer(m["w"])
    difference = terms.inner_wrt_hparams(m["w"]) - terms.inner_wrt_hparams(m["z"])
    return f_hp + s * difference, m["w"] - lr * (terms.inner(m["w"]) + f_w / s)


def meha(terms: Terms, m: Memory, lr: Any, t: int) -> Found:
    """The smoothing is 1."""
    c, w, theta = mp.mpf(10 * (t + 1) ** 0.25), m["w"], m["theta"]
    theta = terms.rounded(theta - lr * (terms.inner(theta) + theta - w))
    f_w, f_hp = terms.outer(w)
    difference = terms.inner_wrt_hparams(w) - terms.inner_wrt_hparams(theta)
    return f_hp + c * difference, w - lr * (f_w / c + terms.inner(w) - (w - theta))


def sama(terms: Terms, m: Memory, lr: Any, t: int) -> Found:
    """With the derivative of Adam's step by a difference, and the documented differences along u."""
    options = {"beta1": mp.mpf(0.9), "beta2": mp.mpf(0.999), "eps": mp.mpf(1e-8)}
    w, grad = m["w"], terms.inner(m["w"])
    state = {"w": w, "m": m["mean"], "v": m["square"]}

    def step(g: Array) -> Array:
        return UPDATES["Adam"](state, g, lr, t, options, terms.rounded)["w"]

    after = step(grad)
    change = STEP * np.where(grad == 0, mp.mpf(1), abs(grad))
    exactly = Terms(terms.known, terms.hp, lambda x: x)
    plain = [UPDATES["Adam"](state, g, lr, t, options, exactly.rounded)["w"] for g in (grad, grad + change)]
    f_w, f_hp = terms.outer(after)
    u = terms.rounded((plain[1] - plain[0]) / change * f_w)
    h = max(norm(w), mp.mpf(1)) * m["relative step"][0] / norm(u) if norm(u) else mp.mpf(1)
    ends = [terms.inner_wrt_hparams(terms.rounded(w + way * h * u)) for way in (1, -1)]
    return f_hp + (ends[0] - ends[1]) / (2 * h), after


MOVES: dict[str, Callable[[Terms, Memory, Any, int], Found]] = {
    "soba": soba,
    "masoba": masoba,
    "saba": saba,
    "srba": srba,
    "sama": sama,
    "amigo": amigo,
    "bome": bome,
    "f2sa": f2sa,
    "meha": meha,
}


def memory_of(method: str, memory: dict[str, Any], eps: float) -> Memory:
    """The memory of a method as named arrays.

    Args:
        method: a name in `MOVES`.
        memory: as the method keeps it.
        eps: of the dtype.
    """
    kept: dict[str, Any] = {name: memory[name] for name in ("v", "average") if name in memory}
    kept |= {name: flatten(memory[name]) for name in ("z", "theta") if name in memory}
    if method == "saba":
        for name in ("inner", "outer"):
            kept |= {f"{name} row": memory[name]["rows"][0], f"{name} average": memory[name]["average"]}
    if method == "srba":
        (D_w, _, D_hp, _), before = memory["D"], memory["before"]
        kept |= {"D_w": D_w, "D_hp": D_hp, "w before": flatten(before["params"]), "v before": before["v"]}
    if method == "sama":
        state = memory["solver"]
        kept |= {"mean": flatten(state["first_moment"]), "square": flatten(state["second_moment"])}
        kept["relative step"] = torch.tensor([eps ** (1 / 3)], dtype=torch.float64)
    return of_tensors(kept)


def step_of(method: hg.Method, memory: dict[str, Any]) -> Any:
    """The step of w, which is in the memory if the method has no solver."""
    lr: Any = method.with_inner_step(memory.get("inner_lr", 1.0)).known_solver.coefficients()["lr"]
    return mp.mpf(lr)
