"""What each command says of itself: one line in `python -m hypergrad`, and first in its own `--help`."""

from collections.abc import Mapping
from dataclasses import dataclass

_WIDTH = 28
"""Of the column of options, in characters."""
_OF_CONFIGS = {
    "experiment=NAME": "what is tuned, and how (default: ridge); the names are below",
    "GROUP=NAME": "another solver, estimator, optimizer, …; the groups are below",
    "KEY=VALUE": "another value; +KEY=VALUE adds a key, ~KEY leaves one out",
    "allow_targets=[NAME,…]": "packages or objects of others that the config may name",
    "--config-dir FOLDER": "your own configs, as in FOLDER/experiment/NAME.yaml",
    "--cfg job": "show the config, and run nothing",
}
"""The options of every command that builds a config."""


@dataclass(frozen=True, kw_only=True)
class CommandHelp:
    """What a command says of itself.

    Attributes:
        name: of its module, as in `python -m hypergrad.NAME`.
        summary: what it does, in one line.
        usage: the form of its arguments.
        options: what each of its own options means; those of argparse are not among them.
        examples: what each of these arguments does.
    """

    name: str
    summary: str
    usage: str
    options: Mapping[str, str]
    examples: Mapping[str, str]

    @property
    def settings(self) -> tuple[str, ...]:
        """The names that can be set beside the keys of the config, such as "top"."""
        return tuple(dict.fromkeys(key.partition("=")[0] for key in self.options if key[0].islower()))

    @property
    def epilog(self) -> str:
        """The examples."""
        lines = [f"  # {what}\n  python -m hypergrad.{self.name} {how}" for how, what in self.examples.items()]
        return "\n".join(["examples:", *lines])

    def __str__(self) -> str:
        """Its own help, which Hydra's follows."""
        options = [f"  {key:{_WIDTH}}{what}" for key, what in self.options.items()]
        return "\n".join([
            f"usage: python -m hypergrad.{self.name} {self.usage}\n\n{self.summary}.\n\noptions:",
            *options,
            f"\n{self.epilog}\n",
            'Completion with Tab, in bash: eval "$(python -m hypergrad --completion)"',
            "Exit codes: 0 done, 1 an error, 2 an unknown option, 130 Ctrl-C, 143 SIGTERM.",
            "\nWhat follows is from Hydra, which composes the config: its groups, and each key with its value.\n",
        ])


RUN = CommandHelp(
    name="run",
    summary="Tunes hyperparameters with hypergradients",
    usage="[-m] [resume=FOLDER] [GROUP=NAME …] [KEY=VALUE …]",
    options={
        **_OF_CONFIGS,
        "resume=FOLDER": "continue the run in a folder, with its own arguments",
        "-m": "one run for each combination of values, as in seed=0,1,2",
    },
    examples={
        "experiment=ridge": "an experiment that comes with the package",
        "experiment=ridge estimator=unrolled solver=momentum solver.lr=0.02": "another estimator and solver",
        "-m experiment=ridge seed=0,1,2": "three runs, and one table of them",
        "--config-dir conf experiment=mine": "your own experiment, in conf/experiment/mine.yaml",
        "resume=outputs/ridge/NAME": "go on with a run that was interrupted",
    },
)
CHECK = CommandHelp(
    name="check",
    summary="Compares the hypergradient of each estimator with retraining",
    usage="[GROUP=NAME …] [KEY=VALUE …]",
    options={"estimator=NAME": "this estimator alone (default: all of them)", **_OF_CONFIGS},
    examples={
        "experiment=ridge": "all estimators; exit code 1 if one disagrees",
        "experiment=ridge estimator=ift_neumann linsolve.num_terms=3": "one of them, with too few terms",
    },
)
BASELINE = CommandHelp(
    name="baseline",
    summary="Searches without gradients, and counts what it spends as a run does",
    usage="[method=NAME] [budget=AMOUNT] [GROUP=NAME …] [KEY=VALUE …]",
    options={
        "method=NAME": "tpe, random or grid (default: tpe)",
        "budget=AMOUNT": "trials, as in 100 (default), or 30s, 20000steps, 20000gradients,",
        "budget=FOLDER": "or the gradients that a run has spent",
        **_OF_CONFIGS,
    },
    examples={
        "experiment=ridge method=random budget=100": "a hundred trials",
        "experiment=digits budget=outputs/digits/NAME": "as many gradients as a run has spent",
    },
)
INFLUENCE = CommandHelp(
    name="influence",
    summary="Finds the train examples that matter most for the validation (dev) loss",
    usage="[method=NAME] [top=N] [each=true] [GROUP=NAME …] [KEY=VALUE …]",
    options={
        "method=NAME": "dense, cg, kfac, ekfac, arnoldi or unrolled (default: one solve at the optimum)",
        "top=N": "examples to print (default: 10)",
        "steps=N": "the most steps of training (default: 10000)",
        "each=true": "scores for each dev example, and not only for their mean; needs a method",
        "groups=target": "sums over the examples of each target",
        "groups=FILE.csv:COLUMN": "sums over groups that a file names, a line for each train example",
        "table=csv": "the format of the files, csv or parquet",
        "resume=FOLDER": "continue scoring in the folder of a run",
        **_OF_CONFIGS,
    },
    examples={
        "experiment=digits top=5": "at the optimum, for the mean dev loss",
        "experiment=digits method=ekfac each=true": "of a network, for each dev example",
    },
)
TABLE = CommandHelp(
    name="table",
    summary="Shows recorded runs in one table, and writes it as CSV",
    usage="FOLDER …",
    options={},
    examples={
        "outputs/ridge": "all runs below a folder, one row each",
        "multirun/ridge/NAME --over-seeds --csv runs.csv": "a sweep, one row for each setting",
    },
)
PLOT = CommandHelp(
    name="plot",
    summary="Draws recorded runs as PNG and SVG",
    usage="FOLDER …",
    options={},
    examples={
        "outputs/ridge outputs/ridge-tpe": "runs of two methods in the same figures",
        "multirun/ridge/NAME --out figures": "a sweep, with seeds as a mean and a band",
    },
)
COMMANDS = (RUN, CHECK, BASELINE, INFLUENCE, TABLE, PLOT)
