"""The state of the outer loop as tensors and plain values, and what must agree before a run is resumed."""

import hashlib
import os
import random
import re
import warnings
from collections.abc import Iterable
from dataclasses import is_dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from hypergrad.core.errors import CheckpointError
from hypergrad.core.hyperparameter import shown
from hypergrad.core.local_shard import plain
from hypergrad.core.ranks import Peers, digest
from hypergrad.core.row_shard import Rows
from hypergrad.core.torch_internals.trees import tree_leaves
from hypergrad.outer.param_state import SHARDED
from hypergrad.problem.base import InnerProblem

_ADDRESS = re.compile(" at 0x[0-9a-f]+")
_DRAWN = "initial values"
_KIND = {True: " and sharded parameters", False: " and whole parameters"}
_LONGEST = 200
"""Characters of a value in a message."""


def random_states(peers: Peers) -> dict[str, Any]:
    """The random streams of the first rank as "random", and those of all as "random_of_ranks" where they differ."""
    own = random_state()
    numbers = torch.cat([x.flatten().long() for x in tree_leaves(own) if isinstance(x, Tensor)])
    if peers.agree(digest(numbers)):
        return {"random": own}
    found = peers.gathered(own)
    return {"random": found[0], "random_of_ranks": found}


def restore_random_states(state: dict[str, Any], peers: Peers) -> None:
    """Set the random streams of this rank; if there were other ranks, to those of the first."""
    found = state.get("random_of_ranks", [])
    restore_random_state(found[peers.rank] if len(found) == peers.world else state["random"])


def random_state() -> dict[str, Any]:
    """Every random stream that user code could draw from: torch, its GPUs, Python and numpy."""
    kind, keys, *rest = np.random.get_state()
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Set every random stream to a state that `random_state` returned."""
    torch.set_rng_state(state["torch"])
    # Of GPUs that are not here, as the run may have moved to another machine, there is no stream to set.
    for index, one in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(one, index)
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))


def identity(problem: InnerProblem, estimator: object, optimizer: Optimizer, **settings: object) -> dict[str, str]:
    """What identifies a run, as text by name; all ranks must call it, where each has some rows of the parameters."""
    groups = [{key: x for key, x in group.items() if key != "params"} for group in optimizer.param_groups]
    params, hparams, shards = problem.init_params(), problem.init_hparams(), problem.param_shards()
    shapes = {name: Rows(x, shards[name]).shape if name in shards else tuple(x.shape) for name, x in params.items()}
    # One at a time, as all of them may fit no process.
    whole = (shards[name].whole(plain(x)) if name in shards else x for name, x in params.items())
    return {
        "problem": type(problem).__name__,
        "hyperparameters": ", ".join(f"{name} {tuple(x.shape)} {x.dtype}" for name, x in hparams.items()),
        "parameters": ", ".join(f"{name} {shapes[name]} {x.dtype}" for name, x in params.items()),
        "precision": "that of the parameters",
        **{name: _ADDRESS.sub("", " ".join(str(value).split())) for name, value in problem.settings().items()},
        "initial hyperparameters": ", ".join(f"{name} = {shown(value)}" for name, value in hparams.items()),
        "initial values": _digest(chain(hparams.values(), whole)),
        "data": _digest([buffer for _, buffer in problem.named_buffers()]),
        "estimator": repr(estimator) if is_dataclass(estimator) else type(estimator).__name__,
        "optimizer": f"{type(optimizer).__name__} {groups}",
        **{name: str(value) for name, value in settings.items()},
    }


def require_same(ours: dict[str, str], theirs: dict[str, str]) -> None:
    """Require that a state belongs to this run.

    Raises:
        CheckpointError: if it belongs to another.
    """
    for name, value in ours.items():
        # Earlier releases recorded less.
        if name in theirs and theirs[name] != value:
            drawn = " If weights are drawn at random, call torch.manual_seed(0) before." if name == _DRAWN else ""
            then, now = _different(theirs[name], value)
            raise CheckpointError(
                f"The state belongs to another experiment: its {name} was {then}, and here it is {now}.{drawn} Resume "
                "with the settings of the original run, or begin a new one in another folder."
            )


def require_same_world(state: dict[str, Any], world: int, *, is_sharded: bool, any_world: bool) -> None:
    """Require the number of processes of the run so far, and parameters that are sharded or whole as they were.

    Args:
        state: that was read.
        world: the number of processes here.
        is_sharded: whether each of them has a shard of the parameters.
        any_world: whether both may differ from those of the state, with a warning.

    Raises:
        CheckpointError: if they differ.
    """
    before, was_sharded = state.get("world", 1), state.get(SHARDED, False)
    if (before, was_sharded) == (world, is_sharded):
        return
    was, now = ("", "") if was_sharded == is_sharded else (_KIND[was_sharded], _KIND[is_sharded])
    had, has = f"{before} process{'es' * (before > 1)}{was}", f"{world}{now}"
    if not any_world:
        how = "in one process, without torchrun" if before == 1 else f"with torchrun --nproc-per-node={before}"
        raise CheckpointError(
            f"The run had {had} until this state, and here it has {has}: the numbers would go on with other rounding "
            f"errors. Resume {how}{was}, or allow it with any_world=true."
        )
    warnings.warn(
        f"The run had {had} until this state, and goes on with {has}: its numbers "
        "differ by rounding errors from those that it would have had.",
        UserWarning,
        stacklevel=2,
    )


def _different(first: str, second: str) -> tuple[str, str]:
    """Two texts, from a little before the place where they differ."""
    start = max(len(os.path.commonprefix([first, second])) - 40, 0)
    return _short(first[start:]), _short(second[start:])


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        is_csr = tensor.layout == torch.sparse_csr
        for part in (tensor.crow_indices(), tensor.col_indices(), tensor.values()) if is_csr else (tensor,):
            # A clone, because an expanded tensor of one entry counts as contiguous, with a stride of 0 that no view
            # allows.
            bytes_of = part.detach().cpu().clone(memory_format=torch.contiguous_format).flatten().view(torch.uint8)
            digest.update(bytes_of.numpy().tobytes())
    return digest.hexdigest()[:16]
