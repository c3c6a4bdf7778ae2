"""Deterministic kernels for as long as training must be the same in both directions."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hypergrad.core.errors import ReversalError

_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
_WORKSPACE = ":4096:8"
"""With this size, or :16:8, the matrix products of a GPU are repeatable; torch refuses them without."""
_REFUSED = re.compile(r"(\S+) does not have a deterministic implementation")


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """A context in which a GPU runs kernels that give the same bits twice; all settings are restored afterwards.

    On a CPU nothing is set: its kernels are repeatable, and those of the deterministic mode may round differently.

    Raises:
        ReversalError: if an operation has no such kernel; the message names it.
    """  # noqa: DOC501 (other errors are passed on)
    if device.type != "cuda":
        yield
        return
    here: Any = torch.utils.deterministic
    filled = here.fill_uninitialized_memory
    was_on, only_warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    variable = os.environ.get(_VARIABLE)
    try:
        os.environ.setdefault(_VARIABLE, _WORKSPACE)
        torch.use_deterministic_algorithms(True)
        here.fill_uninitialized_memory = False  # it costs time, and every tensor is written before it is read
        yield
    except RuntimeError as error:
        refused = _REFUSED.match(str(error))
        if refused is None:
            raise
        raise ReversalError(
            f"Training on integers must give the same bits in both directions, but the operation {refused[1]} in the "
            f"inner loss or its gradient has no deterministic kernel on {device}. Write it with other operations, or "
            "use another tape, such as Checkpoint."
        ) from error
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=only_warned)
        here.fill_uninitialized_memory = filled
        if variable is None:
            os.environ.pop(_VARIABLE, None)
