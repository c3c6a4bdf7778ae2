"""What `FullySharded` serves, and what it refuses."""

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from hypergrad.core.autodiff import Tensors
from hypergrad.core.collectives import Ranks
from hypergrad.core.local_shard import plain
from hypergrad.effect.buffer import Buffer
from hypergrad.effect.scope import Scoped
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.supervised.supervised import Supervised

if TYPE_CHECKING:
    from torch.distributed.fsdp import MixedPrecisionPolicy

_LARGEST = 1_000_000
"""Parameters up to which products are compared with exact ones of the whole model. A judgement: a second or so."""
_PER = ("all", "tensor")
"""What one value of an effect may be for; others would be sharded as the parameters are."""


def policy_of(precision: "str | MixedPrecisionPolicy | None") -> "MixedPrecisionPolicy":
    """The formats of FSDP2.

    Raises:
        ValueError: if there is no such precision.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy

    if isinstance(precision, MixedPrecisionPolicy):
        return precision
    if precision not in (None, "bf16-mixed"):
        raise ValueError(
            f"hg.FullySharded.precision must be None, 'bf16-mixed' or a torch.distributed.fsdp.MixedPrecisionPolicy, "
            f"but it is {precision!r}."
        )
    if precision is None:
        return MixedPrecisionPolicy()
    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)


def is_small(problem: Supervised) -> bool:
    """True for a model whose exact products are computed.

    Raises:
        ValueError: if it is larger.
    """
    size = sum(x.numel() for x in problem.init_params().values())
    if size <= _LARGEST:
        return True
    raise ValueError(
        f"hg.FullySharded compares products with exact ones at the start, on one process, which needs at most "
        f"{_LARGEST:,} parameters, but the model has {size:,}. Give check=hg.Supervised(…) with a small copy of the "
        "model, such as one with fewer and narrower layers, or check=False."
    )


def require_effects(problem: Supervised) -> None:
    """Require effects that are computed on shards.

    Raises:
        ValueError: if one is not.
    """
    for name, effect in problem.effects.declared.items():
        if isinstance(effect, Scoped) and effect.per not in _PER:
            raise ValueError(
                f"hg.FullySharded shards the parameters, but the hyperparameter {name!r} is a {type(effect).__name__} "
                f"per {effect.per!r}, whose entries belong to entries of these. Use per='all' or per='tensor', or "
                "hg.DataParallel."
            )
        if isinstance(effect, Buffer):
            raise ValueError(
                f"hg.FullySharded does not serve a hyperparameter that is a buffer of the model, but {name!r} is one. "
                "Use hg.DataParallel."
            )


def require_served(problem: InnerProblem) -> None:
    """Require a problem that trains one module of the user, on several processes.

    Raises:
        TypeError: if the problem is of another kind.
        ValueError: if torch.distributed is not initialised.
    """
    if not isinstance(problem, Supervised):
        raise TypeError(
            f"hg.FullySharded shards the parameters of the model of an hg.Supervised, but the problem is a "
            f"{type(problem).__name__}. Use hg.DataParallel."
        )
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(
            "hg.FullySharded needs processes that share the parameters, but torch.distributed is not initialised. "
            "Start the program with torchrun and call torch.distributed.init_process_group(), or leave it out."
        )


def require_entries(ranks: Ranks, shards: Tensors) -> None:
    """Require that each rank holds a parameter: its norms must not be those of nothing.

    Raises:
        ValueError: if one holds none.
    """
    tensors = [plain(x) for x in shards.values()]
    (empty,) = ranks.total([tensors[0].new_tensor(float(all(x.numel() == 0 for x in tensors)))])
    if empty.item() > 0:
        raise ValueError(
            f"hg.FullySharded needs parameters on each rank, but {empty.item():.0f} of {ranks.world} ranks would hold "
            "none, because tensors are divided along their first axis. Use fewer ranks, or hg.DataParallel."
        )
