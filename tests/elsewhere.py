"""A device that is not the CPU, on a machine that has no other: its tensors keep their numbers on the CPU.

`ELSEWHERE` is the device `meta`, which torch has on every machine and which we lend numbers. Inside `elsewhere()`,
tensors that are made or moved there compute as on the CPU, and what a GPU refuses is refused: operands on two devices,
more than one number from the CPU in an elementwise operation, a generator of the CPU. `Synchronisations` around work
inside it counts what makes the host wait.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
ELSEWHERE = torch.device("meta")
MOVES = {aten._to_copy.default, aten.copy_.default}
BY_INDEX = {aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default, aten.index_put_.default}
TAKES_A_NUMBER = {aten.where.self, aten.masked_fill.Tensor, aten.masked_fill_.Tensor, aten.fill_.Tensor, *BY_INDEX}


class Placed(Tensor):
    """A tensor elsewhere; `numbers` is the one on the CPU that computes for it."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> "Placed":
        made = Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls,
            numbers.shape,
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            layout=numbers.layout,
            device=ELSEWHERE,
        )
        made.numbers = numbers
        return made

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"Placed({self.numbers})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.ndim == 0 else repr(self)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """The numbers.

        Raises:
            TypeError: unless they may be copied.
        """
        if not force:
            raise TypeError("can't convert a tensor elsewhere to numpy; use Tensor.cpu() first")
        return self.cpu().numpy()

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["numbers"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], meta: None, size: Any, stride: Any) -> "Placed":
        return Placed(inner["numbers"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class Elsewhere(TorchDispatchMode):
    """Catches what makes tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class FromNumbers(TorchFunctionMode):
    """Makes tensors of numbers on the CPU first, as torch does for a GPU, which waits for the copy."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.new_tensor and isinstance(args[0], Placed):
            like, args, func = args[0], args[1:], torch.tensor
            kwargs = {"dtype": like.dtype, "device": like.device} | kwargs
        asked = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and asked is not None and torch.device(asked) == ELSEWHERE:
            return func(*args, **kwargs | {"device": None}).to(ELSEWHERE)
        return func(*args, **kwargs)


@contextmanager
def elsewhere() -> Iterator[None]:
    """The device."""
    on_others = torch.is_autocast_enabled

    def on(device: str = "cuda") -> bool:  # which torch does not know of `meta`
        return device != ELSEWHERE.type and on_others(device)

    with patch.object(torch, "is_autocast_enabled", on), FromNumbers(), Elsewhere():
        yield


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The result of an operation, on the device where a GPU would have it.

    Raises:
        RuntimeError: if an operand has no numbers, or is where a GPU could not read it.
    """
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    ours = [x for x in tensors if isinstance(x, Placed)]
    if any(x.is_meta and not isinstance(x, Placed) for x in tensors):
        raise RuntimeError(f"{func} met a tensor of the device meta without numbers")
    asked = None if kwargs.get("device") is None else torch.device(kwargs["device"])
    if func not in MOVES:
        require_one_device(func, args, kwargs, asked)
    if func is aten._efficientzerotensor.default:
        func, args = aten.zeros.default, args[:1]
    plain_args, plain_kwargs = tree_map(numbers_of, args), tree_map(numbers_of, kwargs)
    if asked == ELSEWHERE:
        plain_kwargs["device"] = "cpu"
    with _disable_current_modes():
        found = func(*plain_args, **plain_kwargs)
    if func is aten.copy_.default:
        return args[0]
    if torch.Tag.inplace_view in func.tags and ours:
        with no_dispatch():
            func(*args, **kwargs)  # the shape of the tensor that stands for it
    if not (asked == ELSEWHERE if asked is not None else ours):
        return found
    known = {id(x.numbers): x for x in ours}  # what an operation changes in place stays the same tensor

    def placed(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return known[id(x)] if id(x) in known else Placed(x)

    return tree_map(placed, found)


def numbers_of(x: Any) -> Any:
    return x.numbers if isinstance(x, Placed) else x


def require_one_device(func: Any, args: Any, kwargs: dict[str, Any], asked: torch.device | None) -> None:
    """Refuse what a GPU refuses.

    Raises:
        RuntimeError: if the operands are on two devices, or numbers are drawn by a generator of the CPU.
    """
    operands = (args[0], args[2:]) if func in BY_INDEX else (args, kwargs)  # an index may be on the CPU
    tensors = [x for x in tree_leaves(operands) if isinstance(x, Tensor)]
    here, there = ([x for x in tensors if isinstance(x, Placed) is placed] for placed in (False, True))
    if there or asked == ELSEWHERE:
        generator = kwargs.get("generator")
        if generator is not None:
            raise RuntimeError(f"{func}: Expected a generator of another device, but found one of the CPU")
    if not there or not here:
        return
    if any(x.ndim for x in here) or not (torch.Tag.pointwise in func.tags or func in TAKES_A_NUMBER):
        shapes = [tuple(x.shape) for x in here]
        raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but {shapes} are on the CPU")
    if len(here) > 1 and func is not aten.where.self:
        raise RuntimeError(f"{func}: Trying to pass too many CPU scalars to non-CPU kernel!")
    if func.__name__.split(".")[0].endswith("_") and args[0] is here[0]:
        raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but the result is on the CPU")
