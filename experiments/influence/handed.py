"""What a peer is handed, in a file, and what it hands back; read in an environment without the rest of ours."""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.peers.memory import peak_megabytes
from experiments.influence.networks import NETWORKS


class Handed(NamedTuple):
    """A trained network and its data.

    Attributes:
        model: the network.
        train: X and y.
        dev: X and y.
        damping: δ that ours has on the diagonal of the curvature, with the penalty.
    """

    model: nn.Module
    train: tuple[Tensor, Tensor]
    dev: tuple[Tensor, Tensor]
    damping: float


def read(path: Path) -> Handed:
    """What `table.py` wrote: the name of the network, its parameters, the data, and δ."""
    found = torch.load(path)
    model = NETWORKS[found["name"]]()
    model.load_state_dict(found["params"])
    return Handed(model.eval(), found["train"], found["dev"], found["damping"])


def measured(score: Callable[[], Tensor]) -> dict[str, Any]:
    """Scores of dev examples (rows) and train examples (columns), CPU seconds and MB of memory beyond what was held."""

    def timed() -> tuple[Tensor, float]:
        begin = time.process_time()
        found = score()
        return found, time.process_time() - begin

    (scores, seconds), megabytes = peak_megabytes(timed)
    return {"scores": scores, "seconds": seconds, "megabytes": megabytes}


def reply(path: Path, name: str) -> Path:
    """Where the outcome of a method is, beside what was handed."""
    return path.with_suffix(f".{name.replace('/', ' over ')}.pt")


def keep(path: Path, name: str, score: Callable[[], Tensor]) -> None:
    """Measure a method and write the outcome beside what was handed, unless that is there."""
    kept = reply(path, name)
    if not kept.exists():
        found = measured(score)
        torch.save(found, kept)
        print(f"{path.stem}: {name}, {found['seconds']:.2f} s, {found['megabytes']:.0f} MB", flush=True)


def serve(methods: dict[str, Callable[[Handed], Tensor]]) -> None:
    """Score by each method for each file named on the command line.

    The first file is also scored before, because what is loaded at the first call is no time of the method.
    """
    torch.set_num_threads(1)
    paths = [Path(name) for name in sys.argv[1:]]
    for name, score in methods.items():
        score(read(paths[0]))
        for path in paths:
            torch.manual_seed(0)
            keep(path, name, partial(score, read(path)))
