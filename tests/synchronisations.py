"""The operations for which the host waits for a GPU, recorded while they run on the CPU or on the meta device."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_WAITS = {
    *("_local_scalar_dense", "is_nonzero", "equal", "allclose", "nonzero", "masked_select", "_linalg_check_errors"),
    *("_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount", "repeat_interleave"),
}
_COPIES = {"_to_copy", "copy_", "copy"}
_INDEXES = {"index", "index_put", "index_put_", "_index_put_impl_"}
_LIBRARY = str(Path(__file__).parents[1] / "hypergrad")


class Synchronisations(TorchDispatchMode):
    """A context that records the operations that synchronise host and GPU: what needs a value, or copies between them.

    A copy to the GPU counts too unless it is `non_blocking`. `tolist()` and `numpy()` of a tensor on the CPU are no
    operations of torch, and do not count.

        with Synchronisations() as met:
            …
        assert not met.operations
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []
        """Each with the line of the library that called it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if name in _WAITS or name in _INDEXES and _masks(args[1]) or name in _COPIES and _moves(args, kwargs):
            self.operations.append(f"{name} by {_caller()}")
        return func(*args, **kwargs)


def _masks(indices: Any) -> bool:
    return any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in indices)


def _moves(args: Any, kwargs: Any) -> bool:
    """Whether a copy crosses devices, and the host waits for it."""
    devices = [x.device.type for x in tree_leaves(args) if isinstance(x, Tensor)]
    if kwargs.get("device") is not None:
        devices.insert(0, torch.device(kwargs["device"]).type)
    flags = [x for x in args if isinstance(x, bool)]
    free = kwargs.get("non_blocking", flags[0] if flags else False) and devices[0] != "cpu"
    return len(set(devices)) > 1 and not free


def _caller() -> str:
    frame = sys._getframe()
    while frame is not None and not frame.f_code.co_filename.startswith(_LIBRARY):
        frame = frame.f_back
    return "the test" if frame is None else f"{frame.f_code.co_filename[len(_LIBRARY) + 1 :]}:{frame.f_lineno}"
