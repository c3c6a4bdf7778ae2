"""Adam with decoupled weight decay."""

from dataclasses import dataclass

from hypergrad.core.autodiff import Tensors
from hypergrad.solver.adam import adapted, with_moments
from hypergrad.solver.base import InnerSolver, State
from hypergrad.solver.coefficient import Coefficient, Coefficients, ranged


@dataclass(frozen=True, kw_only=True)
class AdamW(InnerSolver):
    """Adam on d_t = ∇g(w_t), after the parameters have shrunk to (1 − lr weight_decay) w_t.

    The decay is not divided by the size of the gradient, unlike an L2 penalty in `Adam`. So the fixed point of the
    steps is not that of g plus a penalty, but where lr m̂/(√v̂ + eps) balances the shrinking. The same update as
    `torch.optim.AdamW(betas=(β₁, β₂))`. State as in `Adam`.

    Attributes:
        lr: learning rate, > 0; the length of the first step in each entry.
        beta1: decay β₁ of the mean gradient, ≥ 0 and < 1.
        beta2: decay β₂ of the mean squared gradient, ≥ 0 and < 1.
        eps: added to the root of the mean squared gradient, > 0, in units of the gradient.
        weight_decay: shrinking per step and unit of lr, ≥ 0.

    Source: Loshchilov & Hutter, "Decoupled weight decay regularization", ICLR (2019).
    """

    lr: Coefficient = ranged(1e-3, above=0)
    beta1: Coefficient = ranged(0.9, least=0, below=1)
    beta2: Coefficient = ranged(0.999, least=0, below=1)
    eps: Coefficient = ranged(1e-8, above=0)
    weight_decay: Coefficient = ranged(0.01, least=0)

    def init(self, params: Tensors) -> State:
        return with_moments(params)

    def update(self, state: State, grad: Tensors, coefficients: Coefficients, t: int) -> State:
        lr, decay = coefficients["lr"], coefficients["weight_decay"]
        shrunk = {name: (1 - lr[name] * decay[name]) * w for name, w in state["params"].items()}
        return adapted({**state, "params": shrunk}, grad, coefficients, t)
