"""Cross-validation: several problems with the same hyperparameters, as one problem."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors
from hypergrad.core.collectives import Ranks
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.ranks import Peers
from hypergrad.data.own_rows import OwnRows, own_rows
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.batch_place import BatchPlace, common
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.parts import accumulated_outer_loss
from hypergrad.problem.sparse.l1 import L1Problem


class OwnFolds(NamedTuple):
    """The folds of one process.

    Attributes:
        own: which they are, and their share.
        batches: a batch for each, in a tuple; None if the losses read all data.
    """

    own: OwnRows
    batches: Any


class KFold(InnerProblem):
    """K folds of the train and dev examples; each fold judges a model that was trained on the others.

    g(W, λ) = Σ_k g_k(w_k, λ),    f(W, λ) = 1/K Σ_k f_k(w_k, λ),

    with w_k the entry k of W along the first axis of each tensor, g_k on all folds but the k-th and f_k on the k-th.
    The gradient of w_k depends on w_k alone, so that each w_k is trained as it would be alone. The Hessian is block
    diagonal, and dF/dλ is the mean of the K hypergradients. Metrics, such as the test loss, are means over the models.

    Every example judges once, so that λ does not overfit one small dev part. This costs K times the work.
    Factorisations (`Dense`, `Newton`) cost K² times; the other linear solvers do not form the zeros between the blocks.

    Args:
        folds: K ≥ 2 problems with the same parameters and hyperparameters.
        pool: the problem on all examples, for a final training.

    Raises:
        ValueError: if hyperparameters are spread over processes.

    Source: Stone, "Cross-validatory choice and assessment of statistical predictions", J. Royal Statistical Society B
    (1974).
    """

    def __init__(self, folds: list[InnerProblem], pool: InnerProblem) -> None:
        super().__init__()
        if pool.shards():
            raise ValueError(
                f"Folds need whole hyperparameters, but the rows of {', '.join(pool.shards())} are spread over "
                "processes: give hg.DataParallel the folds, with sharded."
            )
        self.folds: Any = nn.ModuleList(folds)
        self.pool = pool

    def settings(self) -> dict[str, object]:
        return {"folds": len(self.folds), **self.folds[0].settings()}

    def init_params(self) -> Tensors:
        return _stacked([fold.init_params() for fold in self.folds])

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        return self.pool.hyperparameters()

    def with_effect(self) -> list[str]:
        return self.pool.with_effect()

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        losses = self._each(lambda fold, w, part: Oracle(fold, hparams, part).loss(w), params, batch)
        return _scaled(_sum(losses), batch)

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        losses = self._each(lambda fold, w, part: accumulated_outer_loss(fold, w, hparams, part), params, batch)
        return _sum(losses) / len(losses)

    def initial(self, params: Tensors, hparams: Tensors) -> Tensors:
        return _stacked(self._each(lambda fold, w, _: fold.initial(w, hparams), params))

    @property
    def tunes_initial(self) -> bool:
        return self.pool.tunes_initial

    def inner_batch(self, step: int) -> Any:
        return _batches([fold.inner_batch(step) for fold in self.folds])

    def outer_batch(self, step: int) -> Any:
        return _batches([fold.outer_batch(step) for fold in self.folds])

    def inner_share(self, batch: Any, rank: int, world: int) -> tuple[OwnFolds, float]:
        """The folds of a process, each a whole one; its gradient is zero in all other folds."""
        own = own_rows(len(self.folds), rank, world)
        return OwnFolds(own, None if batch is None else batch[own.rows]), own.share

    def outer_share(self, batch: Any, rank: int, world: int) -> tuple[OwnFolds, float]:
        return self.inner_share(batch, rank, world)

    def inner_share_at(self, step: int, ranks: Ranks) -> tuple[OwnFolds, float]:
        own = own_rows(len(self.folds), ranks.rank, ranks.world)
        batches = [fold.inner_batch(step) for fold in self.folds[own.rows]]  # others are not read
        return OwnFolds(own, _batches(batches)), own.share

    @property
    def peers(self) -> Peers:
        return self.pool.peers

    @property
    def is_spread(self) -> bool:
        return self.pool.is_spread

    def inner_place(self, step: int) -> BatchPlace:
        return common([fold.inner_place(step) for fold in self.folds])

    def outer_place(self, step: int) -> BatchPlace:
        return common([fold.outer_place(step) for fold in self.folds])

    @property
    def samples_outer(self) -> bool:
        return any(fold.samples_outer for fold in self.folds)

    def whole_outer_batch(self) -> Any:
        return _batches([fold.whole_outer_batch() for fold in self.folds])

    def optimality(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensors:
        if self.is_minimisation:
            return super().optimality(params, hparams, batch)
        return _stacked(self._each(lambda fold, w, part: fold.optimality(w, hparams, part), params, batch))

    @property
    def is_minimisation(self) -> bool:
        return self.pool.is_minimisation

    @property
    def is_smooth(self) -> bool:
        return self.pool.is_smooth

    def outputs(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return torch.cat(self._each(lambda fold, w, part: fold.outputs(w, hparams, part), params, batch))

    def loss_of_outputs(self, outputs: Tensor, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        with torch.no_grad():
            sizes = self._each(lambda fold, w, part: len(fold.outputs(w, hparams, part)), params, batch)
        pieces = iter(outputs.split(sizes))
        losses = self._each(lambda fold, w, part: fold.loss_of_outputs(next(pieces), w, hparams, part), params, batch)
        return _scaled(_sum(losses), batch)

    def solution(self, hparams: Tensors) -> Tensors:
        return _stacked([fold.solution(hparams) for fold in self.folds])

    def metrics(self, params: Tensors, hparams: Tensors) -> dict[str, Tensor | float]:
        found = self._each(lambda fold, w, _: fold.metrics(w, hparams), params)
        return {name: sum(float(metrics[name]) for metrics in found) / len(found) for name in found[0]}

    def trained_module(self, params: Tensors, hparams: Tensors) -> nn.Module:
        """None: there is a model for each fold.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"The {len(self.folds)} folds have trained {len(self.folds)} models, and none of them is the model. Use "
            "retrain=True for one on all examples, or problem.folds[k].trained_module with entry k of each parameter."
        )

    def state_dicts(self, params: Tensors, hparams: Tensors) -> dict[str, Mapping[str, Any]]:
        found = self._each(lambda fold, w, _: fold.state_dicts(w, hparams), params)
        return {f"{name}-fold-{k}": state for k, each in enumerate(found) for name, state in each.items()}

    def changes_inputs(self) -> list[str]:
        return self.pool.changes_inputs()

    def joined(self, hparams: Tensors) -> tuple[InnerProblem, Tensors]:
        return self.pool, hparams

    def _each(self, of: Callable[[Any, Tensors, Any], Any], params: Tensors, batch: Any = None) -> list[Any]:
        """The values of a function of a fold, its parameters and its batch, for each fold of a batch."""
        entries = {name: stack.unbind() for name, stack in params.items()}
        numbers = range(len(self.folds))
        if isinstance(batch, OwnFolds):
            numbers, batch = numbers[batch.own.rows], batch.batches
        batches = [None] * len(numbers) if batch is None else batch
        return [
            of(self.folds[k], {name: ws[k] for name, ws in entries.items()}, part)
            for k, part in zip(numbers, batches, strict=True)
        ]


