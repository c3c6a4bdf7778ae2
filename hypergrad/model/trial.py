"""The first calls of a module: whether they change anything, can be repeated, and draw random numbers."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors
from hypergrad.core.formats import coarsest
from hypergrad.core.torch_internals.objects import version_of
from hypergrad.core.torch_internals.trees import tree_flatten, tree_leaves, tree_map_only
from hypergrad.data.tree import take
from hypergrad.model.calling import FunctionOfParameters, seeded
from hypergrad.model.copying import own_state, parts_of
from hypergrad.model.repetition import is_repeated
from hypergrad.model.requirements import layer

_VALUES = (int, float, complex, str, bytes, bool, type(None), np.ndarray, np.generic)
_REMEDY = "a training step must be a pure function of parameters, inputs and torch's random numbers"


@torch.no_grad()
def try_out(model: FunctionOfParameters, X: Any, seed: int, *, probe: bool) -> tuple[bool, bool]:
    """Call a module twice in training and twice in evaluation, at its initial parameters and on copies of the inputs.

    Args:
        model: no call of it was made before.
        X: a few inputs.
        seed: of the random draws.
        probe: whether to look for state in attributes too.

    Returns:
        Whether it draws random numbers in training, and whether it changes its inputs.

    Also raised, by what it calls: ValueError if a call is not repeatable, or changes the model.
    """
    draws = changes = False
    state: dict[tuple[nn.Module, str], Any] = {}
    before = {name: x.clone() for name, x in model.module.named_buffers()}
    versions = {name: version_of(x) for name, x in model.module.named_parameters()}
    for step in (0, None):
        outputs: list[Tensor] = []
        for call in range(2):
            given, w = tree_map_only(Tensor, torch.clone, X), {k: p.clone() for k, p in model.params().items()}
            device = next(iter(w.values())).device
            with seeded(device, seed, step):
                start = _state(device)
                outputs.append(_require_tensor(model.module, model(w, given, step)))
                draws |= step is not None and not torch.equal(start, _state(device))
            changes |= not _same(given, X)
            _require_unchanged(model, w, before, versions)
            was, state = state, _python_state(model.module) if probe else {}
            if call == 1:
                _require_stateless(model.module, was, state)
                _require_repeated(model.module, *outputs)
    return draws, changes


@torch.no_grad()
def require_batches(model: FunctionOfParameters, X: Any, size: int, batch_size: int | None, drop_last: bool) -> None:
    """Require that a model can train on a batch of one example, which batch normalisation may not, if there is one.

    Args:
        model: the model.
        X: a few train inputs.
        size: the number of train examples.
        batch_size: examples of a training step; None for all.
        drop_last: whether an epoch leaves out a smaller last batch.

    Raises:
        ValueError: if it cannot.
    """
    step = min(batch_size or size, size)
    if step != 1 and (drop_last or size % step != 1):
        return
    try:
        model(model.params(), take(X, slice(0, 1)), 0)
    except (ValueError, RuntimeError) as error:
        where = "Each batch has" if step == 1 else f"The last of {size} examples in batches of {step} is"
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"{where} 1 example, and {type(model.module).__name__} cannot train on one: {reason}. Choose a batch_size "
            "that leaves another rest, set drop_last=True, or call eval() on the batch normalisation."
        ) from error


def require_gradient(module: nn.Module, returned: Tensor) -> None:
    """Require that what a module returned in grad mode can be differentiated.

    Raises:
        ValueError: if it cannot.

    Also raised, by what it calls: ValueError if it was computed in float16.
    """
    coarsest(returned, f"The output of {type(module).__name__}")
    if not returned.requires_grad:
        raise ValueError(
            f"{type(module).__name__} must return a tensor that depends on its trained parameters, but what it "
            f"returned, of shape {tuple(returned.shape)} and {returned.dtype}, has no gradient. Leave out detach(), "
            "no_grad() and argmax in its forward."
        )


@contextmanager
def kept_random_states() -> Iterator[None]:
    """A context whose draws by Python's `random` and by numpy are undone; draws by torch are seeded in every call."""
    python, old = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(old)


