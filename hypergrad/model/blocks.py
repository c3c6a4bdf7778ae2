"""Blocks of a module, each of which computes its activations again in backward."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hypergrad.core.accumulation import Outputs, accumulated
from hypergrad.core.autodiff import inside_transform, nodes_before
from hypergrad.core.torch_internals.objects import version_of
from hypergrad.core.torch_internals.trees import TreeSpec, tree_flatten, tree_unflatten
from hypergrad.model.copying import parts_of
from hypergrad.model.places import Places
from hypergrad.model.requirements import layer
from hypergrad.model.surroundings import Mode, Surroundings

Recompute = bool | Sequence[str]
"""Which blocks compute their activations again: those whose names match a pattern; True, all that repeat; or none."""


def blocks_of(module: nn.Module, recompute: Recompute, setting: str = "recompute") -> list[str]:
    """The names of the blocks.

    True finds every item of each `ModuleList` or `Sequential` that has at least two items, all of one class that has
    parts of its own; it does not look inside these items. Of nested parts that match the same pattern, only the
    outermost is a block.

    Raises:
        TypeError: if `recompute` is neither a bool nor a list of patterns.
        ValueError: if nothing repeats, or a pattern matches nothing.
    """
    parts = {name: part for name, part in module.named_modules() if name}
    if isinstance(recompute, bool):
        found = _repeated(parts) if recompute else []
        if recompute and not found:
            raise ValueError(
                "recompute=True needs blocks that repeat: a ModuleList or Sequential with at least 2 items, all of one "
                f"class that has parts of its own, but this {type(module).__name__} has none. Name them by patterns, "
                f"such as {setting}={[next(iter(parts), 'layer')]}."
            )
        return found
    is_list = isinstance(recompute, Sequence) and not isinstance(recompute, str)
    if not is_list or not all(isinstance(pattern, str) for pattern in recompute):
        raise TypeError(
            f"{setting} must be True, False, or a list of patterns of module names, but it is {recompute!r}; write "
            "such as ['layers.*']."
        )
    found = []
    for pattern in recompute:
        matches = _outermost([name for name in parts if fnmatchcase(name, pattern)])
        if not matches:
            some = ", ".join(map(repr, list(parts)[:8]))
            raise ValueError(f"The pattern {pattern!r} of {setting} matches no part of the model; it has {some}.")
        found += [name for name in matches if name not in found]
    return found


def _repeated(parts: dict[str, nn.Module]) -> list[str]:
    found: list[str] = []
    for name, part in parts.items():
        items = list(part.children())
        if isinstance(part, nn.ModuleList | nn.Sequential) and len(items) > 1:
            kinds = {type(item) for item in items}
            if len(kinds) == 1 and all(any(True for _ in item.children()) for item in items):
                found += [f"{name}.{key}" for key, _ in part.named_children()]
    return _outermost(found)


def _outermost(names: list[str]) -> list[str]:
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]


class Blocks:
    """The blocks of a module, as pure functions of their parameters, buffers and inputs.

    `torch.utils.checkpoint` would compute again from the module's own parameters, after those of the call have been
    taken out. Here all tensors of a block are explicit inputs of a function, see `accumulated`. Its evaluations in
    backward use the kernels, the training mode, the autocast and the random numbers of the call.

    Args:
        module: the blocks are parts of it.
        names: of the blocks.
        places: of the module.
    """

    def __init__(self, module: nn.Module, names: list[str], places: Places) -> None:
        self._places = places
        self._blocks = [
            _Block(layer(module, part), part, places.names_in(set(parts_of(part))))
            for part in map(module.get_submodule, names)
        ]

    @contextmanager
    def active(self, mode: Mode, draws: bool) -> Iterator[None]:
        """A context in which calls of the blocks are recomputed in backward.

        Args:
            mode: makes the context of a call, which is entered again in backward.
            draws: whether a call may draw random numbers.
        """
        with ExitStack() as stack:
            for block in self._blocks:
                call = partial(self._call, block, block.part.forward, mode, draws)
                stack.enter_context(_forward(block.part, call))
            yield

    def _call(
        self, block: "_Block", forward: Callable[..., Any], mode: Mode, draws: bool, *args: Any, **kwargs: Any
    ) -> Any:
        if inside_transform() or not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        values, structure = tree_flatten((args, kwargs))
        held, given = self._places.current(block.names), [x for x in values if isinstance(x, Tensor)]
        tensors = (*held.values(), *given)
        surroundings = Surroundings.now(mode, tensors[0].device if tensors else torch.device("cpu"), draws)
        call = _Call(block, self._places, forward, values, structure, surroundings)
        found = iter(accumulated([call], tensors))
        returned, structure = call.returned
        return tree_unflatten([next(found) if isinstance(x, _Tensor) else x for x in returned], structure)


@contextmanager
def _forward(part: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """A context in which a part has another forward."""
    attributes = vars(part)
    before = attributes.get("forward")
    attributes["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            attributes.pop("forward", None)
        else:
            attributes["forward"] = before


class _Tensor:
    """Where a tensor stood among values."""


@dataclass(eq=False)
class _Block:
    """A part of a module.

    Attributes:
        title: what messages call it.
        part: the module.
        names: of the parameters and buffers of the model that it holds.
        is_checked: whether its function is known to read no other tensor with a gradient.
    """

    title: str
    part: nn.Module
    names: list[str]
    is_checked: bool = False


@dataclass(eq=False)
class _Call:
    """One call of a block, as a function of the tensors that it holds and is given."""

    block: _Block
    places: Places
    forward: Callable[..., Any]
    values: list[Any]
    structure: TreeSpec
    surroundings: Surroundings
    returned: tuple[list[Any], TreeSpec] = ([], tree_flatten(())[1])
    is_made: bool = False

    def __post_init__(self) -> None:
        self.values = [_Tensor() if isinstance(x, Tensor) else x for x in self.values]

    def __call__(self, *tensors: Tensor) -> Outputs:
        """The tensors that the block returns; the first call is the original one, all others are in backward."""
        block, versions = self.block, [version_of(x) for x in tensors]
        held = dict(zip(block.names, tensors, strict=False))
        given = iter(tensors[len(held) :])
        args, kwargs = tree_unflatten(
            [next(given) if isinstance(x, _Tensor) else x for x in self.values], self.structure
        )
        context = self.surroundings.again() if self.is_made else self.surroundings.original()
        with context, self.places.hold(held), _forward(block.part, self.forward):
            values, structure = tree_flatten(self.forward(*args, **kwargs))
        outputs = tuple(x for x in values if isinstance(x, Tensor))
        if not self.is_made:
            self.is_made = True
            self.returned = [_Tensor() if isinstance(x, Tensor) else x for x in values], structure
            _require_unchanged(block, versions, tensors)
        elif not block.is_checked and all(x.is_leaf for x in tensors):
            block.is_checked = True
            _require_closed(block, outputs, tensors)
        return outputs


def _require_unchanged(block: _Block, versions: Sequence[int], tensors: Sequence[Tensor]) -> None:
    """Require that a call of a block wrote to none of the given tensors.

    Raises:
        ValueError: if it did.
    """
    if versions != [version_of(x) for x in tensors]:
        raise ValueError(
            f"{block.title} changes its inputs in place, so it cannot be computed again in backward. Leave it out of "
            "recompute, or let it compute new tensors, for example with inplace=False."
        )


def _require_closed(block: _Block, outputs: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Require that the outputs of a block have gradients with respect to the given tensors only.

    Raises:
        ValueError: if they have others.
    """
    own = {id(x) for x in tensors}
    for node in nodes_before(outputs):
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in own:
            raise ValueError(
                f"{block.title} reads a tensor of shape {tuple(variable.shape)}, or what was computed from it, that is "
                "neither among its parameters nor among its inputs, so its gradient would be lost when the block is "
                "computed again in backward. Pass it to the forward of the block, or leave the block out of recompute."
            )
