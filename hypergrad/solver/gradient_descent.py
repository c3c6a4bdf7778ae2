"""Gradient descent."""

from dataclasses import dataclass

from hypergrad.core.autodiff import Tensors
from hypergrad.solver.all_tensors import scaled_sums
from hypergrad.solver.base import InnerSolver, State
from hypergrad.solver.coefficient import Coefficient, Coefficients, Values, one_for_all, ranged
from hypergrad.solver.weight_decay import decayed


@dataclass(frozen=True, kw_only=True)
class GradientDescent(InnerSolver):
    """Gradient descent, w_{t+1} = w_t − lr (∇g(w_t) + weight_decay w_t).

    The same update as `torch.optim.SGD`. Stable on a quadratic for lr < 2/(λ_max + weight_decay), where λ_max is the
    largest eigenvalue of the Hessian of g. The state is `params`.

    Attributes:
        lr: learning rate, > 0.
        weight_decay: of an L2 penalty ½ weight_decay ‖w‖² that is not part of g, ≥ 0.

    Examples:
        >>> problem = hg.Ridge(hg.diabetes(), l2=0.1)
        >>> for steps in (0, 10, 100):
        ...     training = hg.Training(solver=hg.GradientDescent(lr=0.1), steps=steps)
        ...     trained = training.run(problem, problem.init_hparams(), problem.init_params())
        ...     print(f"inner loss {trained.report.loss:.4f} after {steps} steps")
        inner loss 0.9955 after 0 steps
        inner loss 0.5108 after 10 steps
        inner loss 0.5088 after 100 steps

    Source: Cauchy, "Méthode générale pour la résolution des systèmes d'équations simultanées" (1847).
    """

    lr: Coefficient = ranged(0.1, above=0)
    weight_decay: Coefficient = ranged(0.0, least=0)

    def update(self, state: State, grad: Tensors, coefficients: Coefficients, t: int) -> State:
        params, lr = state["params"], coefficients["lr"]
        grad = decayed(grad, params, coefficients["weight_decay"])
        return {"params": scaled_sums(params, lr, grad, sign=-1)}

    def largest_lr(self, curvature: float, values: Values) -> float | None:
        decay = one_for_all(values["weight_decay"])
        return None if decay is None else 2 / (curvature + decay)
