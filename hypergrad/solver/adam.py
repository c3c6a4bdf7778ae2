"""Adam."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.torch_internals.operations import (
    foreach_add,
    foreach_clamp_min,
    foreach_div,
    foreach_mul,
    foreach_sqrt,
    foreach_sub,
)
from hypergrad.solver.all_tensors import shared
from hypergrad.solver.base import InnerSolver, State
from hypergrad.solver.coefficient import Coefficient, Coefficients, ranged
from hypergrad.solver.weight_decay import decayed


@dataclass(frozen=True, kw_only=True)
class Adam(InnerSolver):
    """Adam on d_t = ∇g(w_t) + weight_decay w_t, from m₀ = v₀ = 0, entry by entry.

    m_{t+1} = β₁ m_t + (1 − β₁) d_t,    v_{t+1} = β₂ v_t + (1 − β₂) d_t²,
    w_{t+1} = w_t − lr m̂ / (√v̂ + eps)    with    m̂ = m_{t+1}/(1 − β₁^{t+1}),  v̂ = v_{t+1}/(1 − β₂^{t+1}).

    The same update as `torch.optim.Adam(betas=(β₁, β₂))`. It is differentiable where an entry's gradient has always
    been 0, with the steep slope lr/eps; see `root_of_second_moment`. The state is `params`, `first_moment` m and
    `second_moment` v.

    Attributes:
        lr: learning rate, > 0; the length of the first step in each entry.
        beta1: decay β₁ of the mean gradient, ≥ 0 and < 1.
        beta2: decay β₂ of the mean squared gradient, ≥ 0 and < 1.
        eps: added to the root, > 0, in units of the gradient.
        weight_decay: of an L2 penalty ½ weight_decay ‖w‖² that is not part of g, ≥ 0.

    Source: Kingma & Ba, "Adam: a method for stochastic optimization", ICLR (2015).
    """

    lr: Coefficient = ranged(1e-3, above=0)
    beta1: Coefficient = ranged(0.9, least=0, below=1)
    beta2: Coefficient = ranged(0.999, least=0, below=1)
    eps: Coefficient = ranged(1e-8, above=0)
    weight_decay: Coefficient = ranged(0.0, least=0)

    def init(self, params: Tensors) -> State:
        return with_moments(params)

    def update(self, state: State, grad: Tensors, coefficients: Coefficients, t: int) -> State:
        return adapted(state, decayed(grad, state["params"], coefficients["weight_decay"]), coefficients, t)


def with_moments(params: Tensors) -> State:
    """The state of Adam before its first step."""
    zeros = {name: torch.zeros_like(w) for name, w in params.items()}
    return {"params": params, "first_moment": zeros, "second_moment": dict(zeros)}


def adapted(state: State, d: Tensors, coefficients: Coefficients, t: int) -> State:
    """The state after a step of Adam along d, without weight decay."""
    fields = "lr", "beta1", "beta2", "eps"
    one_for_all = shared(coefficients, fields, d)
    if one_for_all is not None:
        return _adapted_at_once(state, d, one_for_all, t)
    lr, beta1, beta2, eps = (coefficients[field] for field in fields)
    m = {name: beta1[name] * old + (1 - beta1[name]) * d[name] for name, old in state["first_moment"].items()}
    v = {name: beta2[name] * old + (1 - beta2[name]) * d[name] ** 2 for name, old in state["second_moment"].items()}
    moved: Tensors = {}
    for name, w in state["params"].items():
        rate = lr[name] / (1 - beta1[name] ** (t + 1))
        spread = root_of_second_moment(v[name]) / (1 - beta2[name] ** (t + 1)) ** 0.5 + eps[name]
        moved[name] = w - rate * m[name] / spread
    return {"params": moved, "first_moment": m, "second_moment": v}


def _adapted_at_once(state: State, d: Tensors, coefficients: Sequence[float | Tensor], t: int) -> State:
    """`adapted` by fourteen operations for all tensors, without a graph; the bits are the same."""
    lr, beta1, beta2, eps = coefficients
    names = list(state["params"])
    w, m, v = ([state[group][name] for name in names] for group in ("params", "first_moment", "second_moment"))
    g = [d[name] for name in names]
    m = foreach_add(foreach_mul(m, beta1), foreach_mul(g, 1 - beta1))
    v = foreach_add(foreach_mul(v, beta2), foreach_mul(foreach_mul(g, g), 1 - beta2))
    root = foreach_sqrt(foreach_clamp_min(v, torch.finfo(v[0].dtype).tiny))
    spread = foreach_add(foreach_div(root, (1 - beta2 ** (t + 1)) ** 0.5), eps)
    moved = foreach_mul(m, lr / (1 - beta1 ** (t + 1)))
    w = foreach_sub(w, foreach_div(moved, spread))
    groups = {"params": w, "first_moment": m, "second_moment": v}
    return {group: dict(zip(names, tensors, strict=True)) for group, tensors in groups.items()}


def root_of_second_moment(v: Tensor) -> Tensor:
    """√v, with derivative 0 at v = 0.

    v is 0 only if all gradients were 0, and then the mean m is 0 too. There the slope of the step −lr m/(√v + eps) in
    √v is ∝ m = 0, so its derivative is the finite one through m. Without this rule autograd would compute 0 · ∞. Below
    the smallest normal number the root is constant; `require_normal_squares` sees to it that this is negligible
    beside eps.
    """
    return v.clamp_min(torch.finfo(v.dtype).tiny).sqrt()
