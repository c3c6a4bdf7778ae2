"""The command line: `python -m hypergrad.influence experiment=digits`."""

import sys
from typing import Any

from hypergrad.cli.command import command, configured, configured_problem, run_folder
from hypergrad.core.errors import NotOptimalError
from hypergrad.influence.examples import influences, require_supervised
from hypergrad.training.training import train

_TOL = 1e-9


def main() -> None:
    """Train at the initial hyperparameters, print the examples that matter most, and write all of them as CSV.

    Also raised, by what it calls: SystemExit if `top` or `steps` is not a positive number.
    """
    settings = {"top": 10, "steps": 10000}
    rest = []
    for argument in sys.argv[1:]:
        key, _, value = argument.partition("=")
        if key not in settings:
            rest.append(argument)
        elif value.isdecimal() and int(value) > 0:
            settings[key] = int(value)
        else:
            sys.exit(f"error: {key} must be an integer of at least 1, but it is {value!r}.")
    folder = "hydra.run.dir='outputs/${name}-influence/${now:%Y-%m-%d_%H-%M-%S-%f}'"
    sys.argv[1:] = [folder, "+sensitivity=jackknife", *rest]

    def task(cfg: Any) -> None:
        with configured_problem(cfg) as given:
            problem = require_supervised(given)
            problem.batch_size = None  # influences are of a solution on all of train
            hparams = problem.init_hparams()
            solver = configured(cfg, "solver")
            found = train(problem, solver, hparams, problem.init_params(), max_steps=settings["steps"], tol=_TOL)
            try:
                examples = influences(problem, found.params, hparams, jackknife=configured(cfg, "sensitivity"))
            except NotOptimalError as error:
                error.add_note(
                    f"{type(solver).__name__} took {found.steps} steps and ended {found.status}; allow more with "
                    "steps=…; solver=lbfgs and solver=newton need the fewest."
                )
                raise
        path = run_folder() / "influence.csv"
        examples.print(settings["top"])
        examples.write(path)
        print(path)

    command(task, sweeps=False)


if __name__ == "__main__":
    main()
