"""What a peer is handed, in a file, and what it hands back; read in an environment without the rest of ours."""

import sys
import time
from collections.abc import Callable
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
    """

    model: nn.Module
    train: tuple[Tensor, Tensor]
    dev: tuple[Tensor, Tensor]


def hand(path: Path, name: str, model: dict[str, Tensor], train: tuple[Tensor, Tensor], dev: tuple[Tensor, Tensor]):
    """Write what a peer needs; `name` is that of the network and `model` its state."""
    torch.save({"name": name, "model": model, "train": tuple(train), "dev": tuple(dev)}, path)


def read(path: Path) -> Handed:
    """Read it."""
    found = torch.load(path)
    model = NETWORKS[found["name"]]()
    model.load_state_dict(found["model"])
    return Handed(model.eval(), found["train"], found["dev"])


def measured(score: Callable[[], Tensor]) -> dict[str, Any]:
    """Scores of dev examples (rows) and train examples (columns), CPU seconds and MB of memory beyond what was held."""

    def timed() -> tuple[Tensor, float]:
        begin = time.process_time()
        found = score()
        return found, time.process_time() - begin

    (scores, seconds), megabytes = peak_megabytes(timed)
    return {"scores": scores, "seconds": seconds, "megabytes": megabytes}


def serve(methods: dict[str, Callable[[Handed], Tensor]]) -> None:
    """Score by each method for each file named on the command line, and write FILE.METHOD.pt.

    The first file is scored twice, because what is loaded at the first call is no time of the method.
    """
    torch.set_num_threads(1)
    paths = [Path(name) for name in sys.argv[1:]]
    for k, path in enumerate([*paths[:1], *paths]):
        for name, score in methods.items():
            reply = path.with_suffix(f".{name}.pt")
            if k == 0 or not reply.exists():
                torch.manual_seed(0)
                handed = read(path)
                found = measured(lambda score=score, handed=handed: score(handed))
                if k > 0:
                    torch.save(found, reply)
                    print(reply.name, f"{found['seconds']:.2f} s, {found['megabytes']:.0f} MB", flush=True)
