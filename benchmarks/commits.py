"""Two checkouts of the library against each other, row by row, in alternation.

python -m benchmarks.commits OLD NEW [--table unrolled|implicit] [--rounds N] [--goal E]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

_TOLERANCE = 1e-6
"""Of the results, relative: sums in another order give other rounding."""


class Checkout:
    """A process that runs the rows of a table in a checkout, one at a time when it is asked.

    Args:
        folder: of the checkout.
        table: "unrolled" or "implicit", for problem (a).
        goal: the relative error of the rows of "implicit".
    """

    def __init__(self, folder: Path, table: str, goal: float) -> None:
        environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", __file__, "--serve", table, str(goal)],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.rows: list[str] = json.loads(self._line())

    def run(self, row: str) -> tuple[float, float]:
        """The seconds of one run of a row, and a number of its result: a norm, or the error against the exact one."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{row}\n")
        self.process.stdin.flush()
        seconds, result = json.loads(self._line())
        return seconds, result

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def serve(table: str, goal: float) -> None:
    """Name the rows on standard output, then the outcome of each row that standard input asks for."""
    import torch

    torch.set_num_threads(1)
    runs = _unrolled() if table == "unrolled" else _implicit(goal)
    for run in runs.values():
        run()  # what is compiled and allocated once does not count
    print(json.dumps(list(runs)), flush=True)
    for line in sys.stdin:
        print(json.dumps(runs[line.rstrip("\n")]()), flush=True)


def _unrolled() -> dict[str, Callable[[], tuple[float, float]]]:
    from benchmarks import unrolled

    def clocked(row: str) -> Callable[[], tuple[float, float]]:
        work = unrolled.make("a", row)

        def run() -> tuple[float, float]:
            begin = time.perf_counter()
            result = work()
            return time.perf_counter() - begin, result.norm().item()

        return run

    return {row: clocked(row) for row in unrolled.ROWS["a"]}


def _implicit(goal: float) -> dict[str, Callable[[], tuple[float, float]]]:
    import torch

    from benchmarks import implicit
    from benchmarks.case import PROBLEMS, Case
    from benchmarks.contestants import inverse_curvature, local

    torch.set_default_dtype(torch.float64)
    case = Case.of(PROBLEMS["a"][1]())
    race = implicit.Race(local(case, inverse_curvature(case)), implicit.Exact.of(case), implicit.MOST["a"])
    reached = {row: entry for row, entry in race.to(goal).items() if entry.budget is not None}
    return {row: partial(_timed, entry.clocked(), entry.trial.error) for row, entry in reached.items()}


def _timed(seconds: Callable[[], float], result: float) -> tuple[float, float]:
    return seconds(), result


def explain_difference(met: float, wanted: float, goal: float | None) -> str:
    """How the results of two checkouts differ, or "" if they agree.

    Args:
        met: of the new checkout, as by `Checkout.run`.
        wanted: of the old one.
        goal: errors of at most this agree, because checkouts may choose other algorithms; None if the results are
            norms, which have to be the same.
    """
    is_same = abs(met - wanted) <= _TOLERANCE * abs(wanted)
    if is_same or goal is not None and met <= goal and wanted <= goal:
        return ""
    above = "" if goal is None else f", which are not both at most {goal:g}"
    return f"gives {met!r} in the new checkout and {wanted!r} in the old one{above}"


def main() -> None:
    """Print the ratio of the times, new over old, for every row that both checkouts have."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commits", description=__doc__)
    parser.add_argument("old", type=Path, help="folder of a checkout")
    parser.add_argument("new", type=Path, help="folder of another one")
    parser.add_argument("--table", choices=("unrolled", "implicit"), default="unrolled")
    parser.add_argument("--rounds", type=int, default=9, help="timed turns of each row, at least 7")
    parser.add_argument("--goal", type=float, default=1e-4, help="relative error of the rows of implicit")
    given = parser.parse_args()
    if given.rounds < 7:
        parser.error(f"--rounds must be at least 7, but it is {given.rounds}.")
    old, new = (Checkout(folder.resolve(), given.table, given.goal) for folder in (given.old, given.new))
    rows = [row for row in old.rows if row in new.rows]
    times: dict[str, list[tuple[float, float]]] = {row: [] for row in rows}
    for turn in range(given.rounds):
        for row in rows:
            outcomes = {side: side.run(row) for side in ((old, new) if turn % 2 == 0 else (new, old))}
            (before, wanted), (after, met) = outcomes[old], outcomes[new]
            if difference := explain_difference(met, wanted, None if given.table == "unrolled" else given.goal):
                sys.exit(f"{row} {difference}.")
            times[row].append((before, after))
    shown = Table(f"{given.table} (a), 1 thread", "old, ms", "new / old")
    for row, pairs in times.items():
        seconds, ratio = statistics.median(a for a, _ in pairs), statistics.median(b / a for a, b in pairs)
        shown.add_row(row, f"{1e3 * seconds:.1f}", f"{ratio:.3f}")
    Console(width=110).print(shown)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], float(sys.argv[3]))
    else:
        main()
