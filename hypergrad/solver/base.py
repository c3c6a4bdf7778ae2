"""The promise of an inner solver: a dynamics on named tensors."""

from abc import ABC, abstractmethod

from torch import Tensor

from hypergrad.autodiff import Tensors
from hypergrad.problem.base import InnerProblem
from hypergrad.validation import require_real

State = dict[str, Tensors]
"""The solver's state: `params`, and what else a dynamics carries along, such as `velocity`."""


class InnerSolver(ABC):
    """How the inner problem is trained: s_{t+1} = Φ(s_t, λ, t), each step a pure function of its arguments.

    A coefficient such as the learning rate is a number or the name of a hyperparameter; a hyperparameter of shape ()
    holds for every step, one of shape (T,) is a schedule for T inner steps. A step can be differentiated where grad
    mode is enabled, and keeps no graph under `torch.no_grad()`.
    """

    def init(self, params: Tensors) -> State:
        """The state s₀ from which training starts at `params`."""
        return {"params": params}

    def start(self, problem: InnerProblem, params: Tensors, hparams: Tensors) -> State:
        """The state s₀ of a run on `problem` that is given `params` to start from."""
        return self.init(problem.initial(params, hparams))

    def step(self, problem: InnerProblem, state: State, hparams: Tensors, t: int) -> State:
        """The state after one step on `problem.inner_batch(t)`, t ≥ 0; `state` is not changed."""
        _, grad = problem.inner_loss_and_gradient(state["params"], hparams, problem.inner_batch(t))
        return self.update(state, grad, hparams, t)

    @abstractmethod
    def update(self, state: State, grad: Tensors, hparams: Tensors, t: int) -> State:
        """The state after a step along `grad`, shaped as the parameters."""

    def params(self, state: State) -> Tensors:
        """The parameters in a state."""
        return state["params"]

    def coefficients(self) -> dict[str, float | str]:
        """The coefficients by the name of their field."""
        return {}

    def largest_lr(self, curvature: float, hparams: Tensors, t: int) -> float | None:
        """The learning rate above which step t is unstable where the largest curvature is `curvature` > 0."""
        return None

    def validate(self, hparams: Tensors, inner_steps: int) -> None:
        """Check that every coefficient that names a hyperparameter names one of the right shape.

        Raises:
            ValueError: if it does not.
        """
        for field, name in self.coefficients().items():
            if not isinstance(name, str):
                continue
            where = f"{type(self).__name__}.{field} = {name!r}"
            if name not in hparams:
                raise ValueError(
                    f"{where} is neither a number nor the name of a hyperparameter; the problem has "
                    f"{', '.join(sorted(hparams))}."
                )
            shape = tuple(hparams[name].shape)
            if shape not in ((), (inner_steps,)):
                raise ValueError(
                    f"{where} has shape {shape}, but a coefficient is a scalar, or a schedule of shape "
                    f"({inner_steps},) with one value per inner step."
                )


def coefficient(value: float | str, hparams: Tensors, t: int) -> float | Tensor:
    """The value of a coefficient at step t: itself, or (the t-th entry of) the hyperparameter that it names.

    Steps count on across outer steps when training is warm-started, and a schedule then starts anew.
    """
    if not isinstance(value, str):
        return value
    tensor = hparams[value]
    return tensor if tensor.ndim == 0 else tensor[t % len(tensor)]


def require_coefficient(
    owner: InnerSolver, name: str, *, above: float | None = None, least: float | None = None
) -> None:
    """Require that field `name` is the name of a hyperparameter, or a finite number in range.

    Raises:
        TypeError: if it is neither a string nor a number.
        ValueError: if the number is out of range.
    """
    if not isinstance(getattr(owner, name), str):
        require_real(owner, name, above=above, least=least)
