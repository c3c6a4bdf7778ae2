"""The command line: `python -m hypergrad.baseline experiment=ridge method=tpe budget=100`."""

import sys
from typing import Any

from hypergrad.baseline.search import METHODS
from hypergrad.baseline.trials import Budget, search
from hypergrad.command import built, command, configured_callbacks, configured_estimator, configured_problem


def main() -> None:
    """Run the search that the arguments name.

    Raises:
        SystemExit: if they name none.
    """
    settings = {"method": "tpe", "budget": "100"}
    rest = []
    for argument in sys.argv[1:]:
        key, _, value = argument.partition("=")
        if key in settings:
            settings[key] = value
        else:
            rest.append(argument)
    if settings["method"] not in METHODS:
        sys.exit(f"error: method must be one of {', '.join(METHODS)}, but it is {settings['method']!r}.")
    try:
        budget = Budget.of(settings["budget"])
    except ValueError as error:
        sys.exit(f"error: {error}")
    folder = f"hydra.run.dir='outputs/${{name}}-{settings['method']}/${{now:%Y-%m-%d_%H-%M-%S-%f}}'"
    sys.argv[1:] = [folder, *rest]

    def task(cfg: Any) -> float:
        with configured_problem(cfg) as problem:
            method = METHODS[settings["method"]](seed=cfg.seed)
            callbacks = configured_callbacks(cfg, without=("checkpoint",))
            config = built(cfg) | {"baseline": settings}
            return search(problem, configured_estimator(cfg), method, budget, callbacks, config).best.outer_loss

    command(task, sweeps=False)


if __name__ == "__main__":
    main()
