"""The requirements of hyperparameters whose rows are spread over processes."""

from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from hypergrad.estimator.base import HypergradEstimator
from hypergrad.estimator.implicit import Implicit
from hypergrad.estimator.single_loop import SingleLoop
from hypergrad.estimator.unrolled import Unrolled
from hypergrad.outer.spread import Spread
from hypergrad.single_loop.amigo import AmIGO
from hypergrad.single_loop.bome import BOME
from hypergrad.single_loop.f2sa import F2SA
from hypergrad.single_loop.masoba import MASOBA
from hypergrad.single_loop.meha import MEHA
from hypergrad.single_loop.saba import SABA
from hypergrad.single_loop.sama import SAMA
from hypergrad.single_loop.soba import SOBA
from hypergrad.single_loop.srba import SRBA
from hypergrad.solver.coefficient import root

_ENTRYWISE = (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, Adamax, NAdam, RAdam)
"""Optimisers that move each entry by its own gradients alone."""
_METHODS = (SOBA, MASOBA, SABA, SRBA, AmIGO, F2SA, BOME, MEHA, SAMA)
"""Single-loop methods that add up what they compute from λ over the processes."""


def require_entrywise(spread: Spread, optimizer: object) -> None:
    """Require an optimiser that moves each entry on its own, if hyperparameters are spread over processes.

    Args:
        spread: which ones.
        optimizer: an optimiser, or what makes one, which is not looked at.

    Raises:
        ValueError: if it does not.
    """
    if not spread or not isinstance(optimizer, Optimizer) or type(optimizer) in _ENTRYWISE:
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
    if isinstance(estimator, SingleLoop):
        _require_method(estimator, names, spread.ranks.world)
        return
    if not isinstance(estimator, Implicit | Unrolled) or type(estimator) not in (Implicit, Unrolled):
        raise ValueError(
            f"{type(estimator).__name__} needs all entries of a hyperparameter on each process, but {names} is spread "
            f"over {spread.ranks.world}. Choose Implicit, Unrolled or SingleLoop, or leave sharded out."
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


def _require_method(estimator: SingleLoop, names: str, world: int) -> None:
    """Require a method of this library.

    Raises:
        ValueError: if it is another one.
    """
    if type(estimator.method) not in _METHODS:
        raise ValueError(
            f"{type(estimator.method).__name__} may use all entries of a direction of λ at once, but {names} is spread "
            f"over {world} processes. Choose one of {', '.join(kind.__name__ for kind in _METHODS)}, or leave sharded "
            "out."
        )
