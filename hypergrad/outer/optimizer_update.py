"""A step of torch's optimiser of the outer loop as a function of tensors, and its state."""

from collections.abc import Sequence
from functools import cached_property

from torch import Tensor
from torch.optim import Optimizer

from hypergrad.compile.tracing import CannotCompileError
from hypergrad.core.autodiff import Tensors
from hypergrad.core.torch_internals.objects import has_step_hooks
from hypergrad.outer.update_rules import RULES, Group


class OptimizerUpdate:
    """What `optimizer.step()` does to the hyperparameters and to its state, without doing it.

    Args:
        optimizer: of torch.
        u: the hyperparameters that it moves.

    Raises:
        CannotCompileError: if its update is not known.
    """

    def __init__(self, optimizer: Optimizer, u: Tensors) -> None:
        if type(optimizer) not in RULES:
            known = ", ".join(kind.__name__ for kind in RULES)
            raise CannotCompileError(f"the optimiser is {type(optimizer).__name__}, and compiled ones are {known}")
        if has_step_hooks(optimizer):
            raise CannotCompileError("the optimiser has hooks, which are not functions of tensors")
        self.optimizer, self.u, self.rule = optimizer, u, RULES[type(optimizer)]
        places = {id(x): k for k, group in enumerate(optimizer.param_groups) for x in group["params"]}
        if any(id(x) not in places for x in u.values()):
            raise CannotCompileError("the optimiser moves only some of the hyperparameters")
        self.groups = {name: places[id(x)] for name, x in u.items()}
        self._flags = [self.rule.flags(group) for group in self._used]

    @property
    def key(self) -> tuple[object, ...]:
        """What a compiled update depends on besides the shapes."""
        return type(self.optimizer), tuple(self._flags), tuple(self.groups.items())

    @property
    def _used(self) -> list[Group]:
        return self.optimizer.param_groups

    def slots(self) -> dict[str, Tensors] | None:
        """By hyperparameter, the tensors of the state; None before the first step, which makes them."""
        found = {}
        for name, x in self.u.items():
            state, entries = self.optimizer.state.get(x, {}), self.rule.entries(self._group(name))
            if any(state.get(entry) is None for entry in entries):
                return None
            found[name] = {entry: state[entry] for entry in entries}
        return found

    def steps_taken(self) -> list[int]:
        """By group, the steps that the optimiser has counted; 0 if it counts none."""
        firsts = [self.optimizer.state.get(group["params"][0], {}) for group in self._used]
        return [int(state.get("step", 0)) for state in firsts]

    def numbers(self, steps: Sequence[int]) -> list[float]:
        """The numbers of the next step by the present settings, after `steps` steps of each group.

        Raises:
            ValueError: if a setting was switched on or off since this object was made.
        """
        if [self.rule.flags(group) for group in self._used] != self._flags:
            raise ValueError(
                f"Momentum, or another setting of {type(self.optimizer).__name__}, was switched on or off during the "
                "run, as by a scheduler; compiled steps cannot follow. Set compile=False."
            )
        return [x for group, step in zip(self._used, steps, strict=True) for x in self.rule.numbers(group, step)]

    @cached_property
    def num_numbers(self) -> int:
        """How many numbers a step has."""
        return len(self.numbers([0] * len(self._used)))

    def update(
        self, u: Tensors, grad: Tensors, slots: dict[str, Tensors], numbers: Sequence[Tensor]
    ) -> tuple[Tensors, dict[str, Tensors]]:
        """The hyperparameters and the state after a step, outside any graph.

        Args:
            u: before the step.
            grad: ∂F/∂u.
            slots: as of `slots`.
            numbers: as of `numbers`, each of shape ().
        """
        count, after, kept = self.num_numbers // len(self._used), {}, {}
        for name, x in u.items():
            group, start = self._group(name), self.groups[name] * count
            moved = self.rule.update(group, x, grad[name], slots[name], list(numbers[start : start + count]))
            after[name], kept[name] = moved[0], dict(zip(slots[name], moved[1:], strict=True))
        return after, kept

    def store(self, slots: dict[str, Tensors], steps: int) -> None:
        """Set the state to that after `steps` more steps."""
        for name, entries in slots.items():
            state = self.optimizer.state.get(self.u[name], {})
            for entry, value in entries.items():
                state[entry].copy_(value)
            if "step" in state:
                state["step"] += steps

    def _group(self, name: str) -> Group:
        return self._used[self.groups[name]]
