"""The command line: `python -m hypergrad.plot outputs/ridge/… [more runs] [--out plots]`."""

import argparse
import sys
from pathlib import Path

from hypergrad.plot.history import read


def main(arguments: list[str] | None = None) -> None:
    """Draw every figure of the runs as PNG and SVG.

    Also raised, by what it calls: SystemExit with what went wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m hypergrad.plot", description="Draws runs as PNG and SVG.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, or folders that hold runs")
    parser.add_argument("--out", type=Path, default=Path("plots"), help="the folder for the figures (default: plots)")
    chosen = parser.parse_args(arguments)
    try:
        from hypergrad.plot.figures import FIGURES
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}. The figures need matplotlib: pip install 'torch-hypergrad[plot]'.")
    try:
        runs = read(chosen.runs)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        figure = draw(runs)
        for ending in ("png", "svg"):
            path = chosen.out / f"{name}.{ending}"
            figure.savefig(path, dpi=150)
            print(path)


if __name__ == "__main__":
    main()
