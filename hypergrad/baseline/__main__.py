"""The command line: `python -m hypergrad.baseline experiment=ridge method=tpe budget=100`."""

import sys
from typing import Any

from hypergrad.baseline.budget import Budget
from hypergrad.baseline.search import search
from hypergrad.cli.building import built, configured, configured_callbacks, configured_problem
from hypergrad.cli.command import command
from hypergrad.cli.command_help import BASELINE
from hypergrad.cli.output import quiet_end
from hypergrad.cli.settings import own_settings
from hypergrad.core.errors import message


@quiet_end()
def main() -> None:
    """Run the search that the arguments choose.

    Also raised, by what it calls: SystemExit if the budget is none.
    """
    settings, rest = own_settings(sys.argv[1:], {"method": "tpe", "budget": "100"})
    try:
        budget = Budget.of(settings["budget"])
    except (OSError, ValueError) as error:
        sys.exit(f"error: {message(error)}")
    method = settings["method"]
    if not method.isidentifier():
        sys.exit(f"error: method must be the name of a search, such as tpe, random or grid, but it is {method!r}.")
    folder = f"hydra.run.dir='outputs/${{name}}-{method}/${{now:%Y-%m-%d_%H-%M-%S-%f}}'"
    sys.argv[1:] = [folder, f"+baseline={method}", *rest]

    def task(cfg: Any) -> float:
        with configured_problem(cfg) as problem:
            callbacks = configured_callbacks(cfg, without=("checkpoint",))
            config = built(cfg) | {"budget": settings["budget"]}
            estimator, method = configured(cfg, "estimator"), configured(cfg, "baseline")
            return search(problem, estimator, method, budget, callbacks, config).best.outer_loss

    command(task, BASELINE, sweeps=False)


if __name__ == "__main__":
    main()
