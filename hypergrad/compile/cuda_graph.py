"""Functions of tensors on a GPU as CUDA graphs: recorded once, then replayed by one launch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.torch_internals.operations import foreach_copy_


def common_gpu(tensors: Sequence[Tensor]) -> torch.device | None:
    """The GPU that holds all of the tensors; None if there is none, or if one of them is elsewhere."""
    devices = {x.device for x in tensors}
    return devices.pop() if len(devices) == 1 and tensors[0].is_cuda else None


def record(function: Callable[[], Any], device: torch.device) -> tuple[Callable[[], None], Any]:
    """The kernels that a call launches, as a graph.

    Args:
        function: reads tensors that stay where they are, allocates what it returns, and does not wait for the GPU.
        device: the GPU.

    Returns:
        What runs the kernels again, and the results of the recorded call, which each replay overwrites.
    """
    with torch.cuda.device(device):
        # The first call loads kernels and makes the workspaces of libraries, which cannot be recorded.
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            function()
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as those that load data, may use the GPU meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            results = function()
    return graph.replay, results


class Replay:
    """A function of lists of tensors, recorded with inputs of its own, into which each call copies.

    The results of a call are overwritten by the next call: what lives longer must be copied.
    """

    def __init__(
        self,
        function: Callable[[list[Tensor], list[Tensor]], Any],
        fixed: Sequence[Tensor],
        moving: Sequence[Tensor],
        resident: Sequence[Tensor],
    ) -> None:
        """Record a call.

        Args:
            function: (fixed, moving) ↦ a nesting of tensors.
            fixed: an example of the first argument. It is copied only if it is another list than in the last call.
            moving: an example of the second argument, all of whose tensors are copied in each call.
            resident: tensors that stay where they are; those of `fixed` that are views of these are never copied.
        """
        places = {x.untyped_storage().data_ptr() for x in resident}
        self._moves = [k for k, x in enumerate(fixed) if x.untyped_storage().data_ptr() not in places]
        self._fixed = [x.clone() if k in self._moves else x for k, x in enumerate(fixed)]
        self._moving = [x.clone() for x in moving]
        self._loaded = fixed
        self._replay, self._results = record(lambda: function(self._fixed, self._moving), moving[0].device)

    def __call__(self, fixed: Sequence[Tensor], moving: Sequence[Tensor]) -> Any:
        """The results for arguments of the same shapes, until the next call."""
        if fixed is not self._loaded:
            _copy([self._fixed[k] for k in self._moves], [fixed[k] for k in self._moves])
            self._loaded = fixed
        _copy(self._moving, moving)
        self._replay()
        return self._results


def _copy(to: list[Tensor], tensors: Sequence[Tensor]) -> None:
    if to:
        foreach_copy_(to, list(tensors))


def replaying(
    function: Callable[..., Sequence[Tensor]], shared: Sequence[Tensor], resident: Sequence[Tensor] = ()
) -> Callable[..., Sequence[Tensor]]:
    """(*tensors) ↦ function(*shared, *tensors), as one CUDA graph if all of the tensors are on one GPU.

    Args:
        function: compiled; without grad mode.
        shared: its first arguments in all calls.
        resident: the tensors that it holds.

    Returns:
        The function of the other arguments, always of the same shapes; its results are not overwritten.
    """
    made: list[Replay] = []

    def call(*tensors: Tensor) -> Sequence[Tensor]:
        if common_gpu([*tensors, *shared, *resident]) is None:
            return function(*shared, *tensors)
        if not made:
            made.append(Replay(lambda fixed, moving: function(*fixed, *moving), shared, tensors, resident))
        return [x.clone() for x in made[0](shared, tensors)]

    return call