class L1KFold(KFold, L1Problem):
    """`KFold` for problems with an L1 penalty."""

    def smooth_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return _sum(self._each(lambda fold, w, part: fold.smooth_loss(w, hparams, part), params, batch))

    def l1(self, hparams: Tensors) -> Tensors:
        return self.folds[0].l1(hparams)

    def smoothness(self, hparams: Tensors) -> Tensor | None:
        bounds = [fold.smoothness(hparams) for fold in self.folds]
        return None if any(bound is None for bound in bounds) else torch.stack(bounds).amax()


def k_fold(problem: InnerProblem, folds: int = 5, *, seed: int = 0) -> KFold:
    """K-fold cross-validation: the train and dev examples are split into K folds, and each fold is the dev part once.

    Test examples stay apart. If the targets are classes, each fold has about the same share of each class.

    Args:
        problem: `Supervised`, `Ridge`, a sparse linear model, or any other problem that defines `pooled_targets` and
            `on_examples`.
        folds: K, from 2 to the number of examples.
        seed: of the random split.

    Returns:
        A problem for any estimator; its parameters are stacked along a new first axis.

    Raises:
        ValueError: if K is out of range.

    Also raised, by what it calls: NotImplementedError if the problem does not say how its examples are parted.
    """
    targets = problem.pooled_targets()
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= len(targets):
        raise ValueError(f"folds must be an integer from 2 to the {len(targets)} examples, but it is {folds!r}.")
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed)).to(targets.device)
    if not targets.is_floating_point() and targets.ndim == 1:
        order = order[targets[order].argsort(stable=True)]
    number = torch.empty_like(order)
    number[order] = torch.arange(len(order), device=order.device) % folds
    parts = [problem.on_examples(*((number != k).nonzero()[:, 0], (number == k).nonzero()[:, 0])) for k in range(folds)]
    everything = torch.arange(len(number), device=order.device)
    kind = L1KFold if isinstance(problem, L1Problem) else KFold
    return kind(parts, problem.on_examples(everything, everything))


def _sum(losses: list[Tensor]) -> Tensor:
    return torch.stack(losses).sum()


def _scaled(total: Tensor, batch: Any) -> Tensor:
    """A sum over the folds of a batch, as the part of a sum over all folds."""
    return batch.own.scale * total if isinstance(batch, OwnFolds) else total


def _stacked(each: list[Tensors]) -> Tensors:
    return {name: torch.stack([tensors[name] for tensors in each]) for name in each[0]}


def _batches(each: list[Any]) -> Any:
    return None if all(batch is None for batch in each) else tuple(each)