def _state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _same(found: Any, wanted: Any) -> bool:
    """Whether all tensors have the same values, and none was written to."""
    pairs = zip(tree_leaves(found), tree_leaves(wanted), strict=True)
    return all(version_of(x) == 0 and torch.equal(x, y) for x, y in pairs if isinstance(x, Tensor))


def _require_tensor(module: nn.Module, output: Any) -> Tensor:
    """The output of a call.

    Raises:
        ValueError: if it is not a tensor.
    """
    if not isinstance(output, Tensor):
        raise ValueError(
            f"{type(module).__name__} must return a tensor that is a function of its parameters and inputs, and of "
            f"torch's random numbers in training, but it returned a {type(output).__name__}."
        )
    return output


def _require_repeated(module: nn.Module, found: Tensor, again: Tensor) -> None:
    """Require that two calls give the same.

    Raises:
        ValueError: if they do not.
    """
    if not is_repeated(found, again) and found.isfinite().all():
        raise ValueError(
            f"{type(module).__name__} must return a tensor that is a function of its parameters and inputs, and of "
            "torch's random numbers in training, but two calls differ. Leave out random numbers of other libraries, "
            "and what a call leaves for the next one."
        )


def _require_unchanged(model: FunctionOfParameters, w: Tensors, before: Tensors, versions: dict[str, int]) -> None:
    """Require that a call left the parameters and buffers as they were.

    Raises:
        ValueError: if it did not.
    """
    own = model.params()
    for name, p in model.module.named_parameters():
        if version_of(p) != versions[name] or name in own and not torch.equal(w[name], own[name]):
            raise ValueError(
                f"A call of the model changes the parameter {name!r} of its {_owner(model, name)}, but {_REMEDY}; "
                "leave that to the solver, or compute a changed copy in forward (torch.nn.utils.parametrize)."
            )
    for name, buffer in model.module.named_buffers():
        if name not in before or not torch.equal(buffer, before[name]):
            raise ValueError(
                f"A call of the model changes the buffer {name!r} of its {_owner(model, name)}, but a training step "
                f"must be a pure function; call eval() on that module{_path(name)}, or let it keep no statistics."
            )


def _path(name: str) -> str:
    owner = name.rpartition(".")[0]
    return f", model.get_submodule({owner!r})" if owner else ""


def _owner(model: FunctionOfParameters, name: str) -> str:
    return type(model.module.get_submodule(name.rpartition(".")[0])).__name__


def _python_state(module: nn.Module) -> dict[tuple[nn.Module, str], Any]:
    """The numbers, strings, tensors and sizes of containers in the attributes of a module and all modules in it."""
    found = {}
    for part in parts_of(module):
        for name, value in own_state(part).items():
            values, structure = tree_flatten(value)
            found[part, name] = structure, [_kept(x) for x in values]
    return found


def _kept(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, Tensor) else deepcopy(x) if isinstance(x, _VALUES) else None


def _require_stateless(module: nn.Module, before: dict[Any, Any], after: dict[Any, Any]) -> None:
    """Require that a second call, alike in everything, left the attributes as the first one did.

    Raises:
        ValueError: if it did not.
    """
    for (part, name), (structure, values) in after.items():
        old, kept = before.get((part, name), (None, []))
        if structure != old or not all(_alike(x, y) for x, y in zip(values, kept, strict=True)):
            raise ValueError(
                f"{layer(module, part)} keeps state in Python: each call changes its attribute {name!r}, but "
                f"{_REMEDY}. Leave the attribute out of forward, for example what counts calls or collects values."
            )


def _alike(x: Any, y: Any) -> bool:
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return x.shape == y.shape and x.dtype == y.dtype and bool(torch.allclose(x, y, 0, 0, equal_nan=True))
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        return x.tobytes() == y.tobytes()
    return type(x) is type(y) and bool(x == y or x != x)
