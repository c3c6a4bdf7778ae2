"""The state of a run, some of whose tensors have only some rows on this process."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hypergrad.callback.shard_folder import FOLDER, is_entry, key_of, read_shards
from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.core.row_shard import Rows
from hypergrad.outer.spread import Spread

MapCarry = Callable[[Any, Callable[[Any], Any]], Any]
"""`HypergradEstimator.map_rows`."""
_NAMED, _IS_FLAT = "of hyperparameters", "flat"
"""The entries of what stands in a carry for a part that is shaped as λ: named tensors, and whether it is one vector."""


def with_rows(state: dict[str, Any], spread: Spread, names: Mapping[int, str], map_carry: MapCarry) -> dict[str, Any]:
    """A state that says of which tensors it has only the rows of this process.

    Args:
        state: of the loop, on this process.
        spread: which hyperparameters have rows on other processes.
        names: of the hyperparameters, by their index in the optimiser's state.
        map_carry: finds what the carry has of λ.
    """

    def leaf(name: str, x: Any) -> Any:
        return Rows(x.contiguous(), spread.shards[name]) if _has_rows(x) and name in spread.shards else x

    if not spread:
        return state
    parts = partial(_named, like=state["hparams"], leaf=leaf)
    return _each(state, names, leaf) | {"adjoint": map_carry(state["adjoint"], parts)}


def with_own(
    state: dict[str, Any], spread: Spread, names: Mapping[int, str], device: torch.device | str, map_carry: MapCarry
) -> dict[str, Any]:
    """The state on this process, from one that was read, of any number of processes.

    Args:
        state: in which an entry stands for what lies in a folder of shards.
        spread: which hyperparameters have rows on other processes here.
        names: as in `with_rows`.
        device: of λ.
        map_carry: as in `with_rows`.

    Also raised, by what it calls: CheckpointError if the shards cannot be read.
    """
    if not spread and FOLDER not in state:
        return state
    into: dict[str, Rows | Tensor] = {}

    def asked(name: str, x: Any) -> Any:
        if is_entry(x):
            into[key_of(x)] = _empty(x, name, spread, device)
            return into[key_of(x)]
        return spread.shards[name].own(x) if _has_rows(x) and name in spread.shards else x

    def found(_: str, x: Any) -> Any:
        return x.own if isinstance(x, Rows) else x

    carry = map_carry(state["adjoint"], partial(_named, like=state["hparams"], leaf=asked))
    state = _each(state, names, asked)
    if into:
        read_shards(state, into)
    return _each(state, names, found) | {"adjoint": map_carry(carry, partial(_part, leaf=found))}


def names_in(optimizer: Optimizer, u: Tensors) -> dict[int, str]:
    """The hyperparameters by their index in the optimiser's `state_dict`."""
    names, index = {id(x): name for name, x in u.items()}, 0
    found: dict[int, str] = {}
    for group in optimizer.param_groups:
        for x in group["params"]:
            if id(x) in names:
                found[index] = names[id(x)]
            index += 1
    return found


def _each(state: dict[str, Any], names: Mapping[int, str], leaf: Callable[[str, Any], Any]) -> dict[str, Any]:
    """A state with a function of name and value applied to all that belongs to the hyperparameters."""

    def over(named: Mapping[str, Any]) -> dict[str, Any]:
        return {name: leaf(name, x) for name, x in named.items()}

    entries: dict[int, Any] = state["optimizer"]["state"]
    moved = {
        index: {key: leaf(names[index], x) for key, x in entry.items()} if index in names else entry
        for index, entry in entries.items()
    }
    return {
        **state,
        **{key: over(state[key]) for key in ("hparams", "u", "grad")},
        "records": [{**one, "hparams": over(one["hparams"]), "grad": over(one["grad"])} for one in state["records"]],
        "optimizer": {**state["optimizer"], "state": moved},
    }


def _named(part: Any, like: Tensors, leaf: Callable[[str, Any], Any]) -> dict[str, Any]:
    """What stands in a carry for a part that is shaped as λ, from the part, or from what stood for it.

    Args:
        part: a flat vector, named tensors, or what stands for one of them.
        like: λ, of the same rows.
        leaf: a function of the name of a hyperparameter and its piece of the part.
    """
    if isinstance(part, dict) and _IS_FLAT in part:
        named, is_flat = part[_NAMED], part[_IS_FLAT]
    else:
        named, is_flat = (unflatten(part, like), True) if isinstance(part, Tensor) else (part, False)
    return {_NAMED: {name: leaf(name, x) for name, x in named.items()}, _IS_FLAT: is_flat}


def _part(stands: dict[str, Any], leaf: Callable[[str, Any], Any]) -> Tensor | Tensors:
    """The part of a carry for which something stands."""
    named = {name: leaf(name, x) for name, x in stands[_NAMED].items()}
    return flatten(named) if stands[_IS_FLAT] else named


def _has_rows(x: Any) -> bool:
    """Whether it is a tensor of the shape of a hyperparameter; an optimiser has numbers beside them."""
    return isinstance(x, Tensor) and x.ndim > 0


def _empty(entry: Mapping[str, Any], name: str, spread: Spread, device: torch.device | str) -> Rows | Tensor:
    """Where the tensor for which an entry stands is to be read into."""
    shape, dtype, shard = tuple(entry["shape"]), entry["dtype"], spread.shards.get(name)
    if shard is None:
        return torch.empty(shape, dtype=dtype, device=device)
    return Rows(torch.empty(len(shard.rows), *shape[1:], dtype=dtype, device=device), shard)
