"""The processes that share one run: who is the first, and what all of them must agree on."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store

from hypergrad.core.errors import RankError
from hypergrad.core.torch_internals.objects import default_store

T = TypeVar("T")

_BLAMED = "hypergrad/failed"
"""The key of a store under which the first rank that fails says so."""

_CONTROLS: dict[str, tuple[dist.ProcessGroup, dist.ProcessGroup]] = {}
"""By the name of a group, the group, and one of the same processes for decisions."""


@dataclass(frozen=True)
class Peers:
    """The processes of a group; every method does nothing, and sends nothing, in a process that is alone.

    Decisions travel on a group of their own, on the CPU, so that they never pair with a sum over the data. All ranks
    must call the same methods in the same order.

    Attributes:
        group: of torch.distributed; None if this process is alone.
    """

    group: dist.ProcessGroup | None = None

    @property
    def world(self) -> int:
        """How many processes there are, ≥ 1."""
        return 1 if self.group is None else dist.get_world_size(self.group)

    @property
    def rank(self) -> int:
        """The number of this process among them, from 0."""
        return 0 if self.group is None else dist.get_rank(self.group)

    @property
    def is_first(self) -> bool:
        """Whether this process writes and shows what all of them compute."""
        return self.rank == 0

    def first(self, value: T) -> T:
        """The value of rank 0, on all ranks: anything that can be pickled."""
        if self.world == 1:
            return value
        sent: list[Any] = [value if self.is_first else None]
        dist.broadcast_object_list(sent, src=self._source, group=self._control)
        return sent[0]

    def first_numbers(self, numbers: Sequence[float]) -> list[float]:
        """The numbers of rank 0, on all ranks, in one message; all ranks must have as many."""
        if self.world == 1:
            return list(numbers)
        sent = torch.tensor(numbers, dtype=torch.float64)
        dist.broadcast(sent, src=self._source, group=self._control)
        return sent.tolist()

    def most(self, level: int) -> int:
        """The largest of the levels of all ranks, on all of them."""
        if self.world == 1:
            return level
        sent = torch.tensor([level])
        dist.all_reduce(sent, op=dist.ReduceOp.MAX, group=self._control)
        return int(sent)

    def agree(self, value: int, *, seconds: float | None = None) -> bool:
        """Whether an integer is the same on all ranks; with `seconds`, also False if another did not come in time.

        Args:
            value: from −2⁶³ + 1 to 2⁶³ − 1.
            seconds: how long to wait for the others, if less than the time limit of the group.

        Raises:
            RuntimeError: without `seconds`, if another rank has ended, or does not come.
        """
        if self.world == 1:
            return True
        sent = torch.tensor([value, -value])
        work = dist.all_reduce(sent, op=dist.ReduceOp.MAX, group=self._control, async_op=True)
        assert work is not None  # by async_op
        try:
            work.wait() if seconds is None else work.wait(timedelta(seconds=seconds))
        except RuntimeError:
            if seconds is None:
                raise
            return False
        return int(sent.sum()) == 0

    def gathered(self, value: T) -> list[T]:
        """The values of all ranks, by rank: anything that can be pickled."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value, group=self._control)
        return found

    def barrier(self, seconds: float) -> None:
        """Wait until all ranks have come here.

        Raises:
            RankError: if some have not come after `seconds`.
        """
        if self.world == 1:
            return
        try:
            dist.monitored_barrier(self._control, timedelta(seconds=seconds), wait_all_ranks=True)
        except RuntimeError as error:
            raise RankError(f"Not all ranks arrived within {seconds:g} s: {str(error).splitlines()[0]}") from None

    def require_same(self, tensors: Mapping[str, Tensor], when: str) -> None:
        """Require that tensors have the same bits on all ranks.

        Args:
            tensors: by name; all ranks must have the same names.
            when: for the message, as in "after outer step 20".

        Raises:
            RankError: on all ranks, if they differ.
        """
        if self.world == 1 or not tensors:
            return
        found = self.gathered([digest(x) for x in tensors.values()])
        for name, column in zip(tensors, zip(*found, strict=True), strict=True):
            if others := _odd_ones(column):
                which = f"rank {others[0]}" if len(others) == 1 else f"ranks {', '.join(map(str, others))}"
                raise RankError(
                    f"{name} on {which} differs from {name} on the other ranks, {when}. All ranks must compute it from "
                    "the same numbers: draw random numbers by the same seed, and sum over ranks what each has of its "
                    "own."
                )

    @property
    def _source(self) -> int:
        """The number of rank 0 among all processes."""
        return dist.get_global_rank(self._control, 0)

    @property
    def _control(self) -> dist.ProcessGroup:
        """The group on which decisions travel; the first call makes it, on all ranks."""
        group = self.group
        assert group is not None  # by every caller
        known, control = _CONTROLS.get(group.group_name, (None, None))
        if known is not group or control is None:
            ranks = dist.get_process_group_ranks(group)
            control = dist.new_group(ranks, backend="gloo", use_local_synchronization=True)
            assert isinstance(control, dist.ProcessGroup)  # as this process is one of them
            _CONTROLS[group.group_name] = group, control
        return control


ALONE = Peers()
"""A process that shares its run with no other."""


def peers_of(group: dist.ProcessGroup | None = None) -> Peers:
    """The processes of a group, by default of all; `ALONE` if there is one, or torch.distributed is not initialised."""
    if not dist.is_available() or not dist.is_initialized():
        return ALONE
    group = dist.group.WORLD if group is None else group
    return ALONE if dist.get_world_size(group) == 1 else Peers(group)


def digest(tensor: Tensor) -> int:
    """63 bits that depend on all bits of a tensor."""
    # A clone, because an expanded tensor of one entry counts as contiguous, with a stride of 0 that no view allows.
    flat = tensor.detach().cpu().clone(memory_format=torch.contiguous_format).flatten()
    return int.from_bytes(hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).digest()[:8]) >> 1


def first_to_fail(rank: int, message: str, *, store: Store | None = None, run: str = "") -> tuple[int, str]:
    """The rank among all processes that failed first, and its message: this one, if none did before.

    Args:
        rank: of this process among all.
        message: of this process.
        store: where all processes look; by default that of torch.distributed, which must be initialised.
        run: what failed, if there is more than one run.
    """
    store = default_store() if store is None else store
    try:
        first, said = json.loads(store.compare_set(_BLAMED + run, "", json.dumps([rank, message])))
    except (RuntimeError, ValueError):
        return rank, message  # the process that held the store has ended
    return first, said


def _odd_ones(values: Sequence[int]) -> list[int]:
    """Which entries differ from the most common one; of equally common ones, from the first."""
    common, _ = Counter(values).most_common(1)[0]
    return [i for i, value in enumerate(values) if value != common]
