"""Fixed-point iteration on a condition of the problem's own."""

from dataclasses import dataclass

from hypergrad.problem.oracle import Oracle
from hypergrad.solver.base import InnerSolver, State
from hypergrad.solver.coefficient import Coefficient, Coefficients, ranged


@dataclass(frozen=True, kw_only=True)
class FixedPoint(InnerSolver):
    """Damped fixed-point iteration, w_{t+1} = w_t − rate φ(w_t, λ), for problems that define a condition φ(w, λ) = 0.

    For φ(w, λ) = w − G(w, λ) it is w_{t+1} = (1 − rate) w_t + rate G(w_t, λ): updates of mean-field inference, layers
    at equilibrium. It converges if the eigenvalues of ∂φ/∂w lie in the disc of radius 1/rate around 1/rate. For
    problems with φ = ∇g it is gradient descent with learning rate `rate`. The state is `params`.

    Attributes:
        rate: how far to go towards G, > 0; below 1 it damps oscillations.

    Source: Picard, "Mémoire sur la théorie des équations aux dérivées partielles et la méthode des approximations
    successives" (1890).
    """

    rate: Coefficient = ranged(0.1, above=0)

    def step(self, oracle: Oracle, state: State, coefficients: Coefficients, t: int) -> State:
        params, rate = state["params"], coefficients["rate"]
        phi = oracle.optimality(params)
        return {"params": {name: w - rate[name] * phi[name] for name, w in params.items()}}
