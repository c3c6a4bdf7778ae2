"""A deep copy of a module that shares no state with it."""

import types
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hypergrad.core.torch_internals.modules import BUFFERS, PARAMETERS, SUBMODULES, submodules_of
from hypergrad.core.torch_internals.trees import tree_leaves

M = TypeVar("M", bound=nn.Module)
_TABLES = {PARAMETERS, BUFFERS, SUBMODULES}


def copied(module: M) -> M:
    """A deep copy, with two differences to `copy.deepcopy`.

    A function in an attribute or hook gets copies of the variables of its closure; those that cannot be copied are
    shared. A tensor that was computed from others, such as the weight of a pruned layer, is copied without its graph.

    Raises:
        TypeError: if the module cannot be copied.
    """
    memo: dict[int, Any] = {}
    functions: list[tuple[types.FunctionType, types.FunctionType]] = []
    for value in (x for part in parts_of(module) for x in tree_leaves(own_state(part))):
        if isinstance(value, Tensor) and not value.is_leaf:
            memo[id(value)] = value.detach().clone()
        elif isinstance(value, types.FunctionType) and value.__closure__ and id(value) not in memo:
            memo[id(value)] = _with_own_cells(value)
            functions.append((value, memo[id(value)]))
    try:
        with torch.inference_mode(False):
            found = deepcopy(module, memo)
    except Exception as error:  # a user's own class may raise anything
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        raise TypeError(
            f"{type(module).__name__} must be a module that copy.deepcopy copies, because training must not change "
            f"it, but that raised {type(error).__name__}: {reason}. Leave out the attribute that cannot be copied, or "
            "define __deepcopy__."
        ) from error
    for function, copy in functions:
        _copy_cells(function, copy, memo)
    return found


def parts_of(module: nn.Module) -> Iterator[nn.Module]:
    """The module and all modules in it, each once, also those that are only in lists and other plain attributes."""
    seen: set[int] = set()
    waiting: list[nn.Module] = [module]
    while waiting:
        part = waiting.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            inner = [*submodules_of(part).values(), *tree_leaves(own_state(part))]
            waiting += [x for x in reversed(inner) if isinstance(x, nn.Module)]


def own_state(part: nn.Module) -> dict[str, Any]:
    """The attributes of a module other than its parameters, buffers and submodules."""
    return {name: value for name, value in vars(part).items() if name not in _TABLES}


def _with_own_cells(function: types.FunctionType) -> types.FunctionType:
    cells = tuple(types.CellType() for _ in function.__closure__ or ())
    found = types.FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, cells)
    found.__kwdefaults__ = function.__kwdefaults__
    found.__dict__.update(function.__dict__)
    return found


def _copy_cells(function: types.FunctionType, copy: types.FunctionType, memo: dict[int, Any]) -> None:
    for mine, yours in zip(function.__closure__ or (), copy.__closure__ or (), strict=True):
        try:
            content = mine.cell_contents
        except ValueError:  # a variable without a value yet
            continue
        try:
            yours.cell_contents = deepcopy(content, memo)
        except Exception:  # such as a lock or a file
            yours.cell_contents = content
