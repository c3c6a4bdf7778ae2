"""The promise of an estimator: a hypergradient, and the numbers that say how far to trust it.

`Implicit`, `Unrolled` and `Forward` are the strategies of this folder, one file each; the other files are the parts
that they share. An estimator composes a solver with a tape, or with a linear solver and a product. It may import these
and the layers below them. It does not know the outer loop, callbacks or files.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self

from torch import Tensor
from typing_extensions import TypeVar

from hypergrad.core.autodiff import Tensors
from hypergrad.core.display import assigned, on_screen
from hypergrad.core.errors import NonFiniteError, UnusedHyperparameterError
from hypergrad.core.torch_internals.trees import keystr, tree_flatten_with_path
from hypergrad.estimator.report import AdjointReport, ErrorBar, SamplingReport, UnrollingReport, flat
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.returned import require_scalar
from hypergrad.training.report import TrainingReport
from hypergrad.training.training import Training

_REPLACED = {
    "stats": "`stats` is made from the reports. Pass training=TrainingReport(…) and others, or no report",
    "adjoint": "it is called carry, and may be any nesting of tensors and plain values. Pass carry=…",
}

_TRUST = ("inner_status", "adjoint_status", "error_estimate", "truncation_bias")
"""The numbers of the reports that a hypergradient shows of itself."""

H = TypeVar("H", default=Tensors)
P = TypeVar("P", default=Tensors)


@dataclass(frozen=True, repr=False)
class Hypergradient(Generic[H, P]):
    """A hypergradient dF/dλ with reports on its accuracy and cost; an estimator of your own may omit every report.

    Attributes:
        grad: dF/dλ in natural units, shaped as the hyperparameters: named tensors, or the structure that
            `hypergrad.hypergradient` was given.
        params: the trained parameters, detached.
        outer_loss: f at those parameters.
        training: how the inner problem was trained.
        adjoint_system: how well the adjoint system was solved, for implicit estimators.
        unrolling: the cost and bias of differentiating through training, for `Unrolled` and `Forward`.
        error_bar: how wrong `grad` is, for implicit estimators.
        sampling: how far `grad` would move with other batches, for `hypergrad.hypergradient` with `batches`.
        carry: what the next estimate starts from besides the parameters: None, a tensor, or dicts, lists and tuples of
            tensors and plain values. Only the estimator reads it; others keep it, save it and return it.
        start: dF/ds₀, the gradient with respect to the initial state, for estimators that differentiate the whole run
            in reverse. `start["params"]` is dF/dw₀, through every part of s₀ that depends on w₀. It may be
            computed when it is first read, as it costs a Hessian product.
    """

    grad: H
    params: P
    outer_loss: float
    training: TrainingReport | None = field(default=None, kw_only=True)
    adjoint_system: AdjointReport | None = field(default=None, kw_only=True)
    unrolling: UnrollingReport | None = field(default=None, kw_only=True)
    error_bar: ErrorBar | None = field(default=None, kw_only=True)
    sampling: SamplingReport | None = field(default=None, kw_only=True)
    carry: Any = field(default=None, kw_only=True)
    start: Mapping[str, Tensors] | None = field(default=None, kw_only=True)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse arguments of earlier versions, and name what to pass instead.

        Raises:
            TypeError: if such an argument is given.
        """
        given = kwargs.keys() | ({"stats"} if len(args) > 3 else set())
        for name in _REPLACED.keys() & given:
            raise TypeError(f"{cls.__name__} has no argument {name}: {_REPLACED[name]}.")
        return super().__new__(cls)

    def __repr__(self) -> str:
        """The dev loss, the gradient and how far to trust it, and not the parameters."""
        leaves, _ = tree_flatten_with_path(self.grad)
        grad = assigned({f"grad{keystr(path)}": leaf for path, leaf in leaves})
        trust = [f"{key} = {self.stats[key]}" for key in _TRUST if key in self.stats]
        return on_screen(type(self).__name__, [f"outer_loss = {self.outer_loss:.6g}", *trust, *grad])

    @property
    def stats(self) -> Mapping[str, float | int | str]:
        """The numbers of all reports by their names in logs; what is None is left out.

        training: `inner_loss`, `inner_grad_norm`, `inner_steps`, `inner_status`, `training_remark`. adjoint_system:
        `num_matvecs`, `adjoint_residual`, `adjoint_status`, `adjoint_remark`, `adjoint_condition`, `support_size`.
        unrolling: `num_matvecs`, `truncation_bias`, `adjoint_growth`. error_bar: `error_estimate`, `error_status`,
        `error_matvecs`, `error_remark`. sampling: `standard_error`, `num_batches`. The reports document each field.
        """
        return flat(self.training, self.adjoint_system, self.unrolling, self.error_bar, self.sampling)

    @property
    def num_matvecs(self) -> int:
        """Hessian products for `grad`, without those of training and of the error bar."""
        return sum(part.num_matvecs for part in (self.adjoint_system, self.unrolling) if part is not None)


