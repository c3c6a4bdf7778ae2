"""A problem whose losses are evaluated in a precision of their own."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.formats import TF32, allows_tf32, setting_of
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.torch_internals.trees import tree_map_only
from hypergrad.problem.base import InnerProblem, Parts
from hypergrad.problem.wrapper import Wrapper

PRECISIONS = ("float32", "tf32", "bf16-mixed", "bf16-true")
_TOLD: set[str] = set()
"""What was said once in this process."""


class InPrecision(Wrapper):
    """Another problem, whose losses and their gradients are evaluated in a given precision.

    Parameters, λ, adjoints, the vectors of linear solvers and the states of inner solvers keep the dtype of the
    parameters, and so do all results. What changes is the format inside the losses:

    - "float32" and "tf32": parameters, λ and data are cast to float32;
    - "bf16-mixed": they are cast to float32, and the losses run under `torch.autocast` to bfloat16;
    - "bf16-true": they are cast to bfloat16.

    Casts are a part of the losses, so that derivatives of any order go through them. If nothing is to be cast, the
    problem is not copied. The setting of torch for tf32 is made by `matrix_products`.

    Args:
        problem: what is tuned, with parameters in float32 or float64; it holds its data as buffers, or in its batches.
        precision: one of the above.

    Raises:
        ValueError: if there is no such precision, the parameters have another dtype or are sharded, or the losses are
            sums over several processes.

    Also raised, by what it calls: ValueError if the problem has an L1 penalty.
    """

    def __init__(self, problem: InnerProblem, precision: str) -> None:
        require_precision(precision)
        if not problem.has_second_derivatives:  # it has sharded parameters, of which there is no copy to cast
            raise ValueError(
                f"{type(problem).__name__} computes in a precision of its own: give precision='bf16-mixed' to it, and "
                "none to the trainer."
            )
        super().__init__(problem)
        if problem.is_spread:
            raise ValueError(
                f"InPrecision would sum over processes in the format of {precision!r}, but sums are in that of the "
                "parameters. Give the precision to hg.Trainer, or DataParallel(InPrecision(problem, precision)) to "
                "hg.k_fold."
            )
        self.precision = precision
        like = next(iter(problem.init_params().values()))
        require_parameters(like, type(problem).__name__)
        self._dtype, self._device = like.dtype, like.device.type
        self._inside = torch.bfloat16 if precision == "bf16-true" else torch.float32
        self._casts = self._inside != like.dtype
        # In a tuple, because the buffers of a problem identify a run, and these are copies.
        self._evaluated = (deepcopy(problem).to(self._inside) if self._casts else problem,)
        self.epsilon = _epsilon(precision, like.device)
        """ε of the format inside the losses."""

    @property
    def exact(self) -> InnerProblem:
        # tf32 is a setting of torch for the whole run, which no other evaluation can leave.
        return self if self.precision == "tf32" else self.problem

    def untied(self, hparams: Tensors) -> Tensors:
        return hparams

    def settings(self) -> dict[str, object]:
        return {**super().settings(), "problem": type(self.problem).__name__, "precision": self.precision}

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return self.problem.hyperparameters()

    def row_owners(self) -> Sequence[str]:
        return self.problem.row_owners()

    def around(self, problem: InnerProblem) -> "InPrecision":  # type: ignore[override]
        return InPrecision(problem, self.precision)

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self._call("inner_loss", params, hparams, batch)

    def inner_loss_and_gradient(self, params: Tensors, hparams: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
        return self._call("inner_loss_and_gradient", params, hparams, batch)

    def optimality(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensors:
        return self._call("optimality", params, hparams, batch)

    def outputs(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self._call("outputs", params, hparams, batch)

    def loss_of_outputs(self, outputs: Tensor, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self._call("loss_of_outputs", outputs, params, hparams, batch)

    def outer_parts(self, batch: Any) -> Parts | None:
        return self._evaluated[0].outer_parts(batch)  # which will read what it says it reads next

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self._call("outer_loss", params, hparams, batch)

    def metrics(self, params: Tensors, hparams: Tensors) -> Mapping[str, Tensor | float]:
        return self._call("metrics", params, hparams)

    def test_losses(self, params: Tensors, hparams: Tensors) -> Tensor | None:
        return self._call("test_losses", params, hparams)

    def solution(self, hparams: Tensors) -> Tensors:
        return self.problem.solution(hparams)

    def of_solver(self) -> list[str]:
        return self.problem.of_solver()

    def pictures(self) -> dict[str, tuple[int, ...]]:
        return self.problem.pictures()

    def pooled_targets(self) -> Tensor:
        return self.problem.pooled_targets()

    def on_examples(self, train: Tensor, dev: Tensor) -> "InPrecision":
        return InPrecision(self.problem.on_examples(train, dev), self.precision)

    def joined(self, hparams: Tensors) -> tuple[InnerProblem, Tensors]:
        both, wide = self.problem.joined(hparams)
        return InPrecision(both, self.precision), wide

    def _call(self, method: str, *arguments: Any) -> Any:
        """What a method of the problem returns in this precision, in the dtype of the parameters.

        Raises:
            ValueError: if the problem computes with tensors that were not cast.
            RuntimeError: whatever else the method raises.
        """
        (problem,) = self._evaluated
        if self._casts:
            arguments = _cast(arguments, self._inside)
        try:
            with self._autocast():
                found = getattr(problem, method)(*arguments)
        except RuntimeError as error:
            # torch 2.11 says "scalar type"
            if not (self._casts and any(word in str(error) for word in ("dtype", "scalar type"))):
                raise
            raise ValueError(
                f"{type(problem).__name__}.{method} must compute with its parameters, hyperparameters, batch and "
                f"buffers, which precision={self.precision!r} casts to {self._inside}, but it met another dtype: "
                f"{str(error).splitlines()[0]}. Hold all data in buffers (register_buffer), or use bf16-mixed with "
                "parameters in float32."
            ) from error
        return _cast(found, self._dtype)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision != "bf16-mixed":
            return nullcontext()
        # A cached cast that was made without a graph would cut the graph of a later evaluation.
        return torch.autocast(self._device, torch.bfloat16, cache_enabled=False)


def epsilon_of(problem: InnerProblem) -> float:
    """ε of the format inside the losses of a problem that has a precision, also in a wrapper; 0 if it is not known."""
    if hasattr(problem, "epsilon"):
        return problem.epsilon  # type: ignore[return-value]
    return epsilon_of(problem.problem) if isinstance(problem, Wrapper) else 0.0


def in_precision(problem: InnerProblem, precision: str | None) -> InnerProblem:
    """The problem in a precision; None is that of its parameters, and so are sums over several processes.

    Also raised, by what it calls: ValueError if `InPrecision` does not serve it.
    """
    if precision is None:
        return problem
    if problem.is_spread and isinstance(problem, Wrapper) and problem.has_second_derivatives:
        return problem.around(in_precision(problem.problem, precision))
    return InPrecision(problem, precision)


@contextmanager
def matrix_products(precision: str | None, device: torch.device) -> Iterator[None]:
    """A context in which products of matrices and convolutions in float32 are those of a precision, on an Nvidia GPU.

    "tf32" allows tf32, "float32" forbids it, and others leave torch's setting. Afterwards it is what it was. On other
    devices "tf32" is float32, of which there is a UserWarning, once in a process.

    Args:
        precision: as of `InPrecision`, or None.
        device: of the parameters.
    """
    if precision not in ("float32", "tf32"):
        yield
        return
    if device.type != "cuda" and precision == "tf32" and "tf32" not in _TOLD:
        _TOLD.add("tf32")
        warnings.warn(f"precision='tf32' is float32 on the device {device.type!r}.", UserWarning, stacklevel=3)
    products: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    each = [x for x in (products, getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None)) if x is not None]
    before, allowed = [setting_of(x) for x in each], (allows_tf32(products), allows_tf32(cudnn))
    # The older of torch's two ways to set it sets the newer one too, while reading the older is an error after the
    # newer one was used.
    products.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        products.allow_tf32, cudnn.allow_tf32 = allowed
        for x, value in zip(each, before, strict=True):
            if setting_of(x) != value:
                x.fp32_precision = value


def require_precision(precision: object) -> None:
    """Require the name of a precision.

    Raises:
        ValueError: if there is none of this name.
    """
    if precision in PRECISIONS:
        return
    half = any(word in str(precision) for word in ("16-mixed", "16-true", "float16", "fp16", "half"))
    remedy = (
        "float16 is not served, because gradients below 6e-8 are 0 in it, and scaling the loss does not help second "
        "derivatives; bfloat16 has the range of float32"
        if half and "b" not in str(precision)
        else "the dtype of the parameters is that of the model, and dtype=… on the command line"
    )
    raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, but it is {precision!r}; {remedy}.")


def require_parameters(like: Tensor, name: str) -> None:
    """Require parameters in float32 or float64.

    Args:
        like: a parameter tensor.
        name: of the problem.

    Raises:
        ValueError: if they have another dtype.
    """
    if like.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{name} must have parameters in torch.float32 or torch.float64, but they are in {like.dtype}, in which a "
            "small step changes nothing. Keep them in float32, and compute the losses in bfloat16 by "
            "precision='bf16-mixed' or 'bf16-true'."
        )


def _epsilon(precision: str, device: torch.device) -> float:
    """ε of the format inside the losses."""
    if precision.startswith("bf16"):
        return torch.finfo(torch.bfloat16).eps
    return TF32 if precision == "tf32" and device.type == "cuda" else torch.finfo(torch.float32).eps


def _cast(tree: Any, dtype: torch.dtype) -> Any:
    """All floating-point tensors in a dtype; other values are unchanged."""
    return tree_map_only(Tensor, lambda x: x.to(dtype) if x.is_floating_point() else x, tree)
