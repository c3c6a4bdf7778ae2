"""What an iteration of SOBA costs: by hand, through `SingleLoop` and `Trainer`, and beside JAX.

python -m benchmarks.single_loop [--problem quadratic|logistic] [--steps N] [--growth] [--peers PYTHON] [--rounds N]
    [--threads N]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from benchmarks.measure import Work, interleaved, ratios, timing_settings
from benchmarks.peer import Peer
from benchmarks.problem.bilevel_logistic import BilevelLogistic
from benchmarks.problem.bilevel_quadratic import BilevelQuadratic
from benchmarks.single_loop_by_hand import Problem, Steps, by_numpy, by_torch, start

LR = 0.03
BY_HAND, COMPILED = "by hand, torch", "Trainer, record_every=1000, compiled"
PROBLEMS: dict[str, Callable[[], Problem]] = {
    "quadratic": BilevelQuadratic,
    "logistic": partial(BilevelLogistic, num_train=781 * 64, num_dev=1432 * 64),
}
_console = Console(width=110, highlight=False)


def u_of(problem: Problem, hparams: hg.Tensors) -> torch.Tensor:
    """λ as the loops by hand move it."""
    ((name, h),) = problem.hyperparameters().items()
    return h.to_unconstrained(hparams[name])


def by_estimator(problem: Problem, steps: int) -> torch.Tensor:
    """u after steps of an estimator without a trainer."""
    estimator = hg.SingleLoop(method=hg.SOBA(solver=hg.GradientDescent(lr=LR)))
    ((name, h),) = problem.hyperparameters().items()
    params, carry, u = problem.init_params(), None, u_of(problem, problem.init_hparams())
    for t in range(steps):
        hparams = {name: h.to_natural(u)}
        found = estimator.estimate(problem, hparams, params, outer_step=t, inner_step=t, carry=carry)
        params, carry, grad = found.params, found.carry, found.grad[name]
        u = u - LR * (hparams[name] * grad if isinstance(problem, BilevelLogistic) else grad)
    return u


def by_trainer(problem: Problem, steps: int, compile: bool = False, **settings: object) -> torch.Tensor:
    """u after steps of a trainer."""
    trainer = hg.Trainer(
        problem=problem,
        estimator=hg.SingleLoop(method=hg.SOBA(solver=hg.GradientDescent(lr=LR)), compile=compile),
        optimizer=partial(torch.optim.SGD, lr=LR),
        outer_steps=steps,
        **settings,  # pyright: ignore[reportArgumentType]
    )
    return u_of(problem, trainer.fit().last.hparams)


def works(problem: Problem, steps: int) -> dict[str, Work]:
    """The rows of this process."""
    plain = Steps(steps, LR, LR)
    return {
        BY_HAND: lambda: torch.from_numpy(by_torch(problem, plain)),
        "by hand, numpy": lambda: torch.from_numpy(by_numpy(problem, plain)),
        "SingleLoop": lambda: by_estimator(problem, steps),
        "Trainer": lambda: by_trainer(problem, steps),
        "Trainer, record_every=1000": lambda: by_trainer(problem, steps, record_every=1000),
        COMPILED: lambda: by_trainer(problem, steps, compile=True, record_every=1000),
    }


def save(problem: Problem, steps: int, folder: Path) -> Path:
    """The arrays of a problem for a peer, with the batches of its steps."""
    w, _, u = start(problem)
    arrays: dict[str, Any] = {name: getattr(problem, name).numpy() for name in ("X", "Y", "X_dev", "Y_dev")}
    batches = [(problem.inner_partition.index(t), problem.outer_partition.index(t)) for t in range(steps)]
    arrays |= {"batches": np.array(batches), "batch_size": np.array(problem.inner_partition.batch_size)}
    np.savez(folder / "arrays.npz", w=w, u=u, logistic=np.array(isinstance(problem, BilevelLogistic)), **arrays)
    return folder / "arrays.npz"


def counts(problem: Problem, work: Callable[[int], object]) -> dict[str, float]:
    """What an iteration evaluates, from the difference between 30 and 20 steps: losses, and backward passes."""

    def spent(steps: int) -> list[int]:
        with ExitStack() as stack:
            watched = [(problem, "inner_loss"), (problem, "outer_loss"), (torch.autograd, "grad")]
            mocks = [
                stack.enter_context(patch.object(owner, name, wraps=getattr(owner, name))) for owner, name in watched
            ]
            work(steps)
            return [mock.call_count for mock in mocks]

    names = ("inner losses", "outer losses", "backward passes")
    return {name: (b - a) / 10 for name, a, b in zip(names, spent(20), spent(30), strict=True)}


def compare(title: str, rows: Mapping[str, Work | Peer], steps: int, rounds: int) -> dict[str, float]:
    """Print the time of an iteration of each row, after a check that all end at the same u.

    Returns:
        The ratios to the loop by hand.

    Raises:
        RuntimeError: if two end more than 1e-8 apart.
    """
    found: dict[str, torch.Tensor] = {}

    def seconds(name: str, row: Work | Peer) -> float:
        if isinstance(row, Peer):
            outcome = row.ask(name, budget=steps, scale=LR, calls=1)
            found[name] = outcome.hypergradient
            return outcome.seconds / steps
        begin = time.process_time()
        found[name] = row()
        return (time.process_time() - begin) / steps

    times = interleaved({name: partial(seconds, name, row) for name, row in rows.items()}, repeats=rounds)
    table = Table("", "× reference", "quartiles apart", "ms an iteration", title=title, title_justify="left")
    shown = {}
    for name in rows:
        error = (found[name] - found[BY_HAND]).norm().item() / found[BY_HAND].norm().item()
        if not error <= 1e-8:
            raise RuntimeError(f"{title}: {name} is off by {error:.1e}.")
        shown[name], spread = ratios(times[name], times[BY_HAND])
        table.add_row(name, f"{shown[name]:.2f}", f"{spread:.2f}", f"{1e3 * statistics.median(times[name]):.3f}")
    _console.print(table)
    return shown


def growth(problem: Problem, rounds: int, steps: tuple[int, int] = (1000, 4000), *, record_every: int = 1) -> float:
    """The mean time of an iteration in a long run over that in a short one, by the median of the rounds."""

    def seconds(count: int) -> float:
        begin = time.process_time()
        by_trainer(problem, count, record_every=record_every)
        return (time.process_time() - begin) / count

    short, long = (str(count) for count in steps)
    times = interleaved({str(count): partial(seconds, count) for count in steps}, repeats=rounds)
    return ratios(times[long], times[short])[0]


def run(letter: str, given: argparse.Namespace) -> None:
    """The table of one problem."""
    problem = PROBLEMS[letter]()
    with ExitStack() as stack:
        rows: dict[str, Work | Peer] = dict(works(problem, given.steps))
        if given.peers:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            peer = stack.enter_context(
                Peer(given.peers, "benchmarks.peers.single_loop_jax", save(problem, given.steps, folder))
            )
            _console.print(peer.note)
            rows |= dict.fromkeys(peer.contestants, peer)
        compare(f"{letter}, SOBA, batches of 64, {given.steps} iterations", rows, given.steps, given.rounds)
    for name, work in (("SingleLoop", by_estimator), ("Trainer", by_trainer)):
        _console.print(name, "an iteration:", counts(problem, partial(work, problem)))
    for every in (1, 1000) if given.growth else ():
        ratio = growth(problem, given.rounds, record_every=every)
        _console.print(f"Trainer, record_every={every}: 4000 steps take {ratio:.3f} of the time of 1000, per step")


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.single_loop", description="What an iteration of a single-loop method costs."
    )
    parser.add_argument("--problem", choices=PROBLEMS, help="one of the problems only")
    parser.add_argument("--steps", type=int, default=1000, help="iterations of a timed run")
    parser.add_argument("--growth", action="store_true", help="compare runs of 4000 and of 1000 steps too")
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter of an environment made by scripts/peers-env")
    given = timing_settings(parser, rounds=7)
    for letter in [given.problem] if given.problem else PROBLEMS:
        run(letter, given)


if __name__ == "__main__":
    main()
