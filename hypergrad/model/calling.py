"""How a user's module is called: with which kernels, without recomputation, with random draws by seed and step."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hypergrad.core.autodiff import Tensors
from hypergrad.core.seed import seed_of
from hypergrad.core.torch_internals.modules import forward_hooks_of, forward_pre_hooks_of
from hypergrad.core.torch_internals.operations import (
    CUDNN_SWITCH,
    ONEDNN_SWITCH,
    SDP_SWITCHES,
    recomputation,
    set_recomputation,
)


class FunctionOfParameters(Protocol):
    """What `PureModule` is: z(w, X) in a training step, or in evaluation."""

    module: nn.Module

    def params(self) -> Tensors:
        """w₀."""
        ...

    def __call__(self, params: Tensors, X: Any, step: int | None) -> Tensor:
        """The outputs."""
        ...


Setting = tuple[Callable[[], Any], Callable[[Any], object], Any]
"""How a setting of torch is read and set, and what to set it to."""


class Settings:
    """A context in which settings of torch have other values; a generator would cost as much as a small kernel.

    Args:
        settings: of torch.
    """

    __slots__ = ("_before", "_settings")

    def __init__(self, settings: Sequence[Setting]) -> None:
        self._settings = settings

    def __enter__(self) -> None:
        self._before = [(put, get()) for get, put, _ in self._settings]
        for _, put, value in self._settings:
            put(value)

    def __exit__(self, *error: object) -> None:
        for put, value in self._before:
            put(value)


class Kernels:
    """What must be set around a call of a module, from what is known of its parts.

    Args:
        module: it is not called.
    """

    def __init__(self, module: nn.Module) -> None:
        parts = list(module.modules())
        # Functions that a user's own forward or hook calls cannot be seen from outside.
        self._foreign = any(isinstance(part, nn.MultiheadAttention) or _is_foreign(part) for part in parts)
        self._recurrent = [part for part in parts if isinstance(part, nn.RNNBase)]
        self.draw = any(
            part.training and part.dropout > 0 for part in parts if isinstance(part, nn.RNNBase | nn.MultiheadAttention)
        )
        """Whether kernels draw random numbers in training; then each kind draws others."""

    @property
    def differ(self) -> bool:
        """Whether torch may have other kernels for what is differentiated once."""
        return self._foreign or bool(self._recurrent)

    def around(self, device: torch.device, *, twice: bool) -> Settings:
        """The context of a call.

        Args:
            device: of its inputs.
            twice: whether only kernels with second derivatives may run.
        """
        settings: list[Setting] = []
        if self._foreign:
            settings += (_NO_FAST_PATH, _NO_RECOMPUTATION, *(_FORMULA if twice else ()))
        if self._recurrent and device.type == "cuda":
            # Those of cuDNN have no derivative in evaluation, which the dev loss needs.
            evaluated = torch.is_grad_enabled() and not all(part.training for part in self._recurrent)
            settings += [_NO_CUDNN] * (twice or evaluated)
        elif self._recurrent and twice:
            settings.append(_NO_ONEDNN)
        return Settings(settings)


class watched(TorchFunctionMode):  # noqa: N801 (a context manager)
    """A context with a call of the module in training, whose own functions may call attention with dropout.

    Args:
        kernels: of the module, which keep that in mind.
    """

    def __init__(self, kernels: Kernels) -> None:
        super().__init__()
        self._kernels = kernels

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.scaled_dot_product_attention:
            self._kernels.draw |= (args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)) > 0
        return func(*args, **kwargs)


def _is_foreign(part: nn.Module) -> bool:
    hooks = forward_hooks_of(part) or forward_pre_hooks_of(part)
    return not type(part).__module__.startswith("torch.nn.") or "forward" in vars(part) or bool(hooks)


def without_recomputation() -> Settings:
    """A context in which `torch.utils.checkpoint.checkpoint(f, …)` is f(…), and keeps what backward needs.

    Recomputation happens in backward, after the call of the module: with the module's own weights instead of those of
    the call, and with other kernels. `checkpoint` itself cannot be replaced, because modules have imported it; the two
    functions that it calls can.
    """
    return Settings([_NO_RECOMPUTATION])


class seeded:  # noqa: N801 (a context manager, made for each call)
    """A context in which torch draws numbers that depend on the seed and the step only.

    Args:
        device: on which the call draws, besides the CPU.
        seed: of all draws.
        step: None in evaluation.
    """

    __slots__ = ("_before", "_device", "_seed")

    def __init__(self, device: torch.device, seed: int, step: int | None) -> None:
        self._device, self._seed = device, seed_of("draws", seed, step)

    def __enter__(self) -> None:
        # The state of a generator of cuda is a seed and a counter of the host: reading it waits for no kernel.
        generators = [torch.default_generator]
        if self._device.type == "cuda":
            index = torch.cuda.current_device() if self._device.index is None else self._device.index
            generators.append(torch.cuda.default_generators[index])
        self._before = [(generator, generator.get_state()) for generator in generators]
        if self._device.type in ("cpu", "cuda"):  # torch.manual_seed visits every backend, in some 300 µs
            for generator in generators:
                generator.manual_seed(self._seed)
        else:
            torch.manual_seed(self._seed)

    def __exit__(self, *error: object) -> None:
        for generator, state in self._before:
            generator.set_state(state)


class _Plain:
    @staticmethod
    def apply(function: Any, preserve: bool, *args: Any) -> Any:
        return function(*args)


def _plain(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


_NO_RECOMPUTATION: Setting = (recomputation, set_recomputation, (_Plain, _plain))
# The fast paths of nn.MultiheadAttention and nn.TransformerEncoderLayer give other values than in training, such as
# zeros for padding, and are for evaluation without a graph only.
_NO_FAST_PATH: Setting = (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled, False)
_FORMULA: tuple[Setting, ...] = tuple((*switch, kernel == "math") for kernel, switch in SDP_SWITCHES.items())
# The context managers of torch also set precisions, and warn if there is no Intel GPU.
_NO_CUDNN: Setting = (*CUDNN_SWITCH, False)
_NO_ONEDNN: Setting = (*ONEDNN_SWITCH, False)
