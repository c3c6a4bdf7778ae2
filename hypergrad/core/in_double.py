"""Functions of tensors in float32, evaluated in float64 from the same numbers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hypergrad.core.torch_internals.trees import tree_map_only

_DTYPE_OF = Tensor.dtype.__get__  # type: ignore[attr-defined]
_DRAWS = {"rand_like", "randn_like", "normal", "normal_", "uniform_", "exponential_"}
"""Functions that draw other numbers in float64 than in float32 with the same seed."""
_DROPS = {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "bernoulli"}
"""Functions that draw the same numbers on a CPU, but others on a GPU."""


class in_double(TorchFunctionMode):  # noqa: N801 (a context manager)
    """A context in which operations of torch take and return float64 where they would float32.

    Tensors made outside are cast wherever they are used, and stay as they are. Random numbers keep their values, or
    drawing them raises NotImplementedError.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func == _DTYPE_OF:  # with which formats are recognised, and their ε asked for
            return func(*args)
        name = getattr(func, "__name__", "")
        if name in _DRAWS or name in _DROPS and not all(x.is_cpu for x in args if isinstance(x, Tensor)):
            raise NotImplementedError(f"{name} draws other random numbers in float64")
        given = tree_map_only(Tensor, as_double, (args, kwargs or {}))
        if func is Tensor.float:
            func = Tensor.double
        elif any(isinstance(x, Tensor) for x in args):
            given = tree_map_only(torch.dtype, _wider, given)
        return tree_map_only(Tensor, as_double, func(*given[0], **given[1]))


def as_double(x: Tensor) -> Tensor:
    """A tensor in float32 in float64, differentiably; others as they are."""
    return x.double() if x.dtype == torch.float32 else x


def _wider(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float32 else dtype
