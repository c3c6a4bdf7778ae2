"""The numbers of README.md: python -m experiments.scaling.table [--rounds N], on a machine with nothing else to do."""

import argparse
import statistics

from benchmarks.distributed import SIZES, largest_error
from benchmarks.launch import launch
from benchmarks.link import Link
from experiments.numbers import load, save
from experiments.scaling.local_steps import Moves, run
from experiments.scaling.machine import EXAMPLES, Machine
from experiments.scaling.measure import ESTIMATORS, PARTS, network
from experiments.scaling.methods import METHODS, Piece, Sizes

_MODULE = "experiments.scaling.measure"
RANKS, SHOWN = [2**k for k in range(11)], (1, 8, 64, 1024)
LOCALS, APARTS, NOISES = (1, 2, 4, 8, 16, 32, 64), (0.1, 0.3, 1.0), (0.0, 0.003, 0.01)
_CORES = 2


def planned(name: str) -> list[Piece]:
    """The pieces of a method on the network that is measured, from its plan: passes by operations, sums by counts."""
    problem, estimator = network(), ESTIMATORS[name]
    alone, shared = (estimator.plan(problem, world=world).parts for world in (1, 4))
    gradient = ESTIMATORS["CG"].plan(problem, world=1).parts[0].each.flops
    pairs = [(part.each, other.each, other.times) for part, other in zip(alone, shared, strict=True)]
    return [
        Piece(times, one.flops / gradient, (each.numbers / max(each.all_reduces, 1),) * each.all_reduces)
        for one, each, times in pairs
    ]


def measured(rounds: int) -> dict:
    """The constants of this machine, and the times that they should predict."""
    reductions = {p: ([8 * n for n in SIZES], launch(_MODULE, p, "reduce", rounds)["seconds"]) for p in (2, 4)}
    times = {
        p: {name: min(seconds) for name, seconds in launch(_MODULE, p, "methods", rounds).items()} for p in (1, 2, 4)
    }
    whole, part = times[1]["whole"], times[1]["part"]
    floor = max(0.0, (PARTS * part - whole) / (PARTS - 1))
    link = Link.fitted(reductions)
    machine = Machine(whole, floor, link, itemsize=8, cores=_CORES)
    rows = []
    for p, found in times.items():
        for name in ESTIMATORS:
            computed, sent = machine.seconds(planned(name), p)
            row = {"method": name, "ranks": p, "seconds": found[name], "cpu": found[f"{name}, CPU"]}
            rows.append(row | {"computed": computed, "sent": sent, "alone": computed / max(1.0, p / _CORES)})
    (way,) = link.ways
    return {
        "link": {"base": way.base, "hop": way.hop, "bandwidth": way.bandwidth, "off": largest_error(link, reductions)},
        "reductions": {str(p): list(times) for p, times in reductions.items()},
        "gradient": machine.gradient,
        "floor": floor,
        "times": rows,
    }


def predicted(machine: Machine, sizes: Sizes) -> dict[str, list[list[float]]]:
    """Seconds of computing and sending for each method and number of ranks."""
    return {name: [list(machine.seconds(method(sizes), p)) for p in RANKS] for name, method in METHODS.items()}


def local_steps() -> list[dict[str, float]]:
    """Where averages of several local moves end, how fast, and how far noise keeps them from there."""
    rows = []
    for apart in APARTS:
        for lr in (0.1, 0.02):
            moves = Moves.drawn(apart, lr, lr / 20)
            for k in LOCALS:
                row = {
                    "apart": apart,
                    "lr": lr,
                    "local": k,
                    "bias": moves.gap(moves.fixed_point(k)),
                    "rate": moves.rate(k),
                }
                if lr == 0.1:
                    gaps = run(moves, k, max(6400 // k, 60), noise=0.01)
                    row["noisy"] = statistics.mean(gaps[len(gaps) // 2 :])
                rows.append(row)
    return rows


def show(here: dict, examples: dict[str, dict[str, list[list[float]]]]) -> None:
    """Print the measurements beside the model, and the model of the examples."""
    for row in here["times"]:
        model = row["computed"] + row["sent"]
        wall = f"{1e3 * row['seconds']:.1f} ms, model {1e3 * model:.1f}, {model / row['seconds'] - 1:+.0%}"
        cpu = f"{1e3 * row['cpu']:.1f}, model {1e3 * row['alone']:.1f}, {row['alone'] / row['cpu'] - 1:+.0%}"
        print(f"{row['method']:<20} P = {row['ranks']}: {wall}; CPU of a rank {cpu}")
    for title, methods in examples.items():
        print(f"\n{title}: seconds, of which sent, on {', '.join(map(str, SHOWN))} ranks")
        for name, pairs in methods.items():
            cells = (f"{sum(pairs[RANKS.index(p)]):.3g} ({pairs[RANKS.index(p)][1]:.2g})" for p in SHOWN)
            print(f"{name:<30} " + "  ".join(f"{cell:>18}" for cell in cells))


def main() -> None:
    """Measure, simulate, print and save."""
    parser = argparse.ArgumentParser(prog="python -m experiments.scaling.table")
    parser.add_argument("--rounds", type=int, default=15, help="of each measurement")
    parser.add_argument("--simulate", action="store_true", help="with the measurements that numbers.json has")
    given = parser.parse_args()
    here = load("scaling")["here"] if given.simulate else measured(given.rounds)
    examples = {title: predicted(*made) for title, made in EXAMPLES.items()}
    show(here, examples)
    save("scaling", {"here": here, "ranks": RANKS, "examples": examples, "local_steps": local_steps()})


if __name__ == "__main__":
    main()
