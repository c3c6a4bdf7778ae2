"""The promise of an inner solver: a dynamics on named tensors."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.validation import require_real
from hypergrad.problem.base import InnerProblem
from hypergrad.solver.coefficient import Coefficient, Range, coefficient, groups_of, require_fitting, root

State = dict[str, Tensors]
"""The solver's state: `params`, and what else a dynamics carries along, such as `velocity`, each shaped as the
parameters; which those are is said by each solver. The number of the step is no part of it."""

_LEFT_OUT = {
    "maximize": "an inner problem is minimised; change the sign of its inner loss",
    "amsgrad": "its running maximum has a kink at every new maximum; leave it out",
    "betas": "each decay can be tuned; give them as beta1 and beta2",
}
"""Options of `torch.optim` that are no option here, and what to do instead."""


@dataclass(frozen=True, kw_only=True)
class InnerSolver:
    """How the inner problem is trained: s_{t+1} = Φ(s_t, λ, t), each step a pure function of its arguments.

    A solver defines `update`, or `step` where it needs more than the gradient. A step can be differentiated where grad
    mode is enabled, and keeps no graph under `torch.no_grad()`.

    A coefficient such as the learning rate is a number, a `Schedule`, or the name of a hyperparameter, whose first axis
    is the inner step and whose second axis is the group of tensors. For T inner steps and G groups it has shape

    - () for one value,
    - (T,) for one per step,
    - (1, G) for one per group (not (G,), which could not be told from a schedule where T = G),
    - (T, G) for one per step and group.

    Attributes:
        groups: glob patterns such as ("*.weight", "*.bias"), of which each parameter's name must match exactly one, and
            which number the groups; None makes each tensor a group, in the order of `init_params()`.
    """

    differentiable: ClassVar[bool] = True
    """Whether a step can be differentiated, as `Unrolled` does; an implicit estimator needs no such thing."""
    check_every: ClassVar[int] = 20
    """Steps between two looks at the gradient norm while training to a tolerance, each of which costs a gradient."""

    groups: tuple[str, ...] | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> "InnerSolver":
        """Refuse what `torch.optim` has and we have not, with the reason.

        Raises:
            TypeError: if such an option is given.
        """
        for name in _LEFT_OUT.keys() & kwargs.keys():
            raise TypeError(f"{cls.__name__} has no option {name}: {_LEFT_OUT[name]}.")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if self.groups is not None:
            if isinstance(self.groups, str):
                raise TypeError(f"{type(self).__name__}.groups must be a list of patterns, but it is {self.groups!r}.")
            object.__setattr__(self, "groups", tuple(self.groups))
        for name, limits in self._ranges().items():
            if getattr(self, name) is not None or not limits.optional:
                require_coefficient(self, name, limits)

    def init(self, params: Tensors) -> State:
        """The state s₀ from which training starts at `params`."""
        return {"params": params}

    def start(self, problem: InnerProblem, params: Tensors, hparams: Tensors) -> State:
        """The state s₀ of a run on `problem` that is given `params` to start from."""
        return self.init(problem.initial(params, hparams))

    def step(self, problem: InnerProblem, state: State, hparams: Tensors, t: int, first_step: int = 0) -> State:
        """The state after step t of a run.

        Args:
            problem: gives the inner loss and its batches.
            state: after the steps before; not changed.
            hparams: λ in natural units.
            t: steps since `init`, ≥ 0, by which schedules and bias corrections go.
            first_step: index of the run's first batch, ≥ 0: this step sees `problem.inner_batch(first_step + t)`.

        Returns:
            The next state; the given one itself where rounding errors allow no further step.
        """
        batch = problem.inner_batch(first_step + t)
        _, grad = problem.inner_loss_and_gradient(state["params"], hparams, batch)
        return self.update(state, grad, hparams, t)

    def update(self, state: State, grad: Tensors, hparams: Tensors, t: int) -> State:
        """The state after step t along `grad`, shaped as the parameters.

        Raises:
            NotImplementedError: if the solver has a `step` of its own.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither update nor step, or only the latter.")

    def params(self, state: State) -> Tensors:
        """The parameters in a state."""
        return state["params"]

    def known(self, state: State) -> tuple[float, float] | None:
        """The inner loss and the norm of its gradient in a state, where the solver has them; None where it does not."""
        return None

    def coefficients(self) -> dict[str, Coefficient]:
        """The coefficients by the name of their field."""
        values = {name: getattr(self, name) for name in self._ranges()}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def decays(self) -> bool:
        """Whether weight decay leads the steps to another point than a minimum of the inner loss."""
        return self.coefficients().get("weight_decay", 0) != 0

    def largest_lr(self, curvature: float, hparams: Tensors, t: int) -> float | None:
        """The learning rate above which step t is unstable where the largest curvature is `curvature` > 0, if known."""
        return None

    def require(self, problem: InnerProblem) -> None:
        """Check that the solver can train the problem.

        Raises:
            ValueError: if it cannot; the message names a solver that can.
        """
        if not problem.is_smooth:
            raise ValueError(
                f"{type(self).__name__} needs a smooth inner loss, but that of {type(problem).__name__} has an L1 "
                "penalty, whose zeros it would never reach. Use ProximalGradient, or CoordinateDescent for a squared "
                "loss."
            )

    def validate(self, hparams: Tensors, inner_steps: int, params: Tensors) -> None:
        """Check that every coefficient fits a run of `inner_steps` steps on `params`.

        Raises:
            ValueError: if a coefficient names no hyperparameter, or one of the wrong shape or with values out of range,
                a schedule is longer than the run, or `groups` does not fit the parameters or serves no coefficient.
        """
        num_groups = 1 + max(groups_of(tuple(params), self.groups))
        by_group, ranges = False, self._ranges()
        for field, value in self.coefficients().items():
            where, limits = f"{type(self).__name__}.{field}", ranges.get(field, Range())
            require_fitting(where, value, limits, hparams, inner_steps, num_groups)
            name = root(value)
            by_group |= isinstance(name, str) and hparams[name].ndim == 2
        if self.groups is not None and not by_group:
            raise ValueError(
                f"{type(self).__name__}.groups is set, but no coefficient differs by group; leave it out, or name a "
                f"hyperparameter of shape (1, {num_groups}) or ({inner_steps}, {num_groups})."
            )

    def by_tensor(self, field: str, params: Tensors, hparams: Tensors, t: int) -> dict[str, float | Tensor]:
        """The value of a coefficient in step t for each of the parameter tensors, a number or of shape ()."""
        value = coefficient(getattr(self, field), hparams, t)
        if not isinstance(value, Tensor) or value.ndim == 0:
            return dict.fromkeys(params, value)
        entries = value.unbind()
        if self.groups is None:
            return dict(zip(params, entries, strict=True))
        groups = groups_of(tuple(params), self.groups)
        return {name: entries[group] for name, group in zip(params, groups, strict=True)}

    @classmethod
    def _ranges(cls) -> dict[str, Range]:
        return {field.name: field.metadata["range"] for field in fields(cls) if "range" in field.metadata}


def require_coefficient(owner: InnerSolver, name: str, limits: Range) -> None:
    """Require that field `name` is the name of a hyperparameter, or a finite number in range, or a schedule over them.

    Raises:
        ValueError: if the number is out of range.

    Also raised, by what it calls: TypeError if it is none of them.
    """
    value = getattr(owner, name)
    base = root(value)
    if isinstance(base, str):
        return
    if value is base:
        require_real(owner, name, above=limits.above, least=limits.least, below=limits.below)
    elif not limits.holds(base):
        raise ValueError(f"{type(owner).__name__}.{name} must be {limits}, but the base of {value} is {base:g}.")


def require_differentiable(owner: object, solver: InnerSolver) -> None:
    """Require that the steps of `solver` can be differentiated, which `owner` does.

    Raises:
        ValueError: if they cannot.
    """
    if not solver.differentiable:
        name = type(solver).__name__
        raise ValueError(
            f"{type(owner).__name__} differentiates through the training steps, but a step of {name} cannot be "
            f"differentiated: it is found by a search. Use Implicit (estimator=ift_cg), which needs only the "
            f"optimum that {name} finds, or a solver such as Momentum."
        )
