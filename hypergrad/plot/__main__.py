"""The command line: `python -m hypergrad.plot outputs/ridge/… [more runs] [--out plots]`."""

import argparse
import sys
from pathlib import Path

from hypergrad.cli.command_help import PLOT
from hypergrad.cli.output import quiet_end
from hypergrad.core.errors import message
from hypergrad.table.read import found_runs
from hypergrad.table.recorded_run import FINISHED, RecordedRun
from hypergrad.table.settings import settings_of


@quiet_end()
def main(arguments: list[str] | None = None) -> None:
    """Draw every figure of the runs as PNG and SVG.

    Also raised, by what it calls: SystemExit with what went wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m hypergrad.plot",
        description=f"{PLOT.summary}.",
        epilog=PLOT.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, help="folders of runs, or folders that hold runs, such as a sweep"
    )
    parser.add_argument("--out", type=Path, default=Path("plots"), help="the folder for the figures (default: plots)")
    chosen = parser.parse_args(arguments)
    try:
        from hypergrad.plot.figures import FIGURES
        from hypergrad.plot.panel import publication
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}. The figures need matplotlib: pip install 'torch-hypergrad[plot]'.")
    try:
        runs = _with_steps(found_runs(chosen.runs))
        chosen.out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {message(error)}")
    settings = settings_of(runs)
    with publication():
        for name, draw in FIGURES.items():
            figure = draw(settings)
            for ending in ("png", "svg"):
                path = chosen.out / f"{name}.{ending}"
                figure.savefig(path, dpi=200)
                print(path)


def _with_steps(runs: list[RecordedRun]) -> list[RecordedRun]:
    """The runs that have a step to draw; the others are named on standard error.

    Raises:
        ValueError: if there is none.
    """
    for run in runs:
        if not run.rows:
            why = run.summary.get("error") or "it holds no step yet"
            print(f"left out: {run.folder} ({run.status}): {why}", file=sys.stderr)
        elif run.status != FINISHED:
            print(f"drawn as far as it came: {run.folder} ({run.status})", file=sys.stderr)
    drawn = [run for run in runs if run.rows]
    if not drawn:
        raise ValueError(
            "None of these runs holds a step to draw; wait for the first one, or name others. `python -m "
            "hypergrad.table` shows what became of them."
        )
    return drawn


if __name__ == "__main__":
    main()
