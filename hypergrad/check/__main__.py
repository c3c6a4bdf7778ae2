"""The command line: `python -m hypergrad.check experiment=ridge`."""

import sys
from typing import Any

from hypergrad.check.comparison import check_hypergradient
from hypergrad.cli.command import command, configured_estimators, configured_problem


def check(cfg: Any) -> None:
    """Check every configured estimator, or the chosen one, at the problem's initial hyperparameters.

    Also raised, by what it calls: SystemExit if a row does not agree.
    """
    with configured_problem(cfg) as problem:
        found = check_hypergradient(problem, estimators=configured_estimators())
    found.print()
    if not found.ok:
        sys.exit(1)


def main() -> None:
    """Run the command line."""
    command(check, sweeps=False)


if __name__ == "__main__":
    main()
