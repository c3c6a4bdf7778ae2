"""All-reduces on this machine, and the cost and gain of `DataParallel`: on gloo processes with one thread each.

python -m benchmarks.distributed reduce [--ranks 1 2 4] [--rounds N]
python -m benchmarks.distributed parallel [--ranks 1 2] [--rounds N] [--products K]
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from benchmarks.case import PROBLEMS, Case
from benchmarks.launch import launch, served
from benchmarks.link import Link
from benchmarks.measure import interleaved, ratios

SIZES = (1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000)
"""Numbers in an all-reduce, float64."""
_TURN_SECONDS, _MOST_CALLS = 0.02, 50
_console = Console(width=110, highlight=False)


def reduce_seconds(rounds: int) -> dict[str, list[float]]:
    """In a group of processes: the least seconds of an all-reduce over the rounds, by its size.

    The least, because processes that wait for each other lose milliseconds whenever one of them is not running.
    """
    least = []
    for size in SIZES:
        x = torch.ones(size, dtype=torch.float64)
        once = _together(lambda x=x: dist.all_reduce(x))
        calls = torch.tensor([min(_MOST_CALLS, max(1, _TURN_SECONDS / once))])
        dist.all_reduce(calls, op=dist.ReduceOp.MIN)
        many = partial(_together, lambda x=x: dist.all_reduce(x), calls=int(calls.item()))
        least.append(min(many() for _ in range(rounds)))
    return {"numbers": list(SIZES), "seconds": least}


def parallel_seconds(rounds: int, products: int) -> dict[str, list[float]]:
    """In a group of processes: the seconds of one implicit hypergradient of problem (c), by who computes it.

    "alone" is one process without `DataParallel` while the others wait, "wrapped" is all of them with it. Both have the
    same number of products, and their results must agree.

    Raises:
        RuntimeError: if they do not agree.
    """
    torch.set_default_dtype(torch.float64)
    if dist.get_rank() > 0:
        dist.barrier()
    case = Case.of(PROBLEMS["c"][1]())  # kept on disk by the first rank
    if dist.get_rank() == 0:
        dist.barrier()
    linsolve = hg.CG(max_iter=products, tol=0.0)
    estimator = hg.Implicit(linsolve=linsolve, inner_steps=0, damping=case.damping, error_bar=False)
    problems = {"alone": case.problem, "wrapped": hg.DataParallel(case.problem)}
    found = {name: estimator.estimate(p, case.hparams, case.params) for name, p in problems.items()}
    one, other = (torch.cat([x.reshape(-1) for x in found[name].grad.values()]) for name in problems)
    if not (one - other).norm() <= 1e-8 * one.norm():
        raise RuntimeError(
            f"DataParallel is {(one - other).norm() / one.norm():.1e} off the hypergradient of one rank."
        )

    def alone() -> None:
        if dist.get_rank() == 0:
            estimator.estimate(case.problem, case.hparams, case.params)

    def wrapped() -> None:
        estimator.estimate(problems["wrapped"], case.hparams, case.params)

    return interleaved({"alone": partial(_together, alone), "wrapped": partial(_together, wrapped)}, repeats=rounds)


def _together(work: Callable[[], Any], calls: int = 1) -> float:
    """Seconds of a call, from when all ranks begin until all have ended."""
    dist.barrier()
    begin = time.perf_counter()
    for _ in range(calls):
        work()
    dist.barrier()
    return (time.perf_counter() - begin) / calls


TASKS: dict[str, Callable[..., dict[str, list[float]]]] = {"reduce": reduce_seconds, "parallel": parallel_seconds}


def reduce_table(ranks: Sequence[int], rounds: int) -> tuple[Table, Table]:
    """The times, and the line through them, for each number of ranks."""
    shown = Table("numbers", *(f"P = {p}: µs" for p in ranks))
    found = {p: launch("benchmarks.distributed", p, "reduce", rounds) for p in ranks}
    for k, size in enumerate(SIZES):
        shown.add_row(f"{size:,}", *(f"{1e6 * found[p]['seconds'][k]:.1f}" for p in ranks))
    measured = {p: ([8 * n for n in SIZES], found[p]["seconds"]) for p in ranks if p > 1}
    groups = [*({p: times} for p, times in measured.items()), measured]
    fits = Table("fit to P =", "latency, µs", "bandwidth of 2 (P − 1)/P of the bytes, GB/s", "largest error")
    for group in groups:
        link = Link.fitted(group)
        latencies = ", ".join(f"{1e6 * link.all_reduce(0, p):.0f}" for p in group)
        bandwidth = f"{link.ways[0].bandwidth / 1e9:.2f}"
        fits.add_row(", ".join(map(str, group)), latencies, bandwidth, f"{largest_error(link, group):.0%}")
    return shown, fits


def largest_error(link: Link, measured: Mapping[int, tuple[Sequence[float], Sequence[float]]]) -> float:
    """Of the model, relative to what was measured, see `Link.fitted`."""
    return max(
        abs(link.all_reduce(num_bytes, p) / spent - 1)
        for p, times in measured.items()
        for num_bytes, spent in zip(*times, strict=True)
    )


def parallel_table(ranks: Sequence[int], rounds: int, products: int) -> Table:
    """The time of P processes over that of one without `DataParallel`."""
    shown = Table("P", "× one process", "quartiles apart", "ms", "one process, ms")
    for p in ranks:
        times = launch("benchmarks.distributed", p, "parallel", rounds, products)
        ratio, spread = ratios(times["wrapped"], times["alone"])
        seconds = (1e3 * statistics.median(times[name]) for name in ("wrapped", "alone"))
        shown.add_row(str(p), f"{ratio:.3f}", f"{spread:.3f}", *(f"{s:.1f}" for s in seconds))
    return shown


def main() -> None:
    """Print the tables that were asked for; in a process that `launch` started, measure."""
    if served(TASKS):
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed", description="All-reduces on gloo.")
    parser.add_argument("table", choices=TASKS)
    parser.add_argument("--ranks", type=int, nargs="+", help="numbers of processes; 1 2 3 4 and 1 2 by default")
    parser.add_argument("--rounds", type=int, default=7, help="timed turns, at least 7")
    parser.add_argument("--products", type=int, default=20, help="Hessian products of a hypergradient")
    given = parser.parse_args()
    if given.rounds < 7:
        parser.error(f"--rounds must be at least 7, but it is {given.rounds}.")
    if given.table == "reduce":
        _console.print(*reduce_table(given.ranks or (1, 2, 3, 4), given.rounds))
    else:
        _console.print(parallel_table(given.ranks or (1, 2), given.rounds, given.products))


if __name__ == "__main__":
    main()
