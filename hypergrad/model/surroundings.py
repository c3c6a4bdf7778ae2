"""What a call of a block finds around it, and must find again when it is repeated in backward."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from hypergrad.core.formats import autocasts

Mode = Callable[[], AbstractContextManager[None]]
"""Makes a context with the kernels and the training mode of a call."""


@dataclass(frozen=True)
class Surroundings:
    """Kernels, training mode, autocast and random numbers.

    Attributes:
        mode: of the call.
        device: of its tensors.
        autocast: the dtype of autocast on that device; None if it is off.
        random: the states of the generators of the CPU and of the GPU; None if nothing is drawn.
    """

    mode: Mode
    device: torch.device
    autocast: torch.dtype | None
    random: tuple[Tensor, Tensor | None] | None

    @classmethod
    def now(cls, mode: Mode, device: torch.device, draws: bool) -> "Surroundings":
        """Those of a call that begins now."""
        kind = device.type
        autocast = torch.get_autocast_dtype(kind) if autocasts(kind) else None
        gpu = torch.cuda.get_rng_state(device) if draws and kind == "cuda" else None
        return cls(mode, device, autocast, (torch.get_rng_state(), gpu) if draws else None)

    @contextmanager
    def original(self) -> Iterator[None]:
        """The context of the call itself."""
        with ExitStack() as stack:
            if self.autocast is not None:
                # Casts of parameters, made here without a graph, must not be used again where there is one.
                stack.enter_context(torch.autocast(self.device.type, self.autocast, cache_enabled=False))
            yield

    @contextmanager
    def again(self) -> Iterator[None]:
        """The same context in backward."""
        with ExitStack() as stack:
            stack.enter_context(self.mode())
            is_on = self.autocast is not None
            stack.enter_context(torch.autocast(self.device.type, self.autocast, enabled=is_on, cache_enabled=False))
            if self.random is not None:
                cpu, gpu = self.random
                stack.enter_context(torch.random.fork_rng(devices=[self.device] if gpu is not None else []))
                torch.set_rng_state(cpu)
                if gpu is not None:
                    torch.cuda.set_rng_state(gpu, self.device)
            yield
