"""The command line: `python -m hypergrad.influence experiment=digits`."""

import sys
from typing import Any

from hypergrad.cli.command import command, configured, configured_problem, run_folder
from hypergrad.cli.settings import own_settings
from hypergrad.core.errors import NotOptimalError
from hypergrad.influence.examples import Influences, influences, require_supervised
from hypergrad.training.training import Training

_TOL = 1e-9
"""Of ‖∇g‖, relative to the start: influences are first-order changes of a solution, and O(1/n) themselves."""


def main() -> None:
    """Train at the initial hyperparameters, print the examples that matter most, and write all of them as CSV.

    Also raised, by what it calls: SystemExit if `top` or `steps` is not a positive integer.
    """
    settings, rest = own_settings(sys.argv[1:], {"top": "10", "steps": "10000"})
    top, steps = (_positive(name, settings[name]) for name in ("top", "steps"))
    folder = "hydra.run.dir='outputs/${name}-influence/${now:%Y-%m-%d_%H-%M-%S-%f}'"
    sys.argv[1:] = [folder, "+sensitivity=jackknife", *rest]

    def task(cfg: Any) -> None:
        examples = _trained_influences(cfg, steps)
        path = run_folder() / "influence.csv"
        examples.print(top)
        examples.write(path)
        print(path)

    command(task, sweeps=False)


def _positive(name: str, value: str) -> int:
    """The integer that a setting holds.

    Also raised, by what it calls: SystemExit if it is not a positive integer.
    """
    if not value.isdecimal() or int(value) < 1:
        sys.exit(f"error: {name} must be an integer of at least 1, but it is {value!r}.")
    return int(value)


def _trained_influences(cfg: Any, max_steps: int) -> Influences:
    """The influences at the solution of the configured problem, after training it.

    Raises:
        NotOptimalError: if training did not reach a solution.
    """
    with configured_problem(cfg) as given:
        problem = require_supervised(given)
        problem.batch_size = None  # influences need a solution on all of train
        hparams = problem.init_hparams()
        training = Training(solver=configured(cfg, "solver"), steps=max_steps, tol=_TOL)
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
