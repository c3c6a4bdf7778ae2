"""Whether a model can be differentiated twice, and which layer of it cannot."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from hypergrad.compile.tracing import untraced
from hypergrad.core.autodiff import Tensors, detach, leaves, nodes_before, outside_autocast
from hypergrad.core.formats import coarsest
from hypergrad.core.order import differentiated
from hypergrad.core.torch_internals.trees import tree_map_only
from hypergrad.model.copying import copied
from hypergrad.model.criterion import Criterion
from hypergrad.model.lost_gradient import Evaluated, Recording, refusal
from hypergrad.model.missing_derivative import has_dead_end, layer_without, missing
from hypergrad.model.padding import without_padding
from hypergrad.model.probe import away, require_functional, write
from hypergrad.model.pure_module import PureModule
from hypergrad.model.requirements import layer
from hypergrad.model.wrong_derivative import direction_like, errors, layer_with_wrong, product

_REMEDY = (
    "An implicit estimator with product=differences (hg.CentredDifferences()) works without second derivatives; for "
    "every other estimator, use another layer, or write this one in another way."
)


def objection(model: PureModule, criterion: Criterion, X: Any, y: Tensor) -> str:
    """What in ℓ(z(w, X), y) has no second derivative, or a wrong one, and what to do about it; "" if nothing.

    torch raises if an operation has no second derivative, with two exceptions. `torch.autograd.grad` may leave out the
    terms of a function marked `once_differentiable`, so the graph is searched for these. And torch cannot see that a
    second derivative is wrong, for example of a backward that computes in numpy. So one product with the Hessian, away
    from the initial parameters, is compared with differences of the gradient, for which parameters are written into a
    copy of the module.

    Args:
        model: z; it is differentiated in the first training step.
        criterion: ℓ.
        X: a few inputs.
        y: their targets.
    """
    w = leaves(away(model.params()))
    v = without_padding(model, direction_like(w))
    with torch.enable_grad():
        outputs = model(w, X, 0)
        loss = criterion.value(outputs, y)
        if not (loss.requires_grad and loss.isfinite()):
            return ""
        try:
            first = torch.autograd.grad(
                loss, list(w.values()), create_graph=True, allow_unused=True, materialize_grads=True
            )
            if has_dead_end([g for g in first if g.requires_grad]):
                return _without(model, criterion, w, X, y)
            found = product(list(first), w, v)
        except RuntimeError:
            return _without(model, criterion, w, X, y)
        functions = {node.name() for node in nodes_before([outputs, loss]) if isinstance(node, BackwardCFunction)}
        coarse = coarsest(loss, "The loss") > torch.finfo(torch.float32).eps
    # Differences of what the model itself computes in bfloat16 are rounding.
    if coarse or not all(g.isfinite().all() for g in first):
        return ""
    eager, wrong = _compared(model, criterion, X, y, found, w, v)
    names = eager.lost()
    if names:
        return refusal(layer(model.module, model.module.get_submodule(names[0].rpartition(".")[0])), names)
    if not wrong or eager.crosses_a_kink(wrong):
        return ""
    return _wrong(model, criterion, w, X, y, max(wrong.values()), functions)


def _compared(
    model: PureModule, criterion: Criterion, X: Any, y: Tensor, found: Tensors, w: Tensors, v: Tensors
) -> tuple[Recording, dict[str, float]]:
    """The errors of a product by differences, in float64 if model and loss can be computed in it, and what was seen."""
    try:
        eager = _eager(model, criterion, in_float64(X), in_float64(y), torch.float64)
        return eager, errors(found, eager.gradient, in_float64(w), in_float64(v))
    except RuntimeError:  # dtypes that the module or loss names do not fit
        eager = _eager(model, criterion, X, y, _kind_of(model)[0])
        return eager, errors(found, eager.gradient, detach(w), v)


def in_float64(values: Any) -> Any:
    """The same tensors, in float64 if they are real numbers."""
    return tree_map_only(Tensor, lambda x: x.detach().double() if x.is_floating_point() else x, values)


def _eager(model: PureModule, criterion: Criterion, X: Any, y: Tensor, dtype: torch.dtype) -> Recording:
    """The loss of a copy of the model into which w is written."""
    witness, criterion = copied(model).to(dtype), deepcopy(criterion).to(dtype)

    def evaluate(w: Tensors) -> Evaluated:
        write(witness, w)
        own = [witness.module.get_parameter(name) for name in w]
        with torch.enable_grad():
            loss = criterion.value(witness({}, X, 0), y)
            found = torch.autograd.grad(loss, own, allow_unused=True, materialize_grads=True)
        return Evaluated(w, loss.item(), dict(zip(w, found, strict=True)))

    return Recording(evaluate)


def _without(model: PureModule, criterion: Criterion, w: Tensors, X: Any, y: Tensor) -> str:
    outputs = model(w, X, 0)
    reason = missing(outputs, list(w.values()))
    if reason:
        return f"{layer_without(model, w, X)} cannot be differentiated twice: {reason} {_REMEDY}"
    z = outputs.detach().requires_grad_()
    reason = missing(criterion.value(z, y), [z]) or "a function in it has no second derivative."
    return f"The loss cannot be differentiated twice: {reason} {_REMEDY}"


def _wrong(
    model: PureModule, criterion: Criterion, w: Tensors, X: Any, y: Tensor, off: float, functions: set[str]
) -> str:
    model, w, X, y = copied(model).double(), in_float64(w), in_float64(X), in_float64(y)
    subject = "The loss" if _loss_is_wrong(model, criterion, w, X, y) else layer_with_wrong(model, w, X)
    reason = (
        f"The backward of {', '.join(sorted(functions))} may compute outside torch; mark it once_differentiable, or "
        "write it with torch's operations."
        if functions
        else "One of torch's operations in it has a wrong second derivative (see torch.autograd.gradgradcheck); write "
        "it with other operations."
    )
    return (
        f"{subject} cannot be differentiated twice: its second derivatives are off by {off:.0%} from differences of "
        f"first ones. {reason} {_REMEDY}"
    )


def _loss_is_wrong(model: PureModule, criterion: Criterion, w: Tensors, X: Any, y: Tensor) -> bool:
    with torch.no_grad():
        z = {"outputs": model(w, X, 0)}

    def gradient(at: Tensors, *, create_graph: bool = False) -> list[Tensor]:
        with torch.enable_grad():
            loss = criterion.value(at["outputs"], y)
            return list(torch.autograd.grad(loss, [at["outputs"]], create_graph=create_graph))

    v, point = direction_like(z), leaves(z)
    found = product(gradient(point, create_graph=True), point, v)
    return bool(errors(found, lambda at: {"outputs": gradient(leaves(at))[0]}, z, v))


class TwiceDifferentiable:
    """Requires a second derivative of ℓ(z(w, X), y); tried once for each dtype and device, whose kernels may differ.

    A model that is not probed is not tried.

    Args:
        model: z.
        criterion: ℓ.
    """

    def __init__(self, model: PureModule, criterion: Criterion) -> None:
        self._model, self._criterion = model, criterion
        self._constructed = _kind_of(model)
        self._objections: dict[Any, str] = {}

    def require(self, X: Any, y: Tensor) -> None:
        """Require it on a few examples.

        Raises:
            ValueError: if there is no second derivative, or a wrong one.
        """
        key = _kind_of(self._model)
        if not self._model.probes or self._objections.get(key) == "":
            return
        if key not in self._objections:
            # The first step may be one that is traced, or under autocast, where a product is far from differences.
            with untraced(), differentiated(once=False), outside_autocast(y):
                if key != self._constructed:
                    require_functional(self._model, copied(self._model), X)
                self._objections[key] = objection(self._model, self._criterion, X, y)
        if self._objections[key]:
            raise ValueError(self._objections[key])


def _kind_of(model: PureModule) -> tuple[torch.dtype, torch.device]:
    like = next(model.parameters())
    return like.dtype, like.device
