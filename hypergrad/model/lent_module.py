"""A user's own module, lent for a while: it computes with other parameters, and comes back as it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors
from hypergrad.core.order import is_first_order
from hypergrad.model.calling import Kernels, without_recomputation
from hypergrad.model.copying import parts_of
from hypergrad.model.places import Places
from hypergrad.model.requirements import require_servable
from hypergrad.model.weight_norm import write_out_weight_norm


class LentModule:
    """The very object that a user's losses call, with its trained parameters replaced by given tensors during a call.

    Losses may be closures over the module or one of its parts, so a copy would not do. Tied parameters are replaced by
    one tensor, and frozen ones are constants. Each call starts from copies of the same buffers.

    Args:
        module: any module that `require_servable` accepts.

    Raises:
        ValueError: if it has no parameter that requires a gradient.

    Also raised, by what it calls: TypeError or ValueError if the module is of a kind that cannot be served.
    """

    def __init__(self, module: nn.Module) -> None:
        require_servable(module)
        self.module = module
        self.own: Tensors = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not self.own:
            raise ValueError(
                f"params must be a module with parameters that require a gradient, but none of the "
                f"{sum(1 for _ in module.parameters())} parameters of this {type(module).__name__} does; call "
                "requires_grad_() on what was trained."
            )
        self._buffers = dict(module.named_buffers())
        self._frozen = {name: p.detach() for name, p in module.named_parameters() if not p.requires_grad}
        self._parts = list(parts_of(module))
        self._places, self._kernels = Places(module), Kernels(module)

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(iter(self.own.values())).device

    def params(self) -> Tensors:
        """The values of the trained parameters by name."""
        return {name: p.detach().clone() for name, p in self.own.items()}

    def call(self, loss: Callable[..., Tensor], params: Tensors, *rest: Any) -> Tensor:
        """loss(module, …) while the module holds `params`; only inside `lent`."""
        copies = {name: b.clone() for name, b in self._buffers.items()}
        twice = not is_first_order(next(iter(params.values())))
        kernels = self._kernels.around(self.device, twice=twice)
        with kernels, self._places.hold({**params, **self._frozen, **copies}):
            return loss(self.module, *rest)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """A context in which derivatives of any order are right, and after which the module is as it was.

        Attention and recurrent layers run on kernels with second derivatives, weight normalisation on plain operations,
        and `torch.utils.checkpoint` recomputes nothing. Afterwards every attribute of every part is what it was before.
        """
        before = [_Attributes(part) for part in self._parts]
        try:
            with without_recomputation():
                write_out_weight_norm(self.module)
                yield
        finally:
            for attributes in before:
                attributes.restore()

    @contextmanager
    def written(self, params: Tensors) -> Iterator[None]:
        """A context in which `params` are written into the memory of the parameters, as an optimiser does."""
        before = self.params()
        try:
            self._write(params)
            yield
        finally:
            self._write(before)

    def _write(self, params: Tensors) -> None:
        for name, p in self.own.items():
            p.data.copy_(params[name])  # through .data, so that the version counter of the user's parameter stays


class _Attributes:
    """The attributes of a module, and the contents of those that are lists, dicts or sets."""

    def __init__(self, part: nn.Module) -> None:
        self.part, self.values = part, dict(vars(part))
        self.contents = [(x, x.copy()) for x in self.values.values() if isinstance(x, list | dict | set)]

    def restore(self) -> None:
        """Set them as they were, in the same objects."""
        own = vars(self.part)
        own.clear()
        own.update(self.values)
        for container, content in self.contents:
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(content)
