"""The state of a run, of whose parameters each process has a shard."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_with_path

from hypergrad.callback.shard_folder import FOLDER, is_entry, key_of, read_shards
from hypergrad.core.autodiff import Tensors, flatten, unflatten
from hypergrad.core.errors import CheckpointError
from hypergrad.core.local_shard import LocalShard, plain
from hypergrad.core.row_shard import Rows, RowShard

_FLAT = "pieces of a vector"
"""The key of the pieces of a flat vector of all parameters, each shaped as one of them, by their names.

As the entries of its shards are other ones on another number of processes, it is written in pieces that have rows.
"""


def with_param_rows(state: dict[str, Any], shards: Mapping[str, RowShard]) -> dict[str, Any]:
    """A state that says which rows of which tensors its shards are.

    Args:
        state: of the loop, on this process.
        shards: the parameters of which each process has some rows.

    Also raised, by what it calls: CheckpointError if the carry of the estimator holds another kind of shard.
    """
    if not shards:
        return state
    like = {name: plain(x) for name, x in state["params"].items()}
    found: dict[int, Any] = {}  # what stands in several places is kept once

    def leaf(path: tuple[Any, ...], x: Any) -> Any:
        if not isinstance(x, LocalShard):
            return x
        if id(x) not in found:
            found[id(x)] = _as_rows(plain(x), str(getattr(path[-1], "key", "")) if path else "", like, shards)
        return found[id(x)]

    return _each(state, lambda tree: tree_map_with_path(leaf, tree))


def with_own_params(
    state: dict[str, Any], shards: Mapping[str, RowShard], device: torch.device | str
) -> dict[str, Any]:
    """The state on this process, from one that was read, of any number of processes.

    Args:
        state: in which an entry stands for what lies in a folder of shards.
        shards: the parameters of which each process has some rows here.
        device: of the parameters.

    Also raised, by what it calls: CheckpointError if the shards cannot be read.
    """
    if not shards:
        return state
    ranks = next(iter(shards.values())).ranks
    into: dict[str, Rows] = {}
    shard_of: dict[str, LocalShard] = {}

    def asked(x: Any) -> None:
        if is_entry(x) and key_of(x) not in into:
            shard = RowShard(ranks, x["shape"][0])
            own = torch.empty(len(shard.rows), *x["shape"][1:], dtype=x["dtype"], device=device)
            into[key_of(x)] = Rows(own, shard)
            shard_of[key_of(x)] = LocalShard.of(own, ranks)

    def own(x: Any) -> Any:
        if is_entry(x):
            return shard_of[key_of(x)]
        if _is_vector(x):
            return flatten({name: shard_of[key_of(piece)] for name, piece in x[_FLAT].items()})
        return x

    _each(state, lambda tree: tree_map(asked, tree, is_leaf=is_entry))
    read_shards(Path(state[FOLDER]), into)
    return _each(state, lambda tree: tree_map(own, tree, is_leaf=lambda x: is_entry(x) or _is_vector(x)))


def _as_rows(x: Tensor, name: str, like: Tensors, shards: Mapping[str, RowShard]) -> Any:
    """The rows that a shard is, or those of its pieces.

    Raises:
        CheckpointError: if it is neither like the parameter of this name nor a vector of all parameters.
    """
    if name in like and x.shape == like[name].shape:
        return Rows(x.contiguous(), shards[name])
    if x.ndim == 1 and x.numel() == sum(part.numel() for part in like.values()):
        return {_FLAT: {key: Rows(part.contiguous(), shards[key]) for key, part in unflatten(x, like).items()}}
    raise CheckpointError(
        f"The estimator carries a shard of shape {tuple(x.shape)} under {name!r}, which can be saved only if it is a "
        "tensor like a parameter, under its name, or a flat vector of all parameters. Carry one of these, or run "
        "without hg.StateSaver."
    )


def _is_vector(x: Any) -> bool:
    return isinstance(x, dict) and x.keys() == {_FLAT}


def _each(state: dict[str, Any], over: Callable[[Any], Any]) -> dict[str, Any]:
    """A state with a function applied to all that may hold shards of parameters."""
    return {
        **state,
        **{key: over(state[key]) for key in ("params", "adjoint")},
        "records": [{**one, "params": over(one["params"])} for one in state["records"]],
    }
