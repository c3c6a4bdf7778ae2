"""One hypergradient through T steps of training, compared with handwritten code and with peers.

python -m benchmarks.unrolled [--problem a|am|c] [--peers PYTHON] [--rounds N] [--threads N]
"""

import argparse
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

import hypergrad as hg
from benchmarks.measure import THREADS, Entrant, Local, Work, compare, limit_threads
from benchmarks.peer import Peer
from benchmarks.training import TRAININGS

WORKERS = ("benchmarks.peers.unrolled_torch", "benchmarks.peers.unrolled_jax")
PLAIN, BY_HAND = "plain training", "by hand, create_graph"
TAPES: dict[str, tuple[hg.Tape, bool]] = {
    "Graph": (hg.Graph(), False),
    "Store": (hg.Store(), False),
    "Checkpoint, 45 slots": (hg.Checkpoint(slots=45), False),
    "Store, compiled": (hg.Store(), True),
    "Checkpoint, compiled": (hg.Checkpoint(), True),
    "Reversible": (hg.Reversible(), False),
}
ROWS = {
    "a": [PLAIN, BY_HAND, "Graph", "Store", "Checkpoint, 45 slots", "Store, compiled", "Checkpoint, compiled"],
    "am": [PLAIN, "Store", "Reversible", "Store, compiled"],
    "c": [PLAIN, BY_HAND, "Graph", "Store", "Store, compiled", "Checkpoint, compiled"],
}
_console = Console(width=110, highlight=False)


def make(letter: str, name: str) -> Work:
    """The work of a row."""
    training = TRAININGS[letter]
    if name in TAPES:
        return training.estimate(*TAPES[name])
    return {PLAIN: training.plain, BY_HAND: training.by_hand}[name]()


@dataclass
class Remote(Entrant):
    """A row of a peer.

    Attributes:
        peer: the process it lives in.
        name: what it is called there.
        num_steps: T.
        last: peak memory of the last call.
    """

    peer: Peer
    name: str
    num_steps: int
    last: float = float("nan")

    def run(self) -> tuple[torch.Tensor, float]:
        outcome = self.peer.ask(self.name, budget=self.num_steps, scale=0.0, calls=1)
        self.last = outcome.megabytes
        return outcome.hypergradient, outcome.seconds

    def megabytes(self) -> float:
        return self.last


def run(letter: str, python: str | None, rounds: int) -> None:
    """The table of one training run."""
    training = TRAININGS[letter]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        entrants: dict[str, Entrant] = {name: Local.of(partial(make, letter), name) for name in ROWS[letter]}
        for worker in WORKERS if python and BY_HAND in entrants else ():
            peer = stack.enter_context(Peer(str(python), worker, training.save(folder)))
            _console.print(peer.note)
            entrants |= {name: Remote(peer, name, training.num_steps) for name in peer.contestants}
        compare(
            f"({letter}) {training.title}",
            entrants,
            reference=PLAIN,
            truth=BY_HAND if BY_HAND in entrants else "Store",
            unchecked=(PLAIN,),
            tolerance=training.tolerance,
            repeats=rounds,
        )


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.unrolled", description="Time and memory of a hypergradient through training."
    )
    parser.add_argument("--problem", choices=TRAININGS, help="one of the training runs only")
    parser.add_argument("--peers", metavar="PYTHON", help="interpreter of an environment made by scripts/peers-env")
    parser.add_argument("--rounds", type=int, default=7, help="timed turns of each contestant, at least 7")
    parser.add_argument("--threads", type=int, default=THREADS, help="of each contestant; 1 on a busy machine")
    given = parser.parse_args()
    if given.rounds < 7:
        parser.error(f"--rounds must be at least 7, but it is {given.rounds}.")
    if given.threads < 1:
        parser.error(f"--threads must be at least 1, but it is {given.threads}.")
    limit_threads(given.threads)
    for letter in [given.problem] if given.problem else TRAININGS:
        run(letter, given.peers, given.rounds)


if __name__ == "__main__":
    main()
