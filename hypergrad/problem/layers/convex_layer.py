"""A layer that solves a convex programme and differentiates its solution, as an inner problem."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.errors import HypergradError
from hypergrad.problem.base import InnerProblem


class ConvexLayer(InnerProblem):
    """A convex programme; its solution w*(λ) is the output of a layer of cvxpylayers at parameters θ(λ).

    The layer computes the solution and its derivative, so that the inner problem is the fixed point

        φ(w, λ) = w − layer(θ(λ)) = 0    with    ∂φ/∂w = I    and    ∂φ/∂λ = −(∂layer/∂θ) (∂θ/∂λ).

    `Implicit(solver=FixedPoint(rate=1.0), error_bar=False)` solves it in one step, and its adjoint system v = ∂f/∂w
    with one product. The rest, ∂f/∂λ + (∂θ/∂λ)ᵀ (∂layer/∂θ)ᵀ v, is the backward pass of the layer, which is as exact as
    its solver. The layer can also be any other function of tensors that torch can differentiate.

    A subclass defines `hyperparameters`, `layer_parameters`, and `outer_loss`, which reads the solution from `params`.

    Args:
        layer: from the tensors θ to the variables, one tensor or several, such as a `cvxpylayers.torch.CvxpyLayer`: see
            `cvxpy_layer`.
        variables: the names of the variables.
        solver_args: an argument for the layer, such as {"eps": 1e-10}; None for no argument.

    Raises:
        TypeError: if the layer cannot be called.

    Source: Agrawal, Amos, Barratt, Boyd, Diamond & Kolter, "Differentiable convex optimization layers", NeurIPS (2019).
    """

    def __init__(
        self,
        layer: Callable[..., Any],
        variables: Sequence[str] = ("x",),
        *,
        solver_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not callable(layer):
            raise TypeError(
                f"ConvexLayer.layer must map tensors to a solution, as a CvxpyLayer does, but it is {layer!r}."
            )
        self.layer, self.variables = layer, tuple(variables)
        self._settings = {} if solver_args is None else {"solver_args": solver_args}
        self._shapes: dict[str, torch.Size] | None = None
        self._last: tuple[tuple[Tensor, ...], Tensors] | None = None

    @abstractmethod
    def layer_parameters(self, hparams: Tensors) -> Sequence[Tensor]:
        """The parameters θ(λ) of the layer, in its order and of its shapes, differentiable in λ."""

    def init_params(self) -> Tensors:
        like = next(self.buffers(recurse=False), torch.empty(0))
        if self._shapes is None:  # only the layer knows the shapes
            hparams = {name: h.value(like.dtype, like.device) for name, h in self.hyperparameters().items()}
            with torch.no_grad():
                self._shapes = {name: x.shape for name, x in self.solution(hparams).items()}
        return {name: like.new_zeros(shape) for name, shape in self._shapes.items()}

    def solution(self, hparams: Tensors) -> Tensors:
        """The solution w*(λ), differentiable once if grad mode is enabled."""
        theta = tuple(self.layer_parameters(hparams))
        if torch.is_grad_enabled():
            return self._solved(theta)
        # Training and its checks compute the same solution several times.
        if self._last is None or not _same(self._last[0], theta):
            self._last = tuple(x.detach().clone() for x in theta), self._solved(theta)
        return self._last[1]

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return torch.stack([x.square().sum() / 2 for x in self.optimality(params, hparams, batch).values()]).sum()

    def optimality(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensors:
        found = self.solution(hparams)
        return {name: w - found[name] for name, w in params.items()}

    def _solved(self, theta: tuple[Tensor, ...]) -> Tensors:
        """The layer's solution by name, in the dtype of θ.

        Raises:
            HypergradError: if the solver of cvxpylayers finds no solution.
            ValueError: if the number of names is wrong.
        """
        try:
            found = self.layer(*theta, **self._settings)
        except Exception as error:
            if not type(error).__module__.startswith("diffcp"):
                raise
            raise HypergradError(
                f"The layer found no solution: {error}. Constrain the hyperparameters so that the programme is "
                "feasible and bounded at all values, or change the tolerance or the iterations in solver_args."
            ) from error
        found = (found,) if isinstance(found, Tensor) else tuple(found)
        if len(found) != len(self.variables):
            raise ValueError(
                f"ConvexLayer.variables must name the {len(found)} tensors that the layer returns, but it is "
                f"{', '.join(self.variables) or 'empty'}."
            )
        return {name: x.to(theta[0].dtype) for name, x in zip(self.variables, found, strict=True)}


def cvxpy_layer(programme: Any, parameters: Sequence[Any], variables: Sequence[Any], **settings: Any) -> Any:
    """The `CvxpyLayer` of a cvxpy problem, in a `ConvexLayer` or on its own.

    Args:
        programme: a `cvxpy.Problem` in disciplined parametrised form.
        parameters: its `cvxpy.Parameter`s, in the order of θ.
        variables: the `cvxpy.Variable`s to return.
        settings: further arguments of `CvxpyLayer`.

    Raises:
        ModuleNotFoundError: if cvxpylayers is not installed.
    """
    try:
        from cvxpylayers.torch import CvxpyLayer  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}. Layers of convex programmes need cvxpylayers: pip install 'torch-hypergrad[convex]'. A "
            "ConvexLayer accepts any other differentiable function too."
        ) from None
    return CvxpyLayer(programme, list(parameters), list(variables), **settings)


def _same(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all((x.dtype, x.device) == (y.dtype, y.device) and torch.equal(x, y) for x, y in zip(a, b, strict=True))
