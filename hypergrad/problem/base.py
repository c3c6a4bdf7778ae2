"""The promise of a problem: what is trained, what is tuned, and the two losses."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors, value_and_gradient
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.kronecker import Kronecker
from hypergrad.problem.batch_place import UNKNOWN, WHOLE, BatchPlace
from hypergrad.problem.returned import require_dict, require_scalar
from hypergrad.problem.shareable import Shareable

_NO_OUTPUTS = (
    "{} does not define `{}`, which Gauss–Newton products need: write the inner loss as "
    "self.loss_of_outputs(self.outputs(params, hparams, batch), params, hparams, batch)."
)
_NO_POOL = (
    "{} does not define `{}`, which folds=… and retrain=true need: define it, or leave out the folds and the final "
    "training on train and dev."
)

Parts = Sequence[tuple[Any, float]]
"""The parts of a batch, each with its share, > 0."""


class InnerProblem(Shareable, nn.Module, ABC):
    """What is tuned: w*(λ) = argmin_w g(w, λ), judged by the validation (dev) loss f(w, λ).

    A problem holds the data (as buffers, so that `.to(device)` and `.double()` move it). It never holds w or λ, which
    are arguments, as named tensors. Every method is a pure function of its arguments: a batch, a dropout mask or any
    other random draw depends only on the step, because recomputation and resuming rely on it.
    """

    @abstractmethod
    def init_params(self) -> Tensors:
        """The parameters w₀ from which training starts; the same at every call."""

    @abstractmethod
    def hyperparameters(self) -> dict[str, Hyperparameter]:
        """The hyperparameters λ by name."""

    @abstractmethod
    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        """The training loss g(w, λ), shape ()."""

    @abstractmethod
    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        """The dev loss f(w, λ), shape ()."""

    def initial(self, params: Tensors, hparams: Tensors) -> Tensors:
        """The parameters from which training starts instead of `params`: the same ones by default.

        Override it to tune initial weights, such as their scale, or a hyperparameter that is w₀ itself. It must be
        differentiable in both arguments. Every training run applies it, so it requires `warm_start=False`.
        """
        return params

    def inner_batch(self, step: int) -> Any:
        """The batch of inner step `step` ≥ 0; None if the losses read all data of the problem."""
        return None

    def outer_batch(self, step: int) -> Any:
        """The batch of outer step `step` ≥ 0; None if the losses read all data of the problem."""
        return None

    def inner_place(self, step: int) -> BatchPlace:
        """The place of `inner_batch(step)` among the batches of an epoch, for single-loop methods.

        By default that of all data if `inner_batch` is not overridden, and else an unknown one: all batches then count
        the same, and methods with a table of batches refuse the problem. Override both or none.
        """
        return WHOLE if type(self).inner_batch is InnerProblem.inner_batch else UNKNOWN

    def outer_place(self, step: int) -> BatchPlace:
        """The place of `outer_batch(step)`, by the same rule."""
        return WHOLE if type(self).outer_batch is InnerProblem.outer_batch else UNKNOWN

    def inner_parts(self, batch: Any) -> "Parts | None":
        """The parts of an inner batch with g(w, λ; batch) = Σ_k share_k g(w, λ; part_k); None, the default, if none.

        Losses, gradients and products are then computed with the memory of one part, which `inner_loss` gets in the
        place of the batch. Penalties are in each part and count once, because the shares must have the sum 1.
        """
        return None

    def outer_parts(self, batch: Any) -> "Parts | None":
        """The parts of an outer batch, by the same rule for f: f(w, λ; batch) = Σ_k share_k f(w, λ; part_k)."""
        return None

    @property
    def samples_outer(self) -> bool:
        """Whether `outer_batch` draws some of dev; λ is then chosen by the loss on `whole_outer_batch`."""
        return False

    def whole_outer_batch(self) -> Any:
        """The outer batch of all dev examples; by default that of outer step 0."""
        return self.outer_batch(0)

    def at_outer_step(self, step: int) -> "InnerProblem":
        """The problem at outer step `step` ≥ 0 of the trainer: this one at every step, by default.

        Override it if each outer step trains something else, such as new tasks, or a mini-batch of images that each
        have their own parameters. The result depends only on the step, and has the same λ. w may have other shapes if
        training starts anew in each outer step (`warm_start=False`).
        """
        return self

    def inner_loss_and_gradient(self, params: Tensors, hparams: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
        """g(w, λ), shape (), and ∇_w g(w, λ), shaped as w; differentiable if grad mode is enabled.

        Also raised, by what it calls: TypeError if the inner loss is not a tensor; ValueError if it is not a scalar, or
        depends on no parameter.
        """
        name = f"{type(self).__name__}.inner_loss"
        return value_and_gradient(lambda w: require_scalar(self.inner_loss(w, hparams, batch), name), params, name)

    def optimality(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensors:
        """φ(w, λ), zero exactly at w*(λ) and with the shapes of w: by default ∇_w g.

        Override it for a root, a fixed point or a proximal condition; it must be differentiable in w and λ.
        """
        return self.inner_loss_and_gradient(params, hparams, batch)[1]

    @property
    def is_minimisation(self) -> bool:
        """Whether φ is ∇_w g, so that its Jacobian is the Hessian of g and symmetric."""
        return type(self).optimality is InnerProblem.optimality

    @property
    def has_second_derivatives(self) -> bool:
        """Whether the losses can be differentiated twice, as far as the problem knows."""
        return True

    @property
    def exact(self) -> "InnerProblem":
        """The problem with losses in the precision of its parameters, by which errors are judged; by default itself."""
        return self

    @property
    def tunes_initial(self) -> bool:
        """Whether the start of training may depend on λ."""
        return type(self).initial is not InnerProblem.initial

    def outputs(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        """The outputs z(w) of the model on a batch, shape (n, …), for problems whose inner loss is ℓ(z(w), w, λ)."""
        raise NotImplementedError(_NO_OUTPUTS.format(type(self).__name__, "outputs"))

    def loss_of_outputs(self, outputs: Tensor, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        """ℓ(z, w, λ), convex in z and w; it is the inner loss at z = z(w), shape ()."""
        raise NotImplementedError(_NO_OUTPUTS.format(type(self).__name__, "loss_of_outputs"))

    def kronecker(self, params: Tensors, hparams: Tensors, batch: Any) -> Kronecker | None:
        """The Kronecker-factored curvature of g at (w, λ), for `KFAC`; None, the default, if no layers are known."""
        return None

    @property
    def is_smooth(self) -> bool:
        """Whether g is differentiable in w, so that any solver can train it."""
        return True

    def restriction(self, params: Tensors, hparams: Tensors) -> "Restriction":
        """The problem in the entries of a solution `params` that change with λ: by default all of them.

        Override it if the other entries stay fixed for small changes of λ, such as the zeros of a sparse solution.
        """
        return Restriction(self, params, sum(w.numel() for w in params.values()))

    def objection(self, params: Tensors, ahead: Tensors, hparams: Tensors, batch: Any) -> str:
        """Why a restriction may not hold at the solution, which a Newton step from `params` to `ahead` estimates.

        Returns:
            What fails and where, as text after "unknown: "; "" if the restriction holds.
        """
        return ""

    def solution(self, hparams: Tensors) -> Tensors:
        """The best response w*(λ) in closed form, for problems that have one."""
        raise NotImplementedError(f"{type(self).__name__} has no closed form of its solution; train it with a solver.")

    def metrics(self, params: Tensors, hparams: Tensors) -> Mapping[str, Tensor | float]:
        """Further numbers to record at each outer step; `test_loss` is shown beside the inner and dev loss."""
        return {}

    def test_losses(self, params: Tensors, hparams: Tensors) -> Tensor | None:
        """The loss of each test example, shape (n,), whose mean is the metric `test_loss`; None if it is not known.

        From it comes the standard error of a change of the test loss.
        """
        return None

    def settings(self) -> dict[str, object]:
        """What else makes this problem, by name: values whose text is the same in another process.

        A run can only be resumed on a problem with the same settings, data, shapes and initial values.
        """
        return {}

    def trained_module(self, params: Tensors, hparams: Tensors) -> nn.Module:
        """The trained model as a module to use elsewhere, for problems that train a module of the user."""
        raise NotImplementedError(f"{type(self).__name__} trains no module of yours; the trained tensors are `params`.")

    def state_dicts(self, params: Tensors, hparams: Tensors) -> dict[str, Mapping[str, Any]]:
        """What to keep of the trained models, by the name of the file without its ending: `params`, by default.

        Override it for a module, to keep its state_dict, or for several models, to keep a file of each.
        """
        return {"model": params}

    def changes_inputs(self) -> list[str]:
        """The names of the hyperparameters that change the inputs of the trained model, also in evaluation."""
        return []

    def of_solver(self) -> list[str]:
        """The names of the hyperparameters that do nothing unless a coefficient of the solver names them."""
        return []

    def with_effect(self) -> list[str]:
        """The names of the hyperparameters that are known to act in the losses, and so must not be the solver's too."""
        return []

    def pictures(self) -> dict[str, tuple[int, ...]]:
        """The shape (h, w) or (c, h, w) of the images that a hyperparameter holds, by its name."""
        return {}

    def pooled_targets(self) -> Tensor:
        """The targets of the pool, which is the train examples and then the dev examples; shape (n, …)."""
        raise NotImplementedError(_NO_POOL.format(type(self).__name__, "pooled_targets"))

    def on_examples(self, train: Tensor, dev: Tensor) -> "InnerProblem":
        """The problem that trains on the examples at positions `train` of the pool, and judges on those at `dev`.

        Both are integers of shape (k,), for the k examples of a part.
        A hyperparameter with an entry for each train example has an entry for each example of the pool there.
        """
        raise NotImplementedError(_NO_POOL.format(type(self).__name__, "on_examples"))

    def joined(self, hparams: Tensors) -> "tuple[InnerProblem, Tensors]":
        """The problem on the whole pool, for a final training at λ, and λ for it."""
        targets = self.pooled_targets()
        everything = torch.arange(len(targets), device=targets.device)
        return self.on_examples(everything, everything), hparams

    def init_hparams(self) -> Tensors:
        """The initial λ in natural units, in the dtype and on the device of `init_params()`.

        Also raised, by what it calls: TypeError if `init_params` or `hyperparameters` does not return what it promises.
        """
        name = type(self).__name__
        params, spaces = self.init_params(), self.hyperparameters()
        require_dict(params, Tensor, f"{name}.init_params() must return a dict of tensors by name")
        require_dict(
            spaces, Hyperparameter, f"{name}.hyperparameters() must return a dict of hg.Hyperparameter by name"
        )
        like = next(iter(params.values()))
        return {name: h.value(like.dtype, like.device) for name, h in spaces.items()}


@dataclass(frozen=True)
class Restriction:
    """An inner problem in some entries of w, while the others stay fixed.

    Attributes:
        problem: with the same hyperparameters, and a unique solution near `params`.
        params: the entries, by the names of the parameters.
        size: the number of all entries of w.
        index: the positions of the entries in the flat w, shape (k,); None for all positions.
    """

    problem: InnerProblem
    params: Tensors
    size: int
    index: Tensor | None = None

    def gather(self, v: Tensor) -> Tensor:
        """These entries of a flat vector with the size of w."""
        return v if self.index is None else v[self.index]

    def scatter(self, v: Tensor) -> Tensor:
        """The flat vector with the size of w that is v in these entries and zero elsewhere."""
        return v if self.index is None else v.new_zeros(self.size).index_copy(0, self.index, v)
