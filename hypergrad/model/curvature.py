"""Kronecker factors of the curvature of a module's loss, by curvlinops."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hypergrad.core.autodiff import Tensors, leaves
from hypergrad.core.cost import spend
from hypergrad.core.errors import NonFiniteError
from hypergrad.core.kronecker import KroneckerSettings, Layer, eigh
from hypergrad.core.operator import CannotApproximateError
from hypergrad.core.torch_internals.modules import parameters_of
from hypergrad.model.criterion import Criterion
from hypergrad.model.known_loss import torch_class
from hypergrad.model.loss_setting import setting
from hypergrad.model.pure_module import PureModule, device_of

_LOSSES: dict[type[nn.Module], tuple[str, Callable[..., Tensor]]] = {
    nn.CrossEntropyLoss: ("class", functional.cross_entropy),
    nn.MSELoss: ("entry", functional.mse_loss),
    nn.BCEWithLogitsLoss: ("entry", functional.binary_cross_entropy_with_logits),
}
"""Losses whose curvature in the outputs curvlinops knows."""


class Examples(NamedTuple):
    """Some examples of a training step.

    Attributes:
        X: inputs.
        y: targets, shape (n, …).
        weights: c_i ≥ 0 with the loss 1/n Σ_i c_i ℓ_i, shape (n,).
        step: of the random draws.
    """

    X: Any
    y: Tensor
    weights: Tensor
    step: int


def kronecker_layers(
    model: PureModule, criterion: Criterion, values: Tensors, data: Sequence[Examples], settings: KroneckerSettings
) -> list[Layer]:
    """The factors of every linear and convolutional layer that is called once and shares no parameter.

    Args:
        model: the module.
        criterion: its loss.
        values: its parameters by name, in the order of the flat vector; then buffers.
        data: examples, of which the mean curvature is taken.
        settings: how factors are made.

    Raises:
        CannotApproximateError: if no layer has factors.

    Also raised, by what it calls: CannotApproximateError if the loss is not known, or EK-FAC does not know outputs of
    this shape; NonFiniteError if the factors are NaN or infinite; ImportError if curvlinops is not installed.
    """
    kind = require_known(criterion)
    trained, tensors = list(model.params()), leaves({name: x for name, x in values.items() if x.is_floating_point()})
    tensors = {**values, **tensors}
    with torch.enable_grad(), model.calling(tensors, device_of(data[0].X), data[0].step):
        called = _Called(model, kind, tensors, data)
        names = _served(model.module, {id(tensors[name]): name for name in trained}, called)
        if not names:
            raise CannotApproximateError(
                "it has no linear or convolutional layer that is called once in a forward pass and shares no parameter"
            )
        params = [tensors[name] for pair in names.values() for name in pair if name is not None]
        state = _factorised(called, params, data, settings)
    starts = dict(zip(trained, _starts([tensors[name] for name in trained]), strict=True))
    return [
        Layer(starts[weight], None if bias is None else starts[bias], *state[f"module.{name}".rstrip(".")])
        for name, (weight, bias) in names.items()
    ]


class _Called(nn.Module):
    """The outputs of a pure module, as curvlinops asks for them.

    The derivative of output i is that of the model times √c_i, by which the curvature of an example counts c_i.
    """

    def __init__(self, model: PureModule, kind: type[nn.Module], tensors: Tensors, data: Sequence[Examples]) -> None:
        super().__init__()
        self.module = model.module
        self.kind, self._model, self._tensors, self._data = kind, (model,), tensors, data

    def forward(self, position: list[int]) -> Tensor:
        """The outputs of one of the examples, shape (n, k, …)."""
        X, _, weights, step = self._data[position[0]]
        z = self._model[0](self._tensors, X, step)
        z = z.unsqueeze(1) if z.ndim == 1 else z
        if self.kind is not nn.CrossEntropyLoss and z.ndim > 2:
            z = z.flatten(1)
        root = weights.to(z).clamp(min=0).sqrt().view(-1, *[1] * (z.ndim - 1))
        return z.detach() + root * (z - z.detach())

    def targets(self, position: int) -> Tensor:
        """The targets of these examples as classes, or as one number for each output."""
        y = self._data[position].y
        if self.kind is nn.CrossEntropyLoss:
            return (y.argmax(1) if y.is_floating_point() else y).long().clamp(min=0)
        y = y.flatten(1) if y.ndim > 1 else y.unsqueeze(1)
        return y.round().clamp(0, 1) if self.kind is nn.BCEWithLogitsLoss else y  # its curvature depends on no target


def require_known(criterion: Criterion) -> type[nn.Module]:
    """The class of torch.nn that the loss is.

    Raises:
        CannotApproximateError: if curvlinops does not know it.
    """
    kind = torch_class(criterion.loss, _LOSSES)
    name = getattr(criterion.loss, "__name__", type(criterion.loss).__name__)
    if kind is None:
        known = ", ".join(f"nn.{kind.__name__}" for kind in _LOSSES)
        raise CannotApproximateError(f"its loss, {name}, is none of {known} or the functions of the same names")
    if kind is nn.BCEWithLogitsLoss and any(
        setting(criterion.loss, key) is not None for key in ("weight", "pos_weight")
    ):
        raise CannotApproximateError(f"its loss, {name}, has a weight or pos_weight")
    return kind


def _served(module: nn.Module, names: dict[int, str], called: _Called) -> dict[str, tuple[str, str | None]]:
    """The names of weight and bias of each layer that has factors, by the name of the layer.

    Args:
        module: which keeps the trained tensors now.
        names: those of the trained tensors by their id.
        called: what calls the module.
    """
    keepers: dict[int, int] = {}
    for part in module.modules():
        for p in parameters_of(part).values():
            keepers[id(p)] = keepers.get(id(p), 0) + 1
    found: dict[str, tuple[str, str | None]] = {}
    counts: dict[str, int] = {}
    handles = []
    for name, part in module.named_modules():
        is_plain = type(part) is nn.Conv2d and part.groups == 1 and part.padding_mode == "zeros"
        if not (type(part) is nn.Linear or is_plain):
            continue
        weight, bias = parameters_of(part)["weight"], parameters_of(part)["bias"]
        if id(weight) not in names or any(keepers[id(p)] > 1 for p in (weight, bias) if p is not None):
            continue
        found[name] = names[id(weight)], None if bias is None else names.get(id(bias))
        counts[name] = 0

        def count(*_: Any, name: str = name) -> None:
            counts[name] += 1

        handles.append(part.register_forward_hook(count))
    try:
        with torch.no_grad():
            called([0])
    finally:
        for handle in handles:
            handle.remove()
    return {name: pair for name, pair in found.items() if counts[name] == 1}


def _factorised(
    called: _Called, params: list[Tensor], data: Sequence[Examples], settings: KroneckerSettings
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Eigenvectors of both factors and the eigenvalues, by the name of the layer.

    Raises:
        CannotApproximateError: if EK-FAC does not know outputs of this shape.
        NonFiniteError: if a factor is NaN or infinite.
    """
    curvlinops = import_curvlinops()
    with torch.no_grad():
        z = called([0])
    shared = z[0, 0].numel()
    if settings.corrected and z.ndim > 2:
        raise CannotApproximateError(
            f"EK-FAC needs outputs of shape (n, k), but they have shape {tuple(z.shape)}; K-FAC takes these too"
        )
    kind = curvlinops.EKFACLinearOperator if settings.corrected else curvlinops.KFACLinearOperator
    operator = kind(
        called,
        called.kind(),
        params,
        [([k], called.targets(k)) for k in range(len(data))],
        check_deterministic=False,
        fisher_type=settings.fisher,
        kfac_approx=settings.approximation,
        separate_weight_and_bias=False,
        num_data=sum(len(some.y) for some in data),
        num_per_example_loss_terms=shared,
        batch_size_fn=lambda position: len(data[position[0]].y),
    )
    spend(gradients=len(data) * (z.shape[1] if settings.fisher == "type-2" else 1) * (2 if settings.corrected else 1))
    operator.compute_kronecker_factors()
    state = operator.state_dict()
    factors = {name: (state["input_covariances"][name], x) for name, x in state["gradient_covariances"].items()}
    for name, pair in factors.items():
        if not all(bool(x.isfinite().all()) for x in pair):
            raise NonFiniteError(
                f"The Kronecker factors of the layer {name[len('module.') :]!r} are NaN or infinite. "
                "Look for NaN in the train data, or for parameters that blew up."
            )
    if not settings.corrected:
        return {name: _decomposed(*pair) for name, pair in factors.items()}
    inputs, outputs = ({name: eigh(pair[k])[1] for name, pair in factors.items()} for k in (0, 1))
    # There is no other way to give it eigenvectors, and its own may be NaN.
    operator._input_covariances_eigenvectors, operator._gradient_covariances_eigenvectors = inputs, outputs
    operator.compute_eigenvalue_correction()
    values = operator.state_dict()["corrected_eigenvalues"]
    return {name: (inputs[name], outputs[name], _one(values[name])) for name in values}


def _decomposed(inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    (a, Q_i), (b, Q_o) = eigh(inputs), eigh(outputs)
    return Q_i, Q_o, torch.outer(b.clamp(min=0), a.clamp(min=0))


def _one(values: Any) -> Tensor:
    """The eigenvalues of a layer, which curvlinops keeps by parameter where there is only one."""
    return next(iter(values.values())) if isinstance(values, dict) else values


def _starts(tensors: Sequence[Tensor]) -> list[int]:
    """Where each tensor begins in a flat vector of all."""
    ends = torch.tensor([0, *(x.numel() for x in tensors)]).cumsum(0)
    return ends[:-1].tolist()


def import_curvlinops() -> Any:
    """The package curvlinops.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it calls functions of torch that are deprecated
            import curvlinops  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            "K-FAC and EK-FAC need the package curvlinops: pip install 'torch-hypergrad[curvature]'."
        ) from error
    return curvlinops
