"""The state of a run, of whose parameters each process may have a shard."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from hypergrad.callback.shard_folder import is_entry, key_of, read_shards
from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.core.errors import CheckpointError
from hypergrad.core.local_shard import LocalShard, plain
from hypergrad.core.row_shard import Rows, RowShard
from hypergrad.core.torch_internals.trees import tree_map, tree_map_with_path

Shards = Mapping[str, RowShard]
"""The parameters of which each process has some rows, by name; none where all are whole."""
SHARDED = "sharded"
"""An entry of a state: whether its parameters were shards."""
_VECTOR = "pieces of a vector"
"""The key of the pieces of a flat vector of all parameters, each shaped as one of them, by their names.

As the entries of its shards are other ones on another number of processes, it is written in pieces that have rows.
"""


def with_param_rows(state: dict[str, Any], shards: Shards) -> dict[str, Any]:
    """A state of this process that says which rows of which tensors its shards are.

    Also raised, by what it calls: CheckpointError if the carry of the estimator holds another kind of shard.
    """
    if not shards:
        return state
    like = {name: plain(x) for name, x in state["params"].items()}
    found: dict[int, Any] = {}  # what stands in several places is kept once

    def leaf(path: Any, x: Any) -> Any:
        if not isinstance(x, LocalShard):
            return x
        if id(x) not in found:
            is_vector, pieces = _pieces(plain(x), path, like)
            rows = {name: Rows(piece.contiguous(), shards[name]) for name, piece in pieces.items()}
            found[id(x)] = {_VECTOR: rows} if is_vector else _only(rows)
        return found[id(x)]

    return {**_each(state, lambda tree: tree_map_with_path(leaf, tree)), SHARDED: True}


def with_own_params(state: dict[str, Any], shards: Shards, device: torch.device | str) -> dict[str, Any]:
    """The state on this process, from one that was read, of any number of processes with shards or whole parameters.

    Args:
        state: in which an entry stands for what lies in a folder of shards.
        shards: the parameters of which each process has some rows here.
        device: of the parameters.

    Also raised, by what it calls: CheckpointError if the shards cannot be read, or a tensor of the carry is not like
    the parameters.
    """
    if state.get(SHARDED):
        return _read(state, shards, device)
    return _cut(state, shards, device) if shards else state


def _read(state: dict[str, Any], shards: Shards, device: torch.device | str) -> dict[str, Any]:
    """The state with its own rows, or whole tensors, in the place of the entries."""
    into: dict[str, Rows | Tensor] = {}

    def ask(x: Any) -> None:
        if is_entry(x) and key_of(x) not in into:
            into[key_of(x)] = _empty(x, shards, device)

    _each(state, lambda tree: tree_map(ask, tree, is_leaf=is_entry))
    read_shards(state, into)
    found = {key: x if isinstance(x, Tensor) else LocalShard.of(x.own, x.shard.ranks) for key, x in into.items()}

    def own(x: Any) -> Any:
        if _is_vector(x):
            return flatten({name: found[key_of(piece)] for name, piece in x[_VECTOR].items()})
        return found[key_of(x)] if is_entry(x) else x

    return _each(state, lambda tree: tree_map(own, tree, is_leaf=lambda x: is_entry(x) or _is_vector(x)))


def _cut(state: dict[str, Any], shards: Shards, device: torch.device | str) -> dict[str, Any]:
    """The state with the shards of this process of whole tensors."""
    like = state["params"]

    def leaf(path: Any, x: Any) -> Any:
        if not isinstance(x, Tensor) or x.ndim == 0:
            return x
        is_vector, pieces = _pieces(x, path, like)
        own: Tensors = {
            name: LocalShard.of(shards[name].own(w).to(device), shards[name].ranks) for name, w in pieces.items()
        }
        return flatten(own) if is_vector else _only(own)

    return _each(state, lambda tree: tree_map_with_path(leaf, tree))


def _pieces(x: Tensor, path: Any, like: Tensors) -> tuple[bool, Tensors]:
    """Whether a tensor is a vector of all parameters, and its pieces by their names; itself, if it is like one of them.

    Raises:
        CheckpointError: if it is neither.
    """
    name = str(getattr(path[-1], "key", "")) if path else ""
    if name in like and x.shape == like[name].shape:
        return False, {name: x}
    if x.ndim == 1 and x.numel() == sum(part.numel() for part in like.values()):
        return True, unflatten(x, like)
    raise CheckpointError(
        f"The estimator carries a tensor of shape {tuple(x.shape)} under {name!r}, of which each process has a part. "
        "It can be saved only if it is like a parameter, under its name, or a flat vector of all parameters. Carry one "
        "of these, or run without hg.StateSaver."
    )


def _empty(entry: Mapping[str, Any], shards: Shards, device: torch.device | str) -> Rows | Tensor:
    """Where the tensor for which an entry stands is to be read into."""
    size, *rest = entry["shape"]
    if not shards:
        return torch.empty(size, *rest, dtype=entry["dtype"], device=device)
    shard = RowShard(next(iter(shards.values())).ranks, size)
    return Rows(torch.empty(len(shard.rows), *rest, dtype=entry["dtype"], device=device), shard)


def _only(named: Mapping[str, Any]) -> Any:
    (value,) = named.values()
    return value


def _is_vector(x: Any) -> bool:
    return isinstance(x, dict) and x.keys() == {_VECTOR}


def _each(state: dict[str, Any], over: Callable[[Any], Any]) -> dict[str, Any]:
    """A state with a function applied to all that may hold shards of parameters."""
    return {
        **state,
        **{key: over(state[key]) for key in ("params", "adjoint")},
        "records": [{**one, "params": over(one["params"])} for one in state["records"]],
    }
