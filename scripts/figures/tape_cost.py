"""CPU time against memory of the tapes, measured: python -m scripts.figures prints the numbers too."""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from matplotlib.figure import Figure
from torch.nn.functional import cross_entropy

import hypergrad as hg
from benchmarks.peak import PeakBytes
from scripts.figures.style import BLUE, GREY, ORANGE, WIDTH

_TAPES = {
    "graph": hg.Graph(),
    "store": hg.Store(),
    "checkpoint": hg.Checkpoint(),
    "reversible": hg.Reversible(),
}


def draw(inner_steps: int = 200, rounds: int = 3) -> Figure:
    """One hypergradient of a small network on digits by each tape; each round measures all of them.

    Args:
        inner_steps: steps of training, ≥ 1.
        rounds: of which the median is shown, ≥ 1.
    """
    works = {name: _work(tape, inner_steps) for name, tape in _TAPES.items()}
    memory = {name: _peak(work) / 1e6 for name, work in works.items()}
    seconds = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            seconds[name].append(_timed(work))
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    axis = figure.subplots()
    for name in works:
        cost = statistics.median(seconds[name])
        sys.stdout.write(f"{name}: {memory[name]:.1f} MB, {cost:.2f} s\n")
        axis.plot(memory[name], cost, "o", color=ORANGE if name == "reversible" else BLUE, markersize=8)
        below = name == "reversible"
        axis.annotate(name, (memory[name], cost), (0, -17 if below else 8), textcoords="offset points", ha="center")
    axis.set_xscale("log")
    axis.set(xlabel="most memory during the hypergradient [MB]", ylabel="CPU time [s]")
    axis.set_ylim(0, 1.3 * max(map(statistics.median, seconds.values())))
    axis.margins(x=0.18)
    axis.grid(color=GREY, alpha=0.2)
    return figure


def _work(tape: hg.Tape, inner_steps: int) -> Callable[[], object]:
    """A hypergradient with respect to a penalty for each parameter tensor."""
    splits = hg.digits(seed=0)
    torch.manual_seed(0)
    problem = hg.Supervised(
        model=hg.perceptron(64, 10, hidden=(32,)),
        loss=cross_entropy,
        train=splits.train,
        dev=splits.dev,
        hyperparameters={"l2": hg.L2(init=1e-3)},
    )
    solver = hg.Momentum(lr=0.1, momentum=0.9)
    estimator = hg.Unrolled(solver=solver, inner_steps=inner_steps, tape=tape)
    hparams, params = problem.init_hparams(), problem.init_params()
    return lambda: estimator.estimate(problem, hparams, params)


def _peak(work: Callable[[], object]) -> int:
    with PeakBytes() as counter:
        work()
    return counter.peak


def _timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
