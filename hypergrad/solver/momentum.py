"""Gradient descent with momentum: heavy ball or Nesterov."""

from dataclasses import dataclass

import torch

from hypergrad.core.autodiff import Tensors
from hypergrad.core.validation import require_instance
from hypergrad.solver.all_tensors import scaled_sums
from hypergrad.solver.base import InnerSolver, State
from hypergrad.solver.coefficient import Coefficient, Coefficients, Values, one_for_all, ranged
from hypergrad.solver.weight_decay import decayed


@dataclass(frozen=True, kw_only=True)
class Momentum(InnerSolver):
    """Momentum on d_t = ∇g(w_t) + weight_decay w_t, with decay β and dampening δ, from v₀ = 0.

    v₁ = d₀,    v_{t+1} = β v_t + (1 − δ) d_t for t ≥ 1,
    w_{t+1} = w_t − lr v_{t+1}              (heavy ball),
    w_{t+1} = w_t − lr (d_t + β v_{t+1})    (Nesterov).

    The same update as `torch.optim.SGD`. Stable on a quadratic, with L = λ_max + weight_decay, for
    lr < 2 (1 + β)/((1 − δ) L) with the heavy ball and lr < 2 (1 + β)/((1 + 2 β) L) with Nesterov. The state is `params`
    and `velocity` v.

    Attributes:
        lr: learning rate, > 0.
        momentum: decay β, ≥ 0 and < 1.
        dampening: δ, ≥ 0 and < 1; 0 with Nesterov.
        weight_decay: of an L2 penalty ½ weight_decay ‖w‖² that is not part of g, ≥ 0.
        nesterov: step along d_t + β v_{t+1}, which looks one step ahead.

    Raises:
        ValueError: if nesterov is on and dampening is not 0.

    Examples:
        >>> train, dev, test = hg.digits()
        >>> model, loss = hg.softmax_regression(64, 10), torch.nn.CrossEntropyLoss()
        >>> rate = hg.Hyperparameter(0.05, constraint=hg.positive)
        >>> problem = hg.Supervised(model=model, loss=loss, train=train, dev=dev, hyperparameters={"rate": rate})
        >>> estimator = hg.Unrolled(solver=hg.Momentum(lr="rate"), inner_steps=20)
        >>> found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
        >>> print(f"dF/dlr = {found.grad['rate']:.1f}")
        dF/dlr = -13.3

    Source: Polyak, "Some methods of speeding up the convergence of iteration methods" (1964); Sutskever, Martens, Dahl
    & Hinton, "On the importance of initialization and momentum in deep learning", ICML (2013).
    """

    lr: Coefficient = ranged(0.1, above=0)
    momentum: Coefficient = ranged(0.9, least=0, below=1)
    dampening: Coefficient = ranged(0.0, least=0, below=1)
    weight_decay: Coefficient = ranged(0.0, least=0)
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_instance(self, "nesterov", bool)
        if self.nesterov and self.dampening != 0:
            raise ValueError(f"Nesterov's momentum has no dampening, but it is {self.dampening!r}; leave it at 0.")

    def init(self, params: Tensors) -> State:
        return {"params": params, "velocity": {name: torch.zeros_like(w) for name, w in params.items()}}

    def update(self, state: State, grad: Tensors, coefficients: Coefficients, t: int) -> State:
        params, lr, beta = state["params"], coefficients["lr"], coefficients["momentum"]
        d = decayed(grad, params, coefficients["weight_decay"])
        pushed = d
        if self.dampening != 0:
            delta = coefficients["dampening"]
            pushed = {name: (1 - delta[name] * (t > 0)) * x for name, x in d.items()}
        v = scaled_sums(pushed, beta, state["velocity"])
        ahead = scaled_sums(d, beta, v) if self.nesterov else v
        return {"params": scaled_sums(params, lr, ahead, sign=-1), "velocity": v}

    def largest_lr(self, curvature: float, values: Values) -> float | None:
        beta, delta, decay = (one_for_all(values[field]) for field in ("momentum", "dampening", "weight_decay"))
        if beta is None or delta is None or decay is None:
            return None
        return 2 * (1 + beta) / ((1 + 2 * beta if self.nesterov else 1 - delta) * (curvature + decay))
