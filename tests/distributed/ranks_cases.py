"""Cases by which the launcher itself is tested."""

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from hypergrad.core.collectives import Ranks


def total() -> float:
    ranks = Ranks.of(None)
    (found,) = ranks.total([torch.tensor(1.0 + ranks.rank)])
    return found.item()


def fail() -> None:
    raise ValueError("on purpose")


def wait_for_nobody() -> None:
    if dist.get_rank() == 0:
        dist.barrier()
    time.sleep(1000)


def cases() -> dict[str, Callable[[], Any]]:
    return {"total": total, "rank": dist.get_rank, "fail": fail, "after": lambda: "as before"}


def deadlock() -> dict[str, Callable[[], Any]]:
    return {"total": total, "wait": wait_for_nobody}
