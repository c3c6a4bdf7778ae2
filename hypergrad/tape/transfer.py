"""Copies of states between a GPU and memory that is pinned for it, beside the computation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hypergrad.solver.base import State
from hypergrad.training.states import entries


class Transfer:
    """Copies in both directions on a stream of their own, so that neither the GPU nor Python waits for them.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)

    def out(self, state: State) -> tuple[State, Any]:
        """The state in pinned memory, once the event has happened."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            host = _each(state, self._out)
        return host, self._stream.record_event()

    def back(self, host: State) -> tuple[State, Any]:
        """The state on the GPU, once the event has happened; copies from memory that is not pinned wait for it."""
        with torch.cuda.stream(self._stream):
            state = _each(host, lambda x: x.to(self._device, non_blocking=x.is_pinned()))
        return state, self._stream.record_event()

    def use(self, state: State, event: Any) -> None:
        """Let the current stream wait for the event before it reads the state that `back` returned."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(event)
        for x in entries(state):
            x.record_stream(current)

    def _out(self, x: Tensor) -> Tensor:
        host = torch.empty_like(x, device="cpu", pin_memory=True)
        host.copy_(x, non_blocking=True)
        x.record_stream(self._stream)  # its memory is not used again before it was copied
        return host


def _each(state: State, function: Callable[[Tensor], Tensor]) -> State:
    return {group: {name: function(x) for name, x in tensors.items()} for group, tensors in state.items()}
