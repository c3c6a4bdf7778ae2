"""A module as a pure function of its parameters: how buffers and random draws are treated."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors, leaves
from hypergrad.core.order import is_first_order
from hypergrad.core.torch_internals.trees import tree_leaves, tree_map_only
from hypergrad.model.batch_statistics import Moments, normalizing_by
from hypergrad.model.blocks import Blocks, Recompute, blocks_of
from hypergrad.model.calling import Kernels, Settings, seeded, watched
from hypergrad.model.convention import OUTPUTS, arguments, tensor_of
from hypergrad.model.copying import copied
from hypergrad.model.places import Places
from hypergrad.model.probe import require_functional
from hypergrad.model.requirements import require_servable
from hypergrad.model.stale import suspects
from hypergrad.model.trained_module import ModuleTemplate, keeps_averages
from hypergrad.model.trial import kept_random_states, require_gradient, try_out
from hypergrad.model.weight_norm import write_out_weight_norm


class PureModule(nn.Module):
    """z(w, X): a copy of a module without state between calls, which draws the same numbers at the same step.

    - Parameters that require a gradient are trained; tied ones once, under their first name, also if a module is used
      under several names, or a list or plain attribute holds the parameter too. Frozen ones are constants.
    - Batch normalisation uses the statistics of the current batch, in training and in evaluation, and keeps no running
      averages; nor does instance normalisation. A layer in `eval()` mode uses its running averages as constants.
      `trained` makes a module with running averages.
    - Dropout and other random draws depend only on the seed and the step. A module in `eval()` mode draws nothing; in
      evaluation, all modules are in that mode.
    - Attention and recurrent layers run on kernels that can be differentiated twice wherever that may happen, see
      `hypergrad.core.order`: attention by its formula, recurrent layers without cuDNN and oneDNN. Elsewhere they run on
      torch's fused kernels, unless these draw random numbers of their own. Weight normalisation is computed by plain
      operations.
    - `torch.utils.checkpoint` in the module calls its function and recomputes nothing.
    - A module that changes its inputs in place gets a copy of them.
    - Inputs that are a tuple are positional arguments, and those that are a dict are keyword arguments.

    Args:
        module: any module that returns a tensor, or an object with the entry `returns`; it is not changed.
        X: a few inputs to try the module on.
        seed: of the random draws.
        returns: what to use of an object that the module returns, `OUTPUTS` or `LOSS`.
        probe: whether to compare outputs and gradient, away from w₀, with those of a copy of the module that has other
            parameters written into it, see `require_functional`. Otherwise it is not known whether the module reads
            its parameters elsewhere, keeps state in Python, or recomputes something in backward.
        recompute: blocks whose activations are not kept, but computed again in each backward pass: patterns of names
            such as "layers.*", or True for all that repeat, see `blocks_of`. Nothing is recomputed inside transforms of
            `torch.func`.

    Raises:
        ValueError: if there is nothing to train.

    Also raised, by what it calls: TypeError if the module is of a kind that cannot be served; ValueError if a call
    changes the module, is not repeatable, or is not the function of its parameters that it seems to be.
    """

    def __init__(
        self,
        module: nn.Module,
        X: Any,
        seed: int,
        *,
        returns: str = OUTPUTS,
        probe: bool = True,
        recompute: Recompute = False,
    ) -> None:
        super().__init__()
        self._returns = returns
        require_servable(module)
        self.module = copied(module)
        computed = suspects(module, self.module)
        write_out_weight_norm(self.module)
        for part in self.module.modules():
            if keeps_averages(part):
                part.track_running_stats = False
                part.running_mean = part.running_var = part.num_batches_tracked = None
            if isinstance(part, nn.Embedding):
                part.sparse = False  # the sparse gradient has the same values
        self._in_training = [part for part in self.module.modules() if part.training]
        self._trained = tuple(name for name, p in self.module.named_parameters() if p.requires_grad)
        if not self._trained:
            raise ValueError(
                "The model has no parameter that requires a gradient, so there is nothing to train: none of the "
                f"{len(list(self.module.parameters()))} parameters of this {type(module).__name__} does. Call "
                "requires_grad_(True) on what is to be trained."
            )
        self._kernels, self._places = Kernels(self.module), Places(self.module)
        names = blocks_of(self.module, recompute)
        self._blocks = Blocks(self.module, names, self._places) if names else None
        self._seed, self._draws, self._copies_inputs, self._probes = seed, False, False, probe
        witness = copied(self) if probe else None
        with kept_random_states():
            self._draws, self._copies_inputs = try_out(self, X, seed, probe=probe)
            if self._draws and self._kernels.differ:
                with torch.no_grad(), watched(self._kernels):
                    self(self.params(), X, 0)
            for suspect in computed:
                suspect.require_replaced()
                self._places.restore(suspect.part, suspect.attribute, suspect.value)
            if witness is not None:
                witness._draws, witness._copies_inputs = self._draws, self._copies_inputs
                require_functional(self, witness, X)
            else:
                with torch.enable_grad():
                    require_gradient(self.module, self(leaves(self.params()), X, 0))
        self._template = ModuleTemplate(module)

    def params(self) -> Tensors:
        """The initial values w₀ of the trained parameters, by name."""
        return {name: self.module.get_parameter(name).detach() for name in self._trained}

    @property
    def draws(self) -> bool:
        """Whether a training step draws random numbers."""
        return self._draws

    @property
    def probes(self) -> bool:
        """Whether derivatives of the module are compared with differences."""
        return self._probes

    def forward(self, params: Tensors, X: Any, step: int | None, moments: Moments | None = None) -> Tensor:
        """The outputs at `params` in the training step `step`, or in evaluation if `step` is None.

        Buffers among the `params`, by name, replace those of the module. Parameters that are not given are the module's
        own. If `moments` are given, batch normalisation uses them instead of those of X.
        """
        with self.calling(params, device_of(X), step, moments):
            return self._call(self._own(X))

    @contextmanager
    def calling(
        self, params: Tensors, device: torch.device, step: int | None, moments: Moments | None = None
    ) -> Iterator[None]:
        """A context in which the module, or a part of it, can be called as a function of `params`."""
        training, kernels = step is not None, self._kernels
        twice = kernels.differ and (training and kernels.draw or not is_first_order(next(iter(params.values()), None)))
        mode = partial(self._mode, device, training, twice)
        if moments is not None:
            mode = partial(_normalizing, mode, moments)
        random = seeded(device, self._seed, step) if self._draws else nullcontext()
        again = nullcontext() if self._blocks is None else self._blocks.active(mode, self._draws)
        with mode(), random, self._places.hold(params), again:
            yield

    def _mode(self, device: torch.device, training: bool, twice: bool) -> Settings:
        """A context for a call of the module, or of a part of it."""
        for part in self._in_training:
            if part.training is not training:  # nn.Module.__setattr__ takes a microsecond
                part.training = training
        return self._kernels.around(device, twice=twice)

    def keeping_activations(self) -> "PureModule":
        """The same module, which recomputes nothing."""
        other = copy(self)
        other._blocks = None
        return other

    def returning(self, entry: str) -> "PureModule":
        """The same module, of whose results `entry` is used; see `tensor_of`."""
        other = copy(self)
        other._returns = entry
        return other

    @property
    def averages(self) -> bool:
        """Whether the module of `trained` has running averages, so that its outputs differ from those of a call."""
        return self._template.averages

    def trained(self, values: Tensors, batches: Iterable[Any]) -> nn.Module:
        """The user's module in `eval()` mode, with the given parameters and buffers by name.

        Its running averages are those over `batches` of inputs; see `ModuleTemplate.filled`.
        """
        with self._evaluating(next(iter(values.values())).device):
            return self._template.filled(values, self.module, map(self._own, batches))

    @torch.no_grad()
    def outputs_of(self, trained: nn.Module, X: Any) -> Any:
        """The outputs of a module that `trained` made, with the random draws of evaluation."""
        with self._evaluating(device_of(X)):
            return self._call(self._own(X), trained)

    def _evaluating(self, device: torch.device) -> AbstractContextManager[None]:
        return seeded(device, self._seed, None) if self._draws else nullcontext()

    def _own(self, X: Any) -> Any:
        """The inputs, or a copy of them if the module changes its inputs."""
        return tree_map_only(Tensor, torch.clone, X) if self._copies_inputs else X

    def _call(self, X: Any, module: nn.Module | None = None) -> Tensor:
        module = self.module if module is None else module
        args, kwargs = arguments(X)
        return tensor_of(module(*args, **kwargs), module, self._returns)


@contextmanager
def _normalizing(mode: Callable[[], AbstractContextManager[None]], moments: Moments) -> Iterator[None]:
    """A context of a call that also gives batch normalisation its moments."""
    with mode(), normalizing_by(moments):
        yield


def device_of(X: Any) -> torch.device:
    """The device of a batch of inputs."""
    return next((x.device for x in tree_leaves(X) if isinstance(x, Tensor)), torch.device("cpu"))
