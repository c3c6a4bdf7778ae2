"""Floating-point operations of what is computed."""

from typing import Any

from torch.utils.flop_counter import flop_registry

from hypergrad.core.torch_internals.tracing import TorchDispatchMode


class FlopCounter(TorchDispatchMode):
    """Counts as `FlopCounterMode` does, which follows modules by hooks that fail where blocks are recomputed.

    Attributes:
        total: operations of matrix products, convolutions and attention so far; all others count as none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        flops = flop_registry.get(func.overloadpacket)
        if flops is not None:
            self.total += flops(*args, **(kwargs or {}), out_val=result)
        return result
