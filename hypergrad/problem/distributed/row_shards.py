"""Which rows of which hyperparameters a process keeps."""

from collections.abc import Sequence

from hypergrad.core.collectives import Ranks
from hypergrad.core.row_shard import RowShard
from hypergrad.problem.base import InnerProblem


def shards_of(problem: InnerProblem, ranks: Ranks, names: Sequence[str]) -> dict[str, RowShard]:
    """The shards of these hyperparameters, by name; none if there is one process.

    Raises:
        TypeError: if the names are a string.
        ValueError: if one has too few rows for each process to have one.

    Also raised, by what it calls: ValueError if the problem does not have one of them, or it cannot be spread.
    """
    if isinstance(names, str):
        raise TypeError(f"sharded must be a list of names, such as [{names!r}], but it is the string {names!r}.")
    if not names:
        return {}
    _require_spreadable(problem, names)
    if ranks.world == 1:
        return {}
    hparams, private = problem.init_hparams(), problem.row_owners()
    shards = {name: RowShard(ranks, len(hparams[name]), name in private) for name in names}
    for name, shard in shards.items():
        if shard.size < shard.needed:
            raise ValueError(
                f"sharded[{name!r}], whose rows are spread over {ranks.world} processes, must have more than "
                f"{shard.needed - 1} rows, but it has {shard.size}; keep it whole."
            )
    return shards


def _require_spreadable(problem: InnerProblem, names: Sequence[str]) -> None:
    """Require that each entry of these hyperparameters moves on its own, and that only the losses use them.

    Raises:
        ValueError: if not.
    """
    spaces, hparams, of_solver = problem.hyperparameters(), problem.init_hparams(), problem.of_solver()
    if problem.tunes_initial:
        raise ValueError(
            f"sharded hyperparameters are used by the losses only, but {type(problem).__name__} computes the start of "
            "training from hyperparameters; leave sharded out."
        )
    for name in names:
        if name not in spaces:
            raise ValueError(f"sharded must name hyperparameters, which are {', '.join(spaces)}, but it has {name!r}.")
        if hparams[name].ndim == 0:
            raise ValueError(f"sharded[{name!r}] must have rows, but it is one number; leave it out of sharded.")
        if spaces[name].constraint.event_dim > 0:
            raise ValueError(
                f"sharded[{name!r}] needs a constraint of each entry on its own, such as positive or an interval, but "
                f"{spaces[name].constraint} couples the entries; leave it out of sharded."
            )
        if name in of_solver:
            raise ValueError(
                f"sharded[{name!r}] must be used by the losses, but it is a coefficient of the solver; leave it out of "
                "sharded."
            )
