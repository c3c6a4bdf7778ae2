"""The tensors of a state of which each process has some rows, in a folder beside the file of the state.

They are written and read by torch.distributed.checkpoint: all processes write at the same time, each its own rows, and
any number of processes can read them. The file of the state names the folder, and is written after it.
"""

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hypergrad.core.errors import CheckpointError
from hypergrad.core.row_shard import Rows
from hypergrad.core.torch_internals.trees import tree_map_with_path

_KEY, FOLDER = "key among the shards", "shards"
"""An entry of a state file in the place of rows, and the entry that names the folder."""
_SUMS = "checksums of shards"
"""The entry with the checksums of the files in the folder; earlier releases wrote none."""


def folder_of(state_file: Path) -> Path:
    """The folder of the shards that belong to a state file."""
    return state_file.with_suffix(".shards")


def without_rows(state: Any) -> tuple[Any, dict[str, Rows]]:
    """A state with an entry for the file in the place of all rows, and the rows by their keys.

    A key says where the rows stand in the state, such as "params/0.weight", and first of all if they stand in several
    places.
    """
    rows: dict[str, Rows] = {}
    keys: dict[int, str] = {}

    def entry(path: Any, leaf: Any) -> Any:
        if not isinstance(leaf, Rows):
            return leaf
        if id(leaf) not in keys:
            keys[id(leaf)] = key = "/".join(str(getattr(part, "key", getattr(part, "idx", ""))) for part in path)
            rows[key] = leaf
        return {_KEY: keys[id(leaf)], "shape": list(leaf.shape), "dtype": leaf.own.dtype}

    return tree_map_with_path(entry, state), rows


def write_shards(state_file: Path, rows: Mapping[str, Rows]) -> dict[str, Any]:
    """Write the rows of a state file to come, at the same time on all processes that have them.

    An earlier state of this name is removed first.

    Returns:
        What the state must hold for `read_shards`.

    Raises:
        OSError: on all of them, if one cannot write; nothing of it is left.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_saver import save  # here, because it takes half a second

    from hypergrad.callback.checked_shards import CheckedWriter

    ranks, folder = next(iter(rows.values())).shard.ranks, folder_of(state_file)
    if ranks.rank == 0:
        remove(state_file)  # the others write only after rank 0 has told them what
    writer = CheckedWriter(folder)
    try:
        save(_as_dtensors(rows), storage_writer=writer, process_group=ranks.group)
    except CheckpointException as error:
        if ranks.rank == 0:
            remove(state_file)
        rank, (reason, _) = min(error.failures.items())
        raise OSError(
            f"{folder} could not be written, because of rank {rank}: {reason}. All ranks write there, "
            f"so they must all see the folder and have space. The run goes on by resume={state_file.parent}"
        ) from error
    found: list[Any] = [None] * ranks.world
    dist.all_gather_object(found, writer.checksums, group=ranks.group)
    return {FOLDER: folder.name, _SUMS: {name: x for own in found for name, x in own.items()}}


def read_shards(state: Mapping[str, Any], into: Mapping[str, Rows | Tensor]) -> None:
    """Fill rows and whole tensors in place, at the same time on all processes that have some of them.

    Args:
        state: that was read from a file.
        into: the rows and tensors, by their keys.

    Raises:
        CheckpointError: if a file of the folder is missing or damaged, or cannot be read.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_loader import load

    from hypergrad.callback.checked_shards import CheckedReader

    folder = Path(state[FOLDER])
    reader = CheckedReader(folder, state.get(_SUMS, {}))
    rows = {key: x for key, x in into.items() if isinstance(x, Rows)}
    whole = {key: x for key, x in into.items() if isinstance(x, Tensor)}
    group = next(iter(rows.values())).shard.ranks.group if rows else None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            wanted = {**_as_dtensors(rows), **whole}
            load(wanted, storage_reader=reader, process_group=group, no_dist=not rows)
    except (OSError, RuntimeError, CheckpointException) as error:
        reason = reader.damage or str(error).strip().splitlines()[-1][:200]
        raise CheckpointError(
            f"{folder} cannot be read: {reason}. It belongs to the state file of "
            "the same name, and all ranks read it: put it where they all can, or resume an earlier state-NNNNNN.pt."
        ) from error


def is_entry(leaf: Any) -> bool:
    """Whether a part of a state that was read stands for rows in the folder."""
    return isinstance(leaf, dict) and _KEY in leaf


def key_of(entry: Mapping[str, Any]) -> str:
    """The key of the rows for which an entry stands."""
    return entry[_KEY]


def remove(state_file: Path) -> None:
    """Remove a state file, and then its shards."""
    state_file.unlink(missing_ok=True)
    shutil.rmtree(folder_of(state_file), ignore_errors=True)


def remove_orphans(folder: Path) -> None:
    """Remove the shards that killed processes left, which belong to no state file."""
    for shards in folder.glob("state-*.shards"):
        if not shards.with_suffix(".pt").exists():
            shutil.rmtree(shards, ignore_errors=True)


def _as_dtensors(rows: Mapping[str, Rows]) -> dict[str, Any]:
    """The rows as torch.distributed.checkpoint takes them."""
    if not rows:
        return {}
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor, Shard

    one = next(iter(rows.values()))
    mesh = DeviceMesh.from_group(one.shard.ranks.group, one.own.device.type)
    return {
        key: DTensor.from_local(
            x.own, mesh, [Shard(0)], run_check=False, shape=torch.Size(x.shape), stride=_strides(x.shape)
        )
        for key, x in rows.items()
    }


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return torch.empty(shape, device="meta").stride()
