"""Whether a module is the function of its parameters that it seems to be: compared with in-place changes of a copy."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors, leaves
from hypergrad.core.torch_internals.trees import tree_leaves
from hypergrad.model.calling import FunctionOfParameters
from hypergrad.model.requirements import layer
from hypergrad.model.trial import require_gradient

EXAMPLES = 8
"""Examples for trying out a model: at least two, for batch normalisation, and few, for speed."""
_NOISE = 0.1
"""Of the parameters at which a model is compared, relative to their root mean square."""


def require_functional(model: FunctionOfParameters, witness: FunctionOfParameters, X: Any) -> None:
    """Require that z(w, X) and a gradient of it are those of a copy of the module with w written into its parameters.

    w is away from the initial parameters, where a parameter that is read elsewhere has the right value by chance.

    Args:
        model: z.
        witness: a copy of `model`; its parameters change.
        X: a few inputs.

    Raises:
        ValueError: if they differ; it names the layer.
    """
    w = away(model.params())
    write(witness, w)
    with torch.no_grad():
        judged, wanted = model(w, X, None), witness({}, X, None)
    if not wanted.isfinite().all():
        return
    if not _near(judged, wanted, judged.dtype):
        raise ValueError(_other_outputs(model, witness, w, X, None))
    point = leaves(w)
    with torch.enable_grad():
        outputs, wanted = model(point, X, 0), witness({}, X, 0)
        if not _near(outputs, wanted, outputs.dtype):
            raise ValueError(_other_outputs(model, witness, w, X, 0))
        require_gradient(model.module, wanted)
        own = [witness.module.get_parameter(name) for name in w]
        found, expected = slopes(outputs, list(point.values())), slopes(wanted, own)
    _require_near_gradients(model.module, dict(zip(w, found, strict=True)), dict(zip(w, expected, strict=True)))


def away(params: Tensors) -> Tensors:
    """1.5 w₀ and a little noise, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    moved = {}
    for name, p in params.items():
        noise = torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device)
        size = p.square().mean().sqrt()
        moved[name] = 1.5 * p + _NOISE * torch.where(size > 0, size, torch.ones_like(size)) * noise
    return moved


@torch.no_grad()
def write(model: FunctionOfParameters, w: Tensors) -> None:
    """Change the parameters of a model in place, as an optimiser of torch does."""
    for name, p in w.items():
        model.module.get_parameter(name).copy_(p)


def slopes(outputs: Tensor, inputs: Sequence[Tensor], **settings: Any) -> list[Tensor]:
    """The gradient of ½ |z|² + c · z with a random c; a curved function, so that second derivatives see all of z."""
    c = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1), dtype=outputs.dtype).to(outputs.device)
    total = (outputs.square() / 2 + c * outputs).sum()
    return list(torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True, **settings))


def _near(x: Tensor, y: Tensor, dtype: torch.dtype, size: float | None = None) -> bool:
    """Whether two tensors are equal up to rounding, which is far below what a wrong operation does."""
    size = torch.linalg.vector_norm(y).item() if size is None else size
    return x.shape == y.shape and torch.linalg.vector_norm(x - y).item() <= torch.finfo(dtype).eps ** (2 / 3) * size


def _require_near_gradients(module: nn.Module, found: Tensors, expected: Tensors) -> None:
    """Require that two gradients are equal up to rounding.

    Raises:
        ValueError: if they are not.
    """
    size = torch.stack([torch.linalg.vector_norm(g) for g in expected.values()]).norm().item()
    wrong = [name for name, g in expected.items() if not _near(found[name], g, g.dtype, 10 * size)]
    if wrong and size < float("inf"):
        part = module.get_submodule(wrong[-1].rpartition(".")[0])
        raise ValueError(
            f"{layer(module, part)} has another gradient as a function of its parameters than with the same values "
            f"written into them, with respect to {', '.join(wrong[:3])}{' and others' * (len(wrong) > 3)}: it may "
            "compute something again in backward, from the parameters of the module. Compute it in forward only, or "
            "by torch.utils.checkpoint, or pass its parameters to the function that backward calls again."
        )


def _other_outputs(
    model: FunctionOfParameters, witness: FunctionOfParameters, w: Tensors, X: Any, step: int | None
) -> str:
    calls = zip(_layer_calls(model, w, X, step), _layer_calls(witness, {}, X, step), strict=False)
    part = model.module
    for (name, given, found), (_, same_given, wanted) in calls:
        if _all_near(given, same_given) and not _all_near(found, wanted):
            part = model.module.get_submodule(name)
            break
    return (
        f"{layer(model.module, part)} gives other outputs as a function of its parameters than with the same values "
        "written into them: it reads a parameter, or what was computed from one, elsewhere than where the module has "
        "registered it, or keeps results of an earlier call. Read registered parameters in forward, and compute there "
        "what depends on them."
    )


def _all_near(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return len(found) == len(wanted) and all(_near(x, y, x.dtype) for x, y in zip(found, wanted, strict=True))


@torch.no_grad()
def _layer_calls(
    model: FunctionOfParameters, w: Tensors, X: Any, step: int | None
) -> list[tuple[str, list[Tensor], list[Tensor]]]:
    """Name, inputs and outputs of each layer, in the order of their return: a layer before the one that contains it."""
    given: dict[str, list[Tensor]] = {}
    calls: list[tuple[str, list[Tensor], list[Tensor]]] = []

    def begins(name: str) -> Any:
        return lambda module, args, kwargs: given.update({name: _real_numbers((args, kwargs))})

    def returns(name: str) -> Any:
        return lambda module, args, output: calls.append((name, given[name], _real_numbers(output)))

    parts = list(model.module.named_modules())
    handles = [part.register_forward_pre_hook(begins(name), with_kwargs=True) for name, part in parts]
    handles += [part.register_forward_hook(returns(name)) for name, part in parts]
    try:
        model(w, X, step)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _real_numbers(values: Any) -> list[Tensor]:
    return [x.detach().clone() for x in tree_leaves(values) if isinstance(x, Tensor) and x.is_floating_point()]