class HypergradEstimator(ABC):
    """How the hypergradient is formed: dF/dλ = ∂f/∂λ + (∂w*/∂λ)ᵀ ∂f/∂w, direct plus indirect term.

    An estimator of your own has one method, and may omit what it does not report or carry:

        class Mine(hg.HypergradEstimator):
            def estimate(self, problem, hparams, params, *, outer_step=0, inner_step=0, carry=None):
                ...
                return hg.Hypergradient(grad, trained, outer_loss)
    """

    inner_steps: int = 0
    """Most inner steps of one estimate. With warm starts, outer step k begins at inner batch k · inner_steps."""

    sums_rows: ClassVar[bool] = False
    """Where rows of λ are spread over processes: whether `grad` has those of this process, and not its part of a sum
    that the outer loop forms."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse an `estimate` written for earlier versions.

        Raises:
            TypeError: if it has the keyword `adjoint`.
        """
        super().__init_subclass__(**kwargs)
        if "adjoint" in inspect.signature(cls.estimate).parameters:
            raise TypeError(
                f"{cls.__name__}.estimate has the keyword `adjoint`, which is called `carry`: rename it. It is the "
                "`carry` that the previous estimate returned, and None at first."
            )

    @property
    def training(self) -> Training | None:
        """The training at λ with which an estimate begins; None, the default, if the estimator does not declare it."""
        return None

    def looseness(self, outer_step: int) -> float:
        """The factor on its tolerances in an outer step; 1, the default, if they are the same in all steps."""
        return 1.0

    @abstractmethod
    def estimate(
        self,
        problem: InnerProblem,
        hparams: Tensors,
        params: Tensors,
        *,
        outer_step: int = 0,
        inner_step: int = 0,
        carry: Any = None,
    ) -> Hypergradient:
        """Train at `hparams` from `params` and estimate the hypergradient there.

        Args:
            problem: what is tuned.
            hparams: λ in natural units; not changed, no `.grad` is written.
            params: where training starts; not changed.
            outer_step: index of the outer batch, ≥ 0.
            inner_step: index of the first inner batch, ≥ 0.
            carry: `Hypergradient.carry` of the previous estimate, to start from; not changed.

        Returns:
            The hypergradient and its reports; "not converged" is a status in them.

        Raises:
            NonFiniteError: if a loss, gradient or product is NaN or infinite.
            DivergenceError: if training or a series of products blows up.
            IndefiniteError: if a linear solver needs a positive definite Hessian, but it is not.
            UnusedHyperparameterError: if the estimate could not depend on a hyperparameter.
            ValueError: if a solver's coefficient names no hyperparameter, or one of the wrong shape, or if the solver
                cannot train the problem.
        """

    def unrecorded(
        self,
        problem: InnerProblem,
        hparams: Tensors,
        params: Tensors,
        *,
        outer_step: int = 0,
        inner_step: int = 0,
        carry: Any = None,
    ) -> Hypergradient:
        """`estimate` for an outer step that is not recorded: the same `grad`, `params` and `carry`, to the bit.

        By default it is `estimate`. Override it to leave out what only a record needs: error bars, numbers on the host
        and the checks that values are finite. `outer_loss` and numbers of the reports may then be NaN; their counts
        of steps and products may not.
        """
        return self.estimate(problem, hparams, params, outer_step=outer_step, inner_step=inner_step, carry=carry)

    def map_rows(self, carry: Any, function: Callable[[Any], Any]) -> Any:
        """A carry with a function of each part that is shaped as λ: a flat vector, or named tensors.

        By default there is none. What the function makes of all parts is mapped back by another function.
        """
        return carry

    def explain_divergence(
        self, problem: InnerProblem, hparams: Tensors, params: Tensors, *, tried: Tensors, carry: Any
    ) -> str:
        """What to change after a DivergenceError, as a sentence for its message; "", the default, if nothing is known.

        Args:
            problem: what is tuned.
            hparams: λ of the last good record.
            params: w of that record.
            tried: λ where the error occurred.
            carry: that of the last estimate before the error.
        """
        return ""


def require_finite_loss(outer_loss: Tensor, problem: InnerProblem) -> float:
    """The outer loss as a number.

    Raises:
        NonFiniteError: if it is NaN or infinite.
    """
    value = require_scalar(outer_loss, f"{type(problem).__name__}.outer_loss").item()
    if not abs(value) < float("inf"):
        raise NonFiniteError(
            f"The outer loss is {value} at the trained parameters; look for NaN in the dev data, or an operation that "
            "is not defined there."
        )
    return value


def add_terms(direct: Mapping[str, Tensor | None], indirect: Mapping[str, Tensor | None], hint: str) -> Tensors:
    """dF/dλ from its two terms; None means that a term does not depend on the hyperparameter.

    Raises:
        UnusedHyperparameterError: if both terms of a hyperparameter are None.
        NonFiniteError: if the sum is not finite.
    """
    grad: Tensors = {}
    for name, direct_term in direct.items():
        terms = [term for term in (direct_term, indirect[name]) if term is not None]
        if not terms:
            raise UnusedHyperparameterError(f"Nothing depends on the hyperparameter {name!r}: {hint}")
        grad[name] = sum(terms[1:], start=terms[0]).detach()
        if not grad[name].isfinite().all():
            raise NonFiniteError(
                f"The hypergradient with respect to {name!r} holds NaN or infinite values although the losses are "
                "finite; look for an operation whose derivative is infinite at these values."
            )
    return grad
