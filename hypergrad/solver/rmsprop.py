"""RMSprop."""

from dataclasses import dataclass

import torch

from hypergrad.core.autodiff import Tensors
from hypergrad.core.validation import require_instance
from hypergrad.solver.adam import root_of_second_moment
from hypergrad.solver.base import InnerSolver, State
from hypergrad.solver.coefficient import Coefficient, Coefficients, ranged
from hypergrad.solver.weight_decay import decayed


@dataclass(frozen=True, kw_only=True)
class RMSprop(InnerSolver):
    """RMSprop on d_t = ∇g(w_t) + weight_decay w_t, from v₀ = m₀ = u₀ = 0, entry by entry.

    v_{t+1} = α v_t + (1 − α) d_t²,    m_{t+1} = α m_t + (1 − α) d_t,
    u_{t+1} = β u_t + d_t / (√(v_{t+1} − m_{t+1}²) + eps),    w_{t+1} = w_t − lr u_{t+1},

    with m = 0 unless `centered`. The same update as `torch.optim.RMSprop`, except that a variance v − m² that is
    negative by rounding counts as 0. The state is `params`, `second_moment` v, `velocity` u and, if centred,
    `first_moment` m.

    Attributes:
        lr: learning rate, > 0.
        alpha: decay α of the means, ≥ 0 and < 1; a centred variance is always 0 if α = 0.
        eps: added to the root, > 0, in units of the gradient.
        momentum: decay β of the velocity, ≥ 0 and < 1.
        weight_decay: of an L2 penalty ½ weight_decay ‖w‖² that is not part of g, ≥ 0.
        centered: divide by the standard deviation of the gradients instead of the root of their mean square.

    Source: Tieleman & Hinton, "Lecture 6.5: RMSprop", Coursera (2012); Graves, "Generating sequences with recurrent
    neural networks" (2013).
    """

    lr: Coefficient = ranged(1e-2, above=0)
    alpha: Coefficient = ranged(0.99, least=0, below=1)
    eps: Coefficient = ranged(1e-8, above=0)
    momentum: Coefficient = ranged(0.0, least=0, below=1)
    weight_decay: Coefficient = ranged(0.0, least=0)
    centered: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_instance(self, "centered", bool)

    def init(self, params: Tensors) -> State:
        moments = ("second_moment", "velocity", "first_moment") if self.centered else ("second_moment", "velocity")
        return {"params": params} | {
            moment: {name: torch.zeros_like(w) for name, w in params.items()} for moment in moments
        }

    def update(self, state: State, grad: Tensors, coefficients: Coefficients, t: int) -> State:
        params, fields = state["params"], ("lr", "alpha", "eps", "momentum", "weight_decay")
        lr, alpha, eps, beta, decay = (coefficients[field] for field in fields)
        d = decayed(grad, params, decay)
        v = {name: alpha[name] * old + (1 - alpha[name]) * d[name] ** 2 for name, old in state["second_moment"].items()}
        after: State = {"second_moment": v}
        if self.centered:
            m = {name: alpha[name] * old + (1 - alpha[name]) * d[name] for name, old in state["first_moment"].items()}
            after["first_moment"], v = m, {name: v[name] - m[name] ** 2 for name in v}
        u = {
            name: beta[name] * old + d[name] / (root_of_second_moment(v[name]) + eps[name])
            for name, old in state["velocity"].items()
        }
        return {"params": {name: w - lr[name] * u[name] for name, w in params.items()}, **after, "velocity": u}
