"""A module as a pure function of its parameters: how buffers and random draws are treated."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from hypergrad.core.autodiff import Tensors
from hypergrad.core.seed import seed_of
from hypergrad.model.trained_module import ModuleTemplate, keeps_averages


class PureModule(nn.Module):
    """z(w, X): a copy of a module without state between calls, which draws the same numbers at the same step.

    - Parameters that require a gradient are trained; tied ones once, under their first name. Frozen ones are constants.
    - Batch normalisation uses the statistics of the current batch, in training and in evaluation, and keeps no running
      averages; nor does instance normalisation. A layer in `eval()` mode uses its running averages as constants.
      `trained` makes a module with running averages.
    - Dropout and other random draws depend only on the seed and the step. A module in `eval()` mode draws nothing; in
      evaluation, all modules are in that mode.
    - Attention and recurrent layers run on kernels of torch that can be differentiated twice: attention by its formula,
      without fused kernels or fast paths, recurrent layers without cuDNN and oneDNN.

    Args:
        module: any module; it is not changed.
        X: a few inputs to try the module on.
        seed: of the random draws.

    Raises:
        ValueError: if there is nothing to train, or a call changes the module or is not repeatable.
    """

    def __init__(self, module: nn.Module, X: Tensor, seed: int) -> None:
        super().__init__()
        self.module, self._template = deepcopy(module), ModuleTemplate(module)
        self._seed, self._draws = seed, True
        for part in self.module.modules():
            if keeps_averages(part):
                part.track_running_stats = False
                part.running_mean = part.running_var = part.num_batches_tracked = None
        self._in_training = [part for part in self.module.modules() if part.training]
        parts = list(self.module.modules())
        # Functions that a user's own forward calls cannot be seen from outside.
        self._may_attend = any(
            isinstance(part, nn.MultiheadAttention) or not type(part).__module__.startswith("torch.nn.")
            for part in parts
        )
        self._recurs = any(isinstance(part, nn.RNNBase) for part in parts)
        if not self.params():
            raise ValueError("The model has no parameter that requires a gradient, so there is nothing to train.")
        self._try(X)

    def params(self) -> Tensors:
        """The initial values w₀ of the trained parameters, by name."""
        return {name: p.detach() for name, p in self.module.named_parameters() if p.requires_grad}

    @property
    def draws(self) -> bool:
        """Whether a training step draws random numbers."""
        return self._draws

    def forward(self, params: Tensors, X: Tensor, step: int | None) -> Tensor:
        """The outputs at `params` in the training step `step`, or in evaluation if `step` is None.

        Buffers among the `params`, by name, replace those of the module.
        """
        for part in self._in_training:
            part.training = step is not None
        with ExitStack() as stack:
            if self._may_attend:
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
                stack.enter_context(_without_fast_path())
            if self._recurs:
                stack.enter_context(torch.backends.cudnn.flags(enabled=False) if X.is_cuda else _without_onednn())
            stack.enter_context(_seeded(X.device, self._seed, step) if self._draws else nullcontext())
            return functional_call(self.module, params, (X,))

    @property
    def averages(self) -> bool:
        """Whether the module of `trained` has running averages, so that its outputs differ from those of a call."""
        return self._template.averages

    def trained(self, values: Tensors, batches: Iterable[Any]) -> nn.Module:
        """The user's module in `eval()` mode, with the given parameters and buffers by name.

        Its running averages are those over `batches` of inputs; see `ModuleTemplate.filled`.
        """
        device = next(iter(values.values())).device
        with _seeded(device, self._seed, None) if self._draws else nullcontext():
            return self._template.filled(values, self.module, batches)

    @torch.no_grad()
    def outputs_of(self, trained: nn.Module, X: Any) -> Any:
        """The outputs of a module that `trained` made, with the random draws of evaluation."""
        device = next(trained.parameters()).device
        with _seeded(device, self._seed, None) if self._draws else nullcontext():
            return trained(X)

    @torch.no_grad()
    def _try(self, X: Tensor) -> None:
        before = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        outputs, judged = self(self.params(), X, 0), self(self.params(), X, None)
        for step, found in ((0, outputs), (None, judged)):
            again = self(self.params(), X, step)
            if not isinstance(found, Tensor) or not torch.equal(found, again) and found.isfinite().all():
                met = "two calls differ" if isinstance(found, Tensor) else f"it returned a {type(found).__name__}"
                raise ValueError(
                    f"{type(self.module).__name__} must return a tensor that is a function of its parameters and "
                    f"inputs, and of torch's random numbers in training, but {met}."
                )
        for name, buffer in self.module.named_buffers():
            if not torch.equal(buffer, before[name]):
                owner = self.module.get_submodule(name.rpartition(".")[0])
                raise ValueError(
                    f"A call of the model changes the buffer {name!r} of its {type(owner).__name__}, but a training "
                    f"step must be a pure function; call eval() on that module, or let it keep no statistics."
                )
        self._draws = self._draws_numbers(X)

    def _draws_numbers(self, X: Tensor) -> bool:
        def state() -> Tensor:
            return torch.cuda.get_rng_state(X.device) if X.is_cuda else torch.get_rng_state()

        for part in self._in_training:
            part.training = True
        with torch.random.fork_rng(devices=[X.device] if X.is_cuda else []):
            before = state()
            functional_call(self.module, self.params(), (X,))
            return not torch.equal(before, state())


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Evaluate nn.MultiheadAttention and nn.TransformerEncoderLayer by the same path as in training."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _without_onednn() -> Iterator[None]:
    # The context manager of torch also sets the precision of an Intel GPU, and warns if there is none.
    set_flags: Any = torch.backends.mkldnn.set_flags
    enabled, *_ = set_flags(False, None, None, None)
    try:
        yield
    finally:
        set_flags(enabled, None, None, None)


@contextmanager
def _seeded(device: torch.device, seed: int, step: int | None) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_of("draws", seed, step))
        yield
