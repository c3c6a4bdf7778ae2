"""How a user's module is called: kernels with second derivatives, no recomputation, random draws by seed and step."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hypergrad.core.autodiff import Tensors
from hypergrad.core.seed import seed_of


class FunctionOfParameters(Protocol):
    """What `PureModule` is: z(w, X) in a training step, or in evaluation."""

    module: nn.Module

    def params(self) -> Tensors:
        """w₀."""
        ...

    def __call__(self, params: Tensors, X: Any, step: int | None) -> Tensor:
        """The outputs."""
        ...


class Kernels:
    """What must be set around a call of a module, from what is known of its parts.

    Args:
        module: it is not called.
    """

    def __init__(self, module: nn.Module) -> None:
        parts = list(module.modules())
        # Functions that a user's own forward or hook calls cannot be seen from outside.
        self._foreign = any(isinstance(part, nn.MultiheadAttention) or _is_foreign(part) for part in parts)
        self._recurs = any(isinstance(part, nn.RNNBase) for part in parts)

    def enter(self, stack: ExitStack, device: torch.device) -> None:
        """Set it until the stack is closed."""
        if self._foreign:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(_without_fast_path())
            stack.enter_context(without_recomputation())
        if self._recurs:
            stack.enter_context(
                torch.backends.cudnn.flags(enabled=False) if device.type == "cuda" else _without_onednn()
            )


def _is_foreign(part: nn.Module) -> bool:
    hooks = part._forward_hooks or part._forward_pre_hooks
    return not type(part).__module__.startswith("torch.nn.") or "forward" in vars(part) or bool(hooks)


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Evaluate nn.MultiheadAttention and nn.TransformerEncoderLayer by the same path as in training."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _without_onednn() -> Iterator[None]:
    # The context manager of torch also sets the precision of an Intel GPU, and warns if there is none.
    set_flags: Any = torch.backends.mkldnn.set_flags
    enabled, *_ = set_flags(False, None, None, None)
    try:
        yield
    finally:
        set_flags(enabled, None, None, None)


@contextmanager
def without_recomputation() -> Iterator[None]:
    """A context in which `torch.utils.checkpoint.checkpoint(f, …)` is f(…), and keeps what backward needs.

    Recomputation happens in backward, after the call of the module: with the module's own weights instead of those of
    the call, and with other kernels. `checkpoint` itself cannot be replaced, because modules have imported it; the two
    functions that it calls can.
    """
    here: Any = torch.utils.checkpoint
    before = here.CheckpointFunction, here._checkpoint_without_reentrant_generator
    here.CheckpointFunction, here._checkpoint_without_reentrant_generator = _Plain, _plain
    try:
        yield
    finally:
        here.CheckpointFunction, here._checkpoint_without_reentrant_generator = before


class _Plain:
    @staticmethod
    def apply(function: Any, preserve: bool, *args: Any) -> Any:
        return function(*args)


def _plain(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


@contextmanager
def seeded(device: torch.device, seed: int, step: int | None) -> Iterator[None]:
    """A context in which torch draws numbers that depend on the seed and the step only."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_of("draws", seed, step))
        yield
