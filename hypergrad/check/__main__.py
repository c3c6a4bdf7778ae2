"""The command line: `python -m hypergrad.check experiment=ridge`."""

import sys
from typing import Any

from rich.console import Console

from hypergrad.check.comparison import check_hypergradient
from hypergrad.cli.building import configured_estimators, configured_problem
from hypergrad.cli.command import command
from hypergrad.cli.command_help import CHECK
from hypergrad.cli.output import quiet_end


def check(cfg: Any) -> None:
    """Check every configured estimator, or the chosen one, at the problem's initial hyperparameters.

    The direction of a joint move is not the hypergradient, so `SingleLoop` is not among them unless it is chosen.

    Also raised, by what it calls: SystemExit if a row does not agree.
    """
    with configured_problem(cfg) as problem:
        estimators = configured_estimators(without="hypergrad.SingleLoop")
        console = Console(stderr=True, quiet=not problem.peers.is_first)
        with console.status(f"Training again, and comparing {', '.join(estimators)} with that"):
            found = check_hypergradient(problem, estimators=estimators)
    if problem.peers.is_first:
        found.print()
    if not found.ok:
        sys.exit(1)


@quiet_end()
def main() -> None:
    """Run the command line."""
    command(check, CHECK, sweeps=False, shares=True)


if __name__ == "__main__":
    main()
