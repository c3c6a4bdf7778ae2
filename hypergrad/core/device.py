"""Tensors on their way to a GPU, for which the host does not wait."""

import torch
from torch import Tensor


def sent(x: Tensor, device: torch.device) -> Tensor:
    """A tensor on another device; if it comes from the CPU, from pinned memory and without waiting for the copy."""
    if x.device == device:
        return x
    if x.device.type != "cpu":
        return x.to(device)
    return (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)
