"""The promise of an inner solver: a dynamics on named tensors."""

from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.errors import UnusedHyperparameterError
from hypergrad.core.validation import require_instance
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.oracle import Oracle
from hypergrad.solver.coefficient import (
    ENTRY,
    Coefficient,
    Coefficients,
    Groups,
    Range,
    Values,
    by_tensor,
    coefficient,
    num_groups,
    root,
)
from hypergrad.solver.requirements import require_coefficient, require_contract, require_fitting, require_known

State = dict[str, Tensors]
"""The solver's state: `params`, and what else the dynamics needs, such as `velocity`, usually shaped as the parameters.
Each solver documents its own. The number of the step is not part of it."""


@dataclass(frozen=True, kw_only=True)
class InnerSolver:
    """How the inner problem is trained: s_{t+1} = Φ(s_t, λ, t), each step a pure function of its arguments.

    A solver of your own is a frozen keyword-only dataclass that defines `update`, as in

        lr: Coefficient = ranged(0.1, above=0)

        def update(self, state, grad, coefficients, t):
            return {"params": {k: w - coefficients["lr"][k] * grad[k] for k, w in state["params"].items()}}

    or `step`, if it needs more than the gradient at its parameters. It also defines `init`, if its state holds more
    than `params`. The returned state has the groups, names and shapes of the given one. A step can be differentiated if
    grad mode is enabled, and keeps no graph under `torch.no_grad()`. So it uses operations of torch, and changes none
    of its arguments. To be compiled, it may not branch on t or on values of tensors.

    A coefficient is a field made by `hg.ranged`. Its value is a number, a `Schedule`, or the name of a hyperparameter,
    whose first axis is the inner step and whose second axis is the group of tensors. For T inner steps and G groups the
    hyperparameter has shape

    - () for one value,
    - (T,) for one per step,
    - (1, G) for one per group (not (G,), which would look like a schedule if T = G),
    - (T, G) for one per step and group.

    Attributes:
        groups: glob patterns such as `("*.weight", "*.bias")`, one for each group. Each parameter's name must match
            exactly one of them. None makes each tensor a group, in the order of `init_params()`. "entry" makes each
            entry of each tensor a group, in the order of the flat parameters, so that G = n; see Li, Zhou, Chen & Li,
            "Meta-SGD: learning to learn quickly for few-shot learning" (2017).

    Raises:
        TypeError: if a subclass defines `step`, `update` or `largest_lr` with a parameter of earlier versions.
    """

    differentiable: ClassVar[bool] = True
    """Whether a step can be differentiated, which `Unrolled` and `Forward` require and `Implicit` does not."""
    same_batch: ClassVar[bool] = False
    """Whether all steps need the same batch, as a line search does."""
    check_every: ClassVar[int] = 20
    """Steps between two checks of the gradient norm while training to a tolerance; each check costs a gradient."""

    groups: Groups = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        require_contract(cls)

    def __new__(cls, *args: Any, **kwargs: Any) -> "InnerSolver":
        require_known(cls, kwargs)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if self.groups is not None and self.groups != ENTRY:
            if isinstance(self.groups, str):
                raise TypeError(
                    f'{type(self).__name__}.groups must be a list of patterns, or "{ENTRY}", but it is {self.groups!r}.'
                )
            object.__setattr__(self, "groups", tuple(self.groups))
        for name, limits in self._ranges().items():
            if getattr(self, name) is not None or not limits.optional:
                require_coefficient(self, name, limits)

    def init(self, params: Tensors) -> State:
        """The state s₀ from which training starts at `params`."""
        return {"params": params}

    def start(self, problem: InnerProblem, params: Tensors, hparams: Tensors) -> State:
        """The state s₀ of a run on `problem` that starts from `params`, after `problem.initial`."""
        return self.init(problem.initial(params, hparams))

    def step(self, oracle: Oracle, state: State, coefficients: Coefficients, t: int) -> State:
        """The state after step t of a run.

        Args:
            oracle: params ↦ (g, ∇g) at this λ and batch, which are `oracle.hparams` and `oracle.batch`.
            state: s_t; not changed.
            coefficients: of this step, by field and then by parameter tensor: `coefficients["lr"][name]` is a number or
                a tensor of shape (), or shaped as the parameter if `groups` is "entry".
            t: steps since `init`, ≥ 0, for bias corrections.

        Returns:
            The next state; the same object as `state` if rounding errors allow no further step.
        """
        _, grad = oracle(state["params"])
        return self.update(state, grad, coefficients, t)

    def update(self, state: State, grad: Tensors, coefficients: Coefficients, t: int) -> State:
        """The state after step t along `grad`, shaped as the parameters; see `step`.

        Raises:
            NotImplementedError: if the solver does not define it.
        """
        raise NotImplementedError(f"{type(self).__name__} defines neither update nor step, or only the latter.")

    def params(self, state: State) -> Tensors:
        """The parameters in a state."""
        return state["params"]

    def known(self, state: State) -> tuple[float, float] | None:
        """The inner loss and the norm of its gradient in a state, if the solver has them; else None."""
        return None

    def coefficients(self) -> dict[str, Coefficient]:
        """The coefficients by the name of their field."""
        values = {name: getattr(self, name) for name in self._ranges()}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def decays(self) -> bool:
        """Whether weight decay leads the steps away from the minimum of the inner loss."""
        return self.coefficients().get("weight_decay", 0) != 0

    def coefficients_at(self, hparams: Tensors, t: int, params: Tensors) -> Coefficients:
        """The coefficients in step t for each of the parameter tensors, as `step` receives them, shape ()."""
        numbers, others = self._numbers_and_others
        fixed = {field: dict.fromkeys(params, value) for field, value in numbers.items()}
        if not others:
            return fixed
        moving = {field: coefficient(value, hparams, t) for field, value in others.items()}
        return {**fixed, **self.by_tensor(moving, params)}

    def values_at(self, hparams: Tensors, t: int) -> dict[str, float | Tensor]:
        """The coefficients in step t: each a number or of shape () for all tensors, or of shape (G,) for G groups."""
        return {field: coefficient(value, hparams, t) for field, value in self.coefficients().items()}

    def by_tensor(self, values: Values, params: Tensors) -> Coefficients:
        """The coefficients for each parameter tensor, shape (), from one value for all or one for each group."""
        return {field: by_tensor(value, params, self.groups) for field, value in values.items()}

    def largest_lr(self, curvature: float, values: Values) -> float | None:
        """The learning rate above which a step is unstable, if known.

        Args:
            curvature: the largest curvature of the inner loss, > 0.
            values: the coefficients, of shape () or (G,), see `values_at`.
        """
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

    def require_used(self, problem: InnerProblem) -> None:
        """Check that the coefficients name every hyperparameter that does nothing else, and none that does.

        Raises:
            UnusedHyperparameterError: if one is not named.
            ValueError: if one is named that already acts in the losses, where an L2 penalty would decay twice.
        """
        coefficients = self.coefficients()
        named = [root(value) for value in coefficients.values()]
        values = ", ".join(f"{field} = {value!r}" for field, value in coefficients.items())
        for name in problem.of_solver():
            if name not in named:
                raise UnusedHyperparameterError(
                    f"Nothing depends on the hyperparameter {name!r}: it is an hg.Hyperparameter, which a coefficient "
                    f"of the solver must name, but those of {type(self).__name__} are {values or 'none'}. Write, for "
                    f"example, lr={name!r}, or choose an effect, such as hg.L2(init=0.01)."
                )
        for field, value in coefficients.items():
            if (name := root(value)) in problem.with_effect():
                raise ValueError(
                    f"{type(self).__name__}.{field} = {value!r} names a hyperparameter that already acts in the losses "
                    "of the problem, so it would act twice. Declare it as an hg.Hyperparameter, which only the solver "
                    f"uses, or leave {field} at its default."
                )

    def validate(self, hparams: Tensors, inner_steps: int, params: Tensors) -> None:
        """Check that every coefficient fits a run of `inner_steps` steps on `params`.

        Raises:
            ValueError: if a coefficient names no hyperparameter, or one with a wrong shape or values out of range; if a
                schedule is longer than the run; if `groups` does not fit the parameters, or no coefficient uses it.
        """
        count = num_groups(params, self.groups)
        by_group, ranges = False, self._ranges()
        for field, value in self.coefficients().items():
            where, limits = f"{type(self).__name__}.{field}", ranges.get(field, Range())
            require_fitting(where, value, limits, hparams, inner_steps, count)
            name = root(value)
            by_group |= isinstance(name, str) and hparams[name].ndim == 2
        if self.groups is not None and not by_group:
            raise ValueError(
                f"{type(self).__name__}.groups is set, but no coefficient differs by group; leave it out, or name a "
                f"hyperparameter of shape (1, {count}) or ({inner_steps}, {count})."
            )

    @cached_property
    def _numbers_and_others(self) -> tuple[dict[str, float], dict[str, Coefficient]]:
        # Separated once and not in every step, because that can take as long as the step's own arithmetic.
        declared = self.coefficients()
        numbers: dict[str, float] = {
            field: value for field, value in declared.items() if isinstance(value, (int, float))
        }
        return numbers, {field: value for field, value in declared.items() if field not in numbers}

    @classmethod
    @cache
    def _ranges(cls) -> dict[str, Range]:
        return {field.name: field.metadata["range"] for field in fields(cls) if "range" in field.metadata}


def require_solver(owner: object) -> None:
    """Require that field `solver` of `owner` is a solver of this library.

    Raises:
        TypeError: if it is an optimiser of `torch.optim`.

    Also raised, by what it calls: TypeError if it is anything else.
    """
    met = vars(owner)["solver"]
    kind = met if isinstance(met, type) else type(met)
    if issubclass(kind, torch.optim.Optimizer):
        raise TypeError(
            f"{type(owner).__name__}.solver must be an InnerSolver, but it is {kind.__name__} of torch.optim, through "
            "whose steps no gradient flows. Give a solver of this library, such as hg.AdamW(lr=1e-3), or "
            "hg.Momentum(lr=0.1, momentum=0.9) for SGD."
        )
    require_instance(owner, "solver", InnerSolver)


def require_differentiable(owner: object, solver: InnerSolver) -> None:
    """Require that the steps of `solver` can be differentiated, because `owner` differentiates them.

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
