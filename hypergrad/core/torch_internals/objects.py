"""What objects of torch know and do not show in public."""

from typing import Any

import torch
from torch import Tensor
from torch.distributed import distributed_c10d


def version_of(x: Tensor) -> int:
    """How often a tensor was written to.

    When it goes: compare with a copy of the values, which is slower.
    """
    return x._version


def outputs_of(node: Any) -> list[Any]:
    """Shapes and dtypes of the outputs of the operation that a node of a graph differentiates.

    When it goes: record the formats in the forward pass, by a `TorchDispatchMode`.
    """
    return node._input_metadata


def without_entries(cls: type[Tensor], like: Tensor) -> Any:
    """A tensor of a subclass with the shape, dtype and device of another one, and no entries.

    torch documents it under its private name. When it goes: take its successor.
    """
    return torch.Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype, device=like.device)  # type: ignore[attr-defined]


def end_workers(batches: Any) -> None:
    """End the processes of an iterator of a DataLoader at once.

    When it goes: drop the last reference to the iterator; the trace of an error may keep one for long.
    """
    batches._shutdown_workers()


def add_summary(writer: Any, summary: Any) -> None:
    """Write what `torch.utils.tensorboard.summary` made by a `SummaryWriter`.

    When it goes: `SummaryWriter.add_hparams` with `run_name="."`, which opens a second file.
    """
    writer._get_file_writer().add_summary(summary)


def has_step_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimiser calls hooks around its step; without this, its steps are not compiled."""
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


def default_store() -> distributed_c10d.Store:
    """The store of torch.distributed, which all processes see.

    When it goes: make one of our own, as `hypergrad.core.launch` does for its processes, and keep it.
    """
    return distributed_c10d._get_default_store()
