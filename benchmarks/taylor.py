"""Derivatives of an optimum of orders 1 to 4 along one direction, next to what others make of them.

python -m benchmarks.taylor [--peers PYTHON] [--rounds N] [--threads N] [--cpu] [--no-compile]
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.expansion import ORDERS, Problem, Work
from benchmarks.measure import THREADS, limit_threads

_TURN_SECONDS = 0.02
_SLOW = 0.05


class Peers:
    """A process that has the other libraries."""

    def __init__(self, python: str, data: dict[str, Tensor], folder: str, clock: str) -> None:
        path = f"{folder}/data.npz"
        np.savez(path, **{name: value.numpy() for name, value in data.items()})  # type: ignore[arg-type]
        self.result = f"{folder}/result.npy"
        worker = Path(__file__).parent / "peers" / "with_vittles.py"
        self.process = subprocess.Popen(
            [python, str(worker), path, clock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.hello = self._heard()
        self.orders: dict[str, list[int]] = self.hello["contestants"]
        self.compiling: dict[str, float] = self.hello["compiling"]

    def run(self, name: str, order: int, calls: int) -> tuple[float, Tensor]:
        """Seconds a call, and the derivative; of the construction for order 0."""
        request = {"contestant": name, "order": order, "calls": calls, "result": self.result}
        assert self.process.stdin is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        seconds = self._heard()["seconds"]
        return seconds, torch.from_numpy(np.load(self.result)) if order else torch.zeros(())

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _heard(self) -> dict:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("The process of the peers ended; its message is above.")
        return json.loads(line)


class Race:
    """All contestants on one problem, timed alternately."""

    def __init__(self, problem: Problem, peers: Peers | None, *, compile: bool, clock: str) -> None:
        self.problem, self.peers, self.builders = problem, peers, problem.contestants()
        self.clock: Callable[[], float] = getattr(time, clock)
        self.works: dict[str, Work] = {name: build() for name, build in self.builders.items()}
        self.works["nested jvp of argmin"] = problem.nested()
        self.once: dict[str, float] = dict(peers.compiling) if peers else {}
        if compile:
            self.works["hypergrad, compiled"], self.once["hypergrad, compiled"] = problem.compiled()
        self.orders = {name: list(ORDERS) for name in self.works} | (peers.orders if peers else {})

    def turn(self, name: str, order: int, calls: int) -> tuple[float, Tensor]:
        """Seconds of a call, the mean of several, and the derivative; of the construction for order 0."""
        if name not in self.works:
            assert self.peers is not None
            return self.peers.run(name, order, calls)
        work = self.works[name] if order else lambda _: self.builders[name]()
        begin = self.clock()
        for _ in range(calls - 1):
            work(order)
        found = work(order)
        seconds = (self.clock() - begin) / calls
        return seconds, found if isinstance(found, Tensor) else torch.zeros(())

    def require_agreement(self) -> None:
        """Require that all derivatives agree.

        Raises:
            RuntimeError: if one differs by more than 1e-8.
        """
        for order in ORDERS:
            truth = self.turn("hypergrad, eager", order, 1)[1]
            for name, orders in self.orders.items():
                if order in orders:
                    error = ((self.turn(name, order, 1)[1] - truth).norm() / truth.norm()).item()
                    if not error <= 1e-8:
                        raise RuntimeError(f"{name} is off by {error:.1e} at order {order}.")

    def times(self, rounds: int) -> dict[tuple[str, int], float]:
        """The median seconds by contestant and order, 0 for the construction."""
        constructed = [*self.builders, *(name for name in self.orders if name not in {**self.works, **self.once})]
        entries = [(name, 0) for name in constructed]
        entries += [(name, order) for order in ORDERS for name, orders in self.orders.items() if order in orders]
        first = {entry: self.turn(*entry, 1)[0] for entry in entries}
        calls = {entry: max(1, min(50, round(_TURN_SECONDS / seconds))) for entry, seconds in first.items()}
        found: dict[tuple[str, int], list[float]] = {entry: [] for entry in entries}
        for turn in range(rounds):
            for entry in entries[:: 1 if turn % 2 == 0 else -1]:
                if first[entry] < _SLOW or turn < 5:
                    found[entry].append(self.turn(*entry, calls[entry])[0])
        return {entry: statistics.median(seconds) for entry, seconds in found.items()}


def table(title: str, race: Race, rounds: int) -> Table:
    """The table of one problem: milliseconds, and seconds for what is compiled once."""
    race.require_agreement()
    times = race.times(rounds)
    made = Table("", *(f"order {k}, ms" for k in ORDERS), "construction, ms", title=title, title_justify="left")
    for name in race.orders:
        cells = [f"{1e3 * times[name, k]:.3g}" if (name, k) in times else "" for k in ORDERS]
        built = f"{1e3 * times[name, 0]:.3g}" if (name, 0) in times else ""
        made.add_row(name, *cells, f"compiles, {race.once[name]:.0f} s" if name in race.once else built)
    return made


def main() -> None:
    """Print one table per problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter that has vittles and jax")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--cpu", action="store_true", help="CPU time, with one thread, for a machine that others use")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled expansion")
    options = parser.parse_args()
    limit_threads(1 if options.cpu else options.threads)
    clock = "process_time" if options.cpu else "perf_counter"
    torch.set_default_dtype(torch.float64)
    problems = {
        "the seed's problem": Problem.seed(),
        "logistic regression, n = 500, p = 20": Problem.logistic(500, 20),
        "logistic regression, n = 2000, p = 100": Problem.logistic(2000, 100),
    }
    for title, problem in problems.items():
        with tempfile.TemporaryDirectory() as folder:
            peers = Peers(options.peers, problem.data, folder, clock) if options.peers else None
            race = Race(problem, peers, compile=not options.no_compile, clock=clock)
            Console(width=120).print(table(title, race, options.rounds))
            if peers:
                peers.close()


if __name__ == "__main__":
    main()
