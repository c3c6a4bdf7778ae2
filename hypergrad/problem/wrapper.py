"""A problem that is another problem with different hyperparameters."""

from abc import abstractmethod
from collections.abc import Mapping
from copy import copy
from typing import Any, Self

from torch import Tensor, nn

from hypergrad.core.autodiff import Tensors
from hypergrad.core.collectives import Ranks
from hypergrad.core.kronecker import Kronecker
from hypergrad.core.ranks import Peers
from hypergrad.core.row_shard import RowShard
from hypergrad.core.torch_internals.modules import set_submodules, submodules_of
from hypergrad.problem.base import InnerProblem, Parts
from hypergrad.problem.batch_place import BatchPlace


class Wrapper(InnerProblem):
    """Another problem, whose hyperparameters are a function `untied` of those of the wrapper.

    A subclass defines `untied` and `hyperparameters`.

    Args:
        problem: the other problem.

    Raises:
        ValueError: if it has an L1 penalty, which requires solvers and a support that a wrapper does not have, or
            hyperparameters that are spread over processes.
    """

    def __init__(self, problem: InnerProblem) -> None:
        super().__init__()
        if not problem.is_smooth:
            raise ValueError(
                f"{type(self).__name__} needs a smooth inner loss, but {type(problem).__name__} has an L1 penalty; use "
                "the problem without it."
            )
        if problem.shards():
            raise ValueError(
                f"{type(self).__name__} needs whole hyperparameters, but the rows of {', '.join(problem.shards())} are "
                f"spread over processes: give hg.DataParallel the {type(self).__name__}, with sharded."
            )
        self.problem = problem

    @abstractmethod
    def untied(self, hparams: Tensors) -> Tensors:
        """λ of the other problem."""

    @property
    def peers(self) -> Peers:
        return self.problem.peers

    def param_shards(self) -> Mapping[str, RowShard]:
        return self.problem.param_shards()

    def at_outer_step(self, step: int) -> Self:
        now = self.problem.at_outer_step(step)
        return self if now is self.problem else self.around(now)

    def around(self, problem: InnerProblem) -> Self:
        """The same wrapper around another problem, which has the same hyperparameters."""
        other = copy(self)
        set_submodules(other, submodules_of(self) | {"problem": problem})
        return other

    def with_effect(self) -> list[str]:
        return self.problem.with_effect()

    def init_params(self) -> Tensors:
        return self.problem.init_params()

    def initial(self, params: Tensors, hparams: Tensors) -> Tensors:
        return self.problem.initial(params, self.untied(hparams))

    @property
    def tunes_initial(self) -> bool:
        return self.problem.tunes_initial

    def inner_batch(self, step: int) -> Any:
        return self.problem.inner_batch(step)

    def outer_batch(self, step: int) -> Any:
        return self.problem.outer_batch(step)

    def inner_place(self, step: int) -> BatchPlace:
        return self.problem.inner_place(step)

    def outer_place(self, step: int) -> BatchPlace:
        return self.problem.outer_place(step)

    def inner_parts(self, batch: Any) -> Parts | None:
        return self.problem.inner_parts(batch)

    def outer_parts(self, batch: Any) -> Parts | None:
        return self.problem.outer_parts(batch)

    def inner_share(self, batch: Any, rank: int, world: int) -> tuple[Any, float]:
        return self.problem.inner_share(batch, rank, world)

    def outer_share(self, batch: Any, rank: int, world: int) -> tuple[Any, float]:
        return self.problem.outer_share(batch, rank, world)

    def inner_share_at(self, step: int, ranks: Ranks) -> tuple[Any, float]:
        return self.problem.inner_share_at(step, ranks)

    def owned_share(self, batch: Any, rank: int, rows: range) -> tuple[Any, float]:
        return self.problem.owned_share(batch, rank, rows)

    def on_ranks(self, ranks: Ranks) -> InnerProblem:
        found = self.problem.on_ranks(ranks)
        return self if found is self.problem else self.around(found)

    @property
    def is_spread(self) -> bool:
        return self.problem.is_spread

    @property
    def exact(self) -> InnerProblem:
        exact = self.problem.exact
        return self if exact is self.problem else self.around(exact)

    @property
    def samples_outer(self) -> bool:
        return self.problem.samples_outer

    def whole_outer_batch(self) -> Any:
        return self.problem.whole_outer_batch()

    def inner_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self.problem.inner_loss(params, self.untied(hparams), batch)

    def inner_loss_and_gradient(self, params: Tensors, hparams: Tensors, batch: Any) -> tuple[Tensor, Tensors]:
        return self.problem.inner_loss_and_gradient(params, self.untied(hparams), batch)

    def optimality(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensors:
        return self.problem.optimality(params, self.untied(hparams), batch)

    @property
    def is_minimisation(self) -> bool:
        return self.problem.is_minimisation

    @property
    def has_second_derivatives(self) -> bool:
        return self.problem.has_second_derivatives

    def outputs(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self.problem.outputs(params, self.untied(hparams), batch)

    def loss_of_outputs(self, outputs: Tensor, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self.problem.loss_of_outputs(outputs, params, self.untied(hparams), batch)

    def kronecker(self, params: Tensors, hparams: Tensors, batch: Any) -> Kronecker | None:
        return self.problem.kronecker(params, self.untied(hparams), batch)

    def outer_loss(self, params: Tensors, hparams: Tensors, batch: Any) -> Tensor:
        return self.problem.outer_loss(params, self.untied(hparams), batch)

    def metrics(self, params: Tensors, hparams: Tensors) -> Mapping[str, Tensor | float]:
        return self.problem.metrics(params, self.untied(hparams))

    def test_losses(self, params: Tensors, hparams: Tensors) -> Tensor | None:
        return self.problem.test_losses(params, self.untied(hparams))

    def settings(self) -> dict[str, object]:
        return self.problem.settings()

    def trained_module(self, params: Tensors, hparams: Tensors) -> nn.Module:
        return self.problem.trained_module(params, self.untied(hparams))

    def state_dicts(self, params: Tensors, hparams: Tensors) -> dict[str, Mapping[str, Any]]:
        return self.problem.state_dicts(params, self.untied(hparams))

    def changes_inputs(self) -> list[str]:
        return self.problem.changes_inputs()
