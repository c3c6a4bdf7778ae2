"""Whether several processes of torchrun share the work of a command."""

from hypergrad.core.launch import launched


def require_sharing(*, shares: bool, is_spread: bool) -> None:
    """Require that several processes of torchrun are to share the work.

    Args:
        shares: whether they can share that of this command.
        is_spread: whether the config spreads the problem over them.

    Raises:
        ValueError: if they are not.
    """
    launch = launched()
    if launch is None or launch.world == 1:
        return
    if not shares:
        raise ValueError(f"This command runs in one process, but torchrun started {launch.world}; leave torchrun out.")
    if not is_spread:
        raise ValueError(
            f"torchrun started {launch.world} processes, but with distributed=none each of them would do all of the "
            "work and write to the same folder. Add distributed=data_parallel, by which they share it, or leave "
            "torchrun out."
        )
