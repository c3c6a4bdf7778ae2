"""The numbers of README.md: python -m experiments.scaling.table [--rounds N], on a machine with nothing else to do."""

import argparse
import statistics

from benchmarks.distributed import SIZES, largest_error
from benchmarks.launch import launch
from benchmarks.link import Link
from experiments.numbers import save
from experiments.scaling.local_steps import Moves, run
from experiments.scaling.machine import GPT_PARAMETERS, H100, Machine
from experiments.scaling.measure import ESTIMATORS, PARTS, PRODUCTS, STEPS, WIDTH
from experiments.scaling.methods import METHODS, Sizes

_MODULE = "experiments.scaling.measure"
RANKS = [2**k for k in range(11)]
HERE = Sizes(n=64 * WIDTH + WIDTH + 10 * WIDTH + 10, p=4, steps=STEPS, products=PRODUCTS)
GPT = Sizes(n=GPT_PARAMETERS, p=10**6)
LOCALS, APARTS, NOISES = (1, 2, 4, 8, 16, 32, 64), (0.1, 0.3, 1.0), (0.0, 0.003, 0.01)
_CORES = 2


def measured(rounds: int) -> dict[str, object]:
    """The constants of this machine, and the times that they should predict."""
    reductions = {p: ([8 * n for n in SIZES], launch(_MODULE, p, "reduce", rounds)["seconds"]) for p in (2, 4)}
    gradient = {name: min(times) for name, times in launch(_MODULE, 1, "gradient", rounds).items()}
    floor = max(0.0, (PARTS * gradient["part"] - gradient["whole"]) / (PARTS - 1))
    link = Link.fitted(reductions)
    machine = Machine(gradient["whole"], floor, link, itemsize=8, cores=_CORES)
    rows = []
    for p in (1, 2, 4):
        times = {name: min(seconds) for name, seconds in launch(_MODULE, p, "methods", rounds).items()}
        for name in ESTIMATORS:
            computed, sent = machine.seconds(METHODS[name](HERE), p)
            row = {"method": name, "ranks": p, "seconds": times[name], "cpu": times[f"{name}, CPU"]}
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


def main() -> None:
    """Measure, simulate, print and save."""
    parser = argparse.ArgumentParser(prog="python -m experiments.scaling.table")
    parser.add_argument("--rounds", type=int, default=15)
    found = measured(parser.parse_args().rounds)
    assert isinstance(found["times"], list)
    for row in found["times"]:
        model = row["computed"] + row["sent"]
        wall = f"{1e3 * row['seconds']:.1f} ms, model {1e3 * model:.1f}, {model / row['seconds'] - 1:+.0%}"
        cpu = f"{1e3 * row['cpu']:.1f}, model {1e3 * row['alone']:.1f}, {row['alone'] / row['cpu'] - 1:+.0%}"
        print(f"{row['method']:<20} P = {row['ranks']}: {wall}; CPU of a rank {cpu}")
    numbers = {"here": found, "ranks": RANKS, "gpt": predicted(H100, GPT), "local_steps": local_steps()}
    save("scaling", numbers)


if __name__ == "__main__":
    main()
