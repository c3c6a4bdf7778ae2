"""Time and products to an error of the implicit hypergradient, against loops by hand and against peers.

python -m benchmarks.implicit [--problem a|b|c] [--goal E] [--peers PYTHON] [--only WORD…] [--rounds N] [--threads N]
"""

import argparse
import math
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.by_hand import closed_form, retained_graph
from benchmarks.case import PROBLEMS, Case
from benchmarks.contestants import BY_PRODUCT, REFERENCE, inverse_curvature, local
from benchmarks.exact import Exact
from benchmarks.layered import layered
from benchmarks.measure import THREADS, clocked, interleaved, limit_threads, ratios
from benchmarks.peer import WORKERS, Peer, Remote
from benchmarks.race import Entry, Race
from hypergrad.problem.oracle import Oracle

GOALS = (1e-2, 1e-4, 1e-6)
MOST = {"a": 2000, "b": 300, "c": 300}
"""Largest K to try: a series that needs more has lost, and would take minutes to time."""
_TURN_SECONDS = 0.1
_console = Console(width=110, highlight=False)


def table(goal: float, entries: dict[str, Entry], rounds: int) -> Table:
    """Time the contestants that reach the goal alternately, and show all.

    Raises:
        RuntimeError: if the reference does not reach it.
    """
    if entries[REFERENCE].budget is None:
        raise RuntimeError(f"Nothing can be compared at an error of {goal:.0e}, which {REFERENCE} does not reach.")
    times = interleaved({name: e.clocked() for name, e in entries.items() if e.budget is not None}, repeats=rounds)
    shown = Table(f"to error {goal:.0e}", "× reference", "quartiles apart", "ms", "products", "error reached")
    for name, entry in entries.items():
        trial = entry.trial
        if entry.budget is None:
            shown.add_row(name, "", "", "not reached", str(trial.products), f"{trial.error:.1e}")
            continue
        ratio, spread = ratios(times[name], times[REFERENCE])
        milliseconds = f"{1e3 * statistics.median(times[name]):.1f}"
        shown.add_row(name, f"{ratio:.2f}", f"{spread:.2f}", milliseconds, str(trial.products), f"{trial.error:.1e}")
    return shown


def product_table(case: Case, rounds: int) -> Table:
    """The time of one Hessian product, next to that on a retained graph by hand."""
    b, by_hand, _ = retained_graph(case)
    products = {REFERENCE: partial(by_hand, b), "by hand, closed form": partial(closed_form(case)[1], b)}
    for name, product in BY_PRODUCT.items():
        operator = product.linearize(Oracle(case.problem, case.hparams), case.params).product
        if operator.approximate is not None:
            near = operator.approximate()
            products[name] = partial(near, b.to(near.dtype))
        else:
            products[name] = partial(operator, b)
    seconds = clocked(lambda: by_hand(b), 3)()
    calls = max(1, math.ceil(_TURN_SECONDS / seconds))
    times = interleaved({name: clocked(p, calls) for name, p in products.items()}, repeats=rounds)
    shown = Table("one product", "× reference", "quartiles apart", "ms")
    for name in products:
        ratio, spread = ratios(times[name], times[REFERENCE])
        shown.add_row(name, f"{ratio:.3f}", f"{spread:.3f}", f"{1e3 * statistics.median(times[name]):.3f}")
    return shown


def run(letter: str, python: str | None, rounds: int, goals: Sequence[float], only: Sequence[str]) -> None:
    """The tables of one problem, with the reference and all contestants with one of the words `only` in the name."""
    title, make = PROBLEMS[letter]
    case = Case.of(make())
    exact = Exact.of(case)
    _console.print(
        f"\n({letter}) {title}: ‖∇g‖ = {case.inner_gradient:.1e}, damping {case.damping:g}. Exact hypergradient: "
        f"residual {exact.residual:.1e}, two ways {exact.disagreement:.1e} apart."
    )
    scale = inverse_curvature(case)
    with ExitStack() as peers:
        contestants = local(case, scale) | (layered(case) if letter == "c" else {})
        for worker in WORKERS if python else ():
            peer = peers.enter_context(Peer(str(python), worker, case.path))
            _console.print(peer.note)
            contestants |= {name: Remote(peer, name, scale) for name in peer.contestants}
        _console.print(product_table(case, 3 * rounds))
        chosen = {n: c for n, c in contestants.items() if n == REFERENCE or any(word in n for word in only)}
        race = Race(chosen, exact, MOST[letter])
        for goal in goals:
            _console.print(table(goal, race.to(goal), rounds))


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.implicit", description="Time and products to an error of the implicit hypergradient."
    )
    parser.add_argument("--problem", choices=PROBLEMS, help="one of the problems only")
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter of an environment made by scripts/peers-env")
    parser.add_argument("--goal", type=float, choices=GOALS, help="one of the errors only")
    parser.add_argument("--only", metavar="WORD", nargs="+", default=[""], help="contestants with a word in the name")
    parser.add_argument("--rounds", type=int, default=7, help="timed turns of each contestant, at least 7")
    parser.add_argument("--threads", type=int, default=THREADS, help="of each contestant; 1 on a busy machine")
    given = parser.parse_args()
    if given.rounds < 7:
        parser.error(f"--rounds must be at least 7, but it is {given.rounds}.")
    if given.threads < 1:
        parser.error(f"--threads must be at least 1, but it is {given.threads}.")
    limit_threads(given.threads)
    torch.set_default_dtype(torch.float64)
    for letter in [given.problem] if given.problem else PROBLEMS:
        run(letter, given.peers, given.rounds, GOALS if given.goal is None else (given.goal,), given.only)


if __name__ == "__main__":
    main()
