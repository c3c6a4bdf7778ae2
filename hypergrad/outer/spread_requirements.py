"""The requirements of hyperparameters whose rows are spread over processes."""

from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from hypergrad.estimator.base import HypergradEstimator
from hypergrad.estimator.implicit import Implicit
from hypergrad.estimator.unrolled import Unrolled
from hypergrad.outer.spread import Spread
from hypergrad.outer.suggested_sgd import SuggestedSGD
from hypergrad.solver.coefficient import root

_ENTRYWISE = (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, Adamax, NAdam, RAdam)
"""Optimisers that move each entry by its own gradients alone."""


def require_entrywise(spread: Spread, optimizer: object) -> None:
    """Require an optimiser that moves each entry on its own, if hyperparameters are spread over processes.

    Args:
        spread: which ones.
        optimizer: an optimiser, or what makes one.

    Raises:
        ValueError: if it does not.
    """
    is_maker = not isinstance(optimizer, Optimizer | SuggestedSGD)
    if not spread or is_maker or type(optimizer) in _ENTRYWISE:
        return
    raise ValueError(
        f"{type(optimizer).__name__} needs all entries of a hyperparameter, but {', '.join(spread.shards)} is spread "
        f"over {spread.ranks.world} processes. Choose one of {', '.join(kind.__name__ for kind in _ENTRYWISE)} of "
        "torch.optim, or leave sharded out."
    )


def require_linear(spread: Spread, estimator: HypergradEstimator) -> None:
    """Require an estimator whose dF/dλ is a sum over processes, if hyperparameters are spread over them.

    Raises:
        ValueError: if it uses dF/dλ, or λ, in another way.
    """
    if not spread:
        return
    names = ", ".join(spread.shards)
    if not isinstance(estimator, Implicit | Unrolled) or type(estimator) not in (Implicit, Unrolled):
        raise ValueError(
            f"{type(estimator).__name__} needs all entries of a hyperparameter on each process, but {names} is spread "
            f"over {spread.ranks.world}. Choose Implicit or Unrolled, or leave sharded out."
        )
    if isinstance(estimator, Implicit) and estimator.error_bar:
        raise ValueError(
            f"The error bar of Implicit needs all entries of dF/dλ on each process, but {names} is spread over "
            f"{spread.ranks.world}. Set error_bar=False."
        )
    used = {str(root(value)) for value in estimator.solver.coefficients().values() if isinstance(root(value), str)}
    if used & spread.shards.keys():
        raise ValueError(
            f"{', '.join(sorted(used & spread.shards.keys()))} is a coefficient of the solver, which needs all of its "
            "entries on each process; leave it out of sharded."
        )
