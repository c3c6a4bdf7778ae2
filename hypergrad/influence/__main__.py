"""The command line: `python -m hypergrad.influence experiment=digits`, and with `method=ekfac` for networks."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from hypergrad.cli.building import configured, configured_problem
from hypergrad.cli.command import command, run_folder
from hypergrad.cli.command_help import INFLUENCE
from hypergrad.cli.influence_arguments import InfluenceArguments
from hypergrad.cli.output import quiet_end
from hypergrad.core.errors import NotOptimalError, message
from hypergrad.influence.examples import Influences, influences, require_supervised
from hypergrad.influence.groups import write_groups
from hypergrad.influence.scoring import Scoring
from hypergrad.influence.tables import read_groups
from hypergrad.training.training import Training

_TOL = 1e-9
"""Of ‖∇g‖, relative to the start: influences are first-order changes of a solution, and O(1/n) themselves."""


@quiet_end()
def main() -> None:
    """Train at the initial hyperparameters, print the examples that matter most, and write all of them.

    Without `method`, one adjoint solve at the solution gives the influence on the dev loss.

    Also raised, by what it calls: SystemExit if a setting has a value that it cannot have.
    """
    try:
        given, sys.argv[1:] = InfluenceArguments.of(sys.argv[1:])
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"error: {message(error)}")

    def task(cfg: Any) -> None:
        folder, console = run_folder(), Console()
        given.save(folder)
        examples = _scored(cfg, given, folder, console) if given.method else _trained_influences(cfg, given)
        examples.print(given.top, console)
        print(examples.write(folder, given.table))
        if given.each:
            print(folder / "scores.npy", folder / f"top.{given.table}", sep="\n")
        if given.groups:
            write_groups(examples, given.groups, folder, given.table, console)

    command(task, INFLUENCE, sweeps=False)


def _scored(cfg: Any, given: InfluenceArguments, folder: Path, console: Console) -> Influences:
    """The influences by a method, at the end of training."""
    with configured_problem(cfg) as problem:
        method = configured(cfg, "influence")
        steps = method.inner_steps if method.trains else given.steps
        training = Training(solver=configured(cfg, "solver"), steps=steps, tol=0.0 if method.trains else _TOL)
        scoring = Scoring.of(problem, method, training, folder, console)
        if given.groups:
            read_groups(given.groups, scoring.problem.y)  # an error must not come after hours
        params = scoring.params()
        return scoring.each(params, given.top, given.table) if given.each else scoring.mean(params)


def _trained_influences(cfg: Any, given: InfluenceArguments) -> Influences:
    """The influences at the solution of the configured problem, after training it.

    Raises:
        NotOptimalError: if training did not reach a solution.
    """
    with configured_problem(cfg) as configured_one:
        problem = require_supervised(configured_one)
        if given.groups:
            read_groups(given.groups, problem.y)
        problem.batch_size = None  # influences need a solution on all of train
        hparams = problem.init_hparams()
        training = Training(solver=configured(cfg, "solver"), steps=given.steps, tol=_TOL)
        found = training.run(problem, hparams, problem.init_params())
        try:
            return influences(problem, found.params, hparams, jackknife=configured(cfg, "sensitivity"))
        except NotOptimalError as error:
            error.add_note(
                f"{type(training.solver).__name__} took {found.report.steps} steps and ended {found.report.status}; "
                "allow more with steps=…; solver=lbfgs and solver=newton need the fewest."
            )
            raise


if __name__ == "__main__":
    main()
