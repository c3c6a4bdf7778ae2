"""Adagrad."""

from dataclasses import dataclass

from hypergrad.core.autodiff import Tensors
from hypergrad.solver.adam import root_of_second_moment
from hypergrad.solver.base import InnerSolver, State
from hypergrad.solver.coefficient import Coefficient, Coefficients, ranged
from hypergrad.solver.weight_decay import decayed


@dataclass(frozen=True, kw_only=True)
class Adagrad(InnerSolver):
    """Adagrad on d_t = ∇g(w_t) + weight_decay w_t, from s₀ = 0, entry by entry.

    s_{t+1} = s_t + d_t²,    w_{t+1} = w_t − lr/(1 + t lr_decay) d_t / (√(s_{t+1} + initial_accumulator_value) + eps).

    The same update as `torch.optim.Adagrad`, differentiable also where an entry's gradient has always been 0; see
    `root_of_second_moment`. The state is `params` and `sum_of_squares` s, which is without the initial value.

    Attributes:
        lr: learning rate, > 0; without an initial value, the length of the first step in each entry.
        lr_decay: by which the learning rate falls with the steps, ≥ 0.
        weight_decay: of an L2 penalty ½ weight_decay ‖w‖² that is not part of g, ≥ 0.
        initial_accumulator_value: added to s in every step, so that it can be tuned, ≥ 0, in units of d².
        eps: added to the root, > 0, in units of the gradient.

    Source: Duchi, Hazan & Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
    JMLR (2011).
    """

    lr: Coefficient = ranged(1e-2, above=0)
    lr_decay: Coefficient = ranged(0.0, least=0)
    weight_decay: Coefficient = ranged(0.0, least=0)
    initial_accumulator_value: Coefficient = ranged(0.0, least=0)
    eps: Coefficient = ranged(1e-10, above=0)

    def init(self, params: Tensors) -> State:
        return {"params": params, "sum_of_squares": {name: w.new_zeros(w.shape) for name, w in params.items()}}

    def update(self, state: State, grad: Tensors, coefficients: Coefficients, t: int) -> State:
        lr, decay, initial, eps = (coefficients[k] for k in ("lr", "lr_decay", "initial_accumulator_value", "eps"))
        d = decayed(grad, state["params"], coefficients["weight_decay"])
        s = {name: old + d[name] ** 2 for name, old in state["sum_of_squares"].items()}
        rate = {k: lr[k] / (1 + t * decay[k]) / (root_of_second_moment(v + initial[k]) + eps[k]) for k, v in s.items()}
        return {"params": {name: w - rate[name] * d[name] for name, w in state["params"].items()}, "sum_of_squares": s}
