"""What the error bar costs: a hypergradient with it next to one without, on digits with a fixed number of products.

python -m benchmarks.error_bar [--products K …] [--rounds N] [--threads N]
"""

import argparse
import statistics

import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from benchmarks.case import PROBLEMS, Case
from benchmarks.exact import Exact
from benchmarks.measure import clocked, interleaved, ratios, timing_settings
from hypergrad.core.autodiff import flatten


def run(products: list[int], rounds: int) -> Table:
    """The table.

    Raises:
        RuntimeError: if a bar does not cover the error, or is more than ten times as long.
    """
    title, make = PROBLEMS["a"]
    case = Case.of(make())
    exact = Exact.of(case).value
    shown = Table(
        "products of CG", "× without", "quartiles apart", "ms", "products of the bar", "bar / error", title=title
    )
    for most in products:
        linsolve = hg.CG(max_iter=most, tol=0.0)
        with_bar, without = (hg.Implicit(inner_steps=0, linsolve=linsolve, error_bar=bar) for bar in (True, False))
        found = with_bar.estimate(case.problem, case.hparams, case.params)
        error = (flatten(found.grad) - exact).norm().item()
        ratio = float(found.stats["error_estimate"]) / error
        if not 1 <= ratio <= 10:
            raise RuntimeError(f"With {most} products the bar is {ratio:.2g} times the error, which is {error:.1e}.")
        calls = {
            name: clocked(lambda e=estimator: e.estimate(case.problem, case.hparams, case.params), 3)
            for name, estimator in (("with", with_bar), ("without", without))
        }
        times = interleaved(calls, repeats=rounds)
        times_as_long, spread = ratios(times["with"], times["without"])
        milliseconds = f"{1e3 * statistics.median(times['with']):.1f}"
        row = (str(most), f"{times_as_long:.2f}", f"{spread:.2f}", milliseconds)
        shown.add_row(*row, str(found.stats["error_matvecs"]), f"{ratio:.1f}")
    return shown


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.error_bar", description="What the error bar costs.")
    parser.add_argument("--products", type=int, nargs="+", default=[20, 40, 60], help="of CG, for the adjoint")
    given = timing_settings(parser, rounds=7)
    torch.set_default_dtype(torch.float64)
    Console(width=110, highlight=False).print(run(given.products, given.rounds))


if __name__ == "__main__":
    main()
