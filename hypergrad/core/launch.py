"""Processes that torchrun started: which of them this is, their group, and how they end together."""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from hypergrad.core.errors import RankError, Terminated, described
from hypergrad.core.ranks import ALONE, Peers, first_to_fail, peers_of

_ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""The variables by which torchrun tells its processes where they are."""
_LETTING_GO = 0.05
"""Seconds at the end of a group. Without them one run in ten on an idle machine aborted after its last step."""


@dataclass(frozen=True)
class Launch:
    """One of the processes that torchrun started.

    Attributes:
        rank: the number of this process, from 0.
        world: how many processes there are.
        local_rank: the number of this process on its machine.
        attempt: how often torchrun has restarted them.
        root: a store of all processes.
        outlives: whether it belongs to torchrun, so that it still holds what earlier attempts stored.
    """

    rank: int
    world: int
    local_rank: int
    attempt: int
    root: Store
    outlives: bool

    @property
    def store(self) -> Store:
        """A store of the processes of this attempt."""
        # Addresses that an earlier attempt left in the same store lead to processes that have ended.
        return PrefixStore(f"hypergrad/attempt {self.attempt}", self.root)

    def same(self, key: str, value: str, *, in_all_attempts: bool) -> str:
        """The value that the first process stored under a key, on all of them."""
        store = PrefixStore("hypergrad", self.root) if in_all_attempts else self.store
        return store.compare_set(key, "", value).decode()

    def device(self, name: str) -> str:
        """The device of this process: of several GPUs, the one with its number.

        Raises:
            ValueError: if all processes would share one GPU, or there is none for this one.
        """
        if self.world == 1 or name == "cpu":
            return name
        if name != "cuda":
            raise ValueError(
                f"device={name} with {self.world} processes: use cpu, or cuda, which gives each its own GPU."
            )
        if self.local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"torchrun started at least {self.local_rank + 1} processes on this machine, and torch finds "
                f"{torch.cuda.device_count()} GPUs; each needs its own: lower --nproc-per-node, or use device=cpu."
            )
        return f"cuda:{self.local_rank}"


@cache
def launched() -> Launch | None:
    """This process as one of those that torchrun started; None if it was started on its own."""
    if any(name not in os.environ for name in _ENVIRONMENT):
        return None
    store, rank, world = next(rendezvous("env://"))
    local_rank, attempt = (int(os.environ.get(name, "0")) for name in ("LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT"))
    return Launch(rank, world, local_rank, attempt, store, os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True")


def traced(error: BaseException) -> str:
    """An error with its traceback, as Python prints it."""
    return "".join(traceback.format_exception(error)).rstrip()


@contextmanager
def processes(
    *, device: str = "cpu", timeout: float = 1800.0, show: Callable[[BaseException], str] = traced
) -> Iterator[Peers]:
    """Join the processes that torchrun started, for the block; without torchrun, nothing happens.

    With gloo, and NCCL for tensors on GPUs. An error in the block is printed once, by the rank that failed first, and
    ends this process at once, with exit code 1; torchrun then ends the others.

    Args:
        device: "cpu", or "cuda" for one GPU for each process, which becomes torch's current one.
        timeout: seconds that a rank waits for the others in a collective before it fails, > 0.
        show: what is printed of an error.

    Raises:
        SystemExit: of the block.

    Also raised, by what it calls: ValueError if there is no such device for each process.
    """
    launch = launched()
    if launch is None or launch.world == 1:
        yield ALONE
        return
    place = torch.device(launch.device(device))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group(
        "gloo" if place.type == "cpu" else "cpu:gloo,cuda:nccl",
        store=launch.store,
        rank=launch.rank,
        world_size=launch.world,
        timeout=timedelta(seconds=timeout),
    )
    try:
        yield peers_of()
    except SystemExit:
        raise
    except BaseException as error:
        # The interpreter would wait for threads of the group, which wait for processes that have ended.
        _leave(error, show)
    dist.destroy_process_group()
    # A thread of gloo lets go of the tensors of the last sum a moment after this one has it, and needs the interpreter
    # for that. If that were ending by then, the process would abort.
    time.sleep(_LETTING_GO)


def is_first_to_fail(error: BaseException) -> bool:
    """Whether no other process of torchrun failed before this one, which then says what happened."""
    launch = launched()
    if launch is None:
        return True
    store = None if dist.is_initialized() else launch.store
    return first_to_fail(launch.rank, described(error), store=store)[0] == launch.rank


def _leave(error: BaseException, show: Callable[[BaseException], str]) -> None:
    """End this process, with what happened on standard error if no other process says it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # torchrun sends one as soon as another process has ended
    stopped, rank, here, said = isinstance(error, KeyboardInterrupt), 0, dist.get_rank(), described(error)
    if isinstance(error, RankError) and error.rank is not None:
        rank, said = error.rank, str(error)
    elif not stopped:
        rank, said = first_to_fail(here, said)
    if rank == here:
        if not stopped and not hasattr(error, "__notes__"):
            error.add_note(f"This was on rank {here} of {dist.get_world_size()}.")
        print(show(error), file=sys.stderr)
    _leave_error_file(said)
    sys.stdout.flush()
    sys.stderr.flush()
    code = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
    os._exit(128 + code if stopped else 1)


def _leave_error_file(message: str) -> None:
    """Tell torchrun what its report is to show, in the form of its own `record`."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        extra = {"py_callstack": message, "timestamp": str(int(time.time()))}
        with open(path, "w") as file:
            json.dump({"message": {"message": message, "extraInfo": extra}}, file)
