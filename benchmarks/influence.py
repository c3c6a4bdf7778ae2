"""Influence of 20,000 train examples on dev losses, for a network of 1,000,000 parameters: seconds and memory.

python -m benchmarks.influence [--dev 256] [--train 20000] [--width 1000] [--method ekfac]
"""

import argparse
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.influence.scores import prepared
from hypergrad.training.training import Training

METHODS: dict[str, hg.InfluenceMethod] = {
    "ekfac": hg.ImplicitInfluence(linsolve=hg.EKFAC()),
    "kfac": hg.ImplicitInfluence(linsolve=hg.KFAC()),
    "arnoldi": hg.ArnoldiInfluence(rank=20, iterations=40),
}


def main() -> None:
    """Train for a while, score, and print what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dev", type=int, default=256)
    parser.add_argument("--train", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--method", choices=METHODS, default="ekfac")
    given = parser.parse_args()
    torch.manual_seed(0)
    data = hg.idx_images(train=given.train, dev=given.dev, test=1)
    net = nn.Sequential(*(
        nn.Linear(784, given.width),
        nn.Tanh(),
        nn.Linear(given.width, 200),
        nn.Tanh(),
        nn.Linear(200, 10),
    ))
    problem = hg.Supervised(
        model=net, loss=cross_entropy, train=data.train, dev=data.dev, hyperparameters={}, batch_size=128
    )
    size = sum(w.numel() for w in problem.init_params().values())
    print(f"{size:,} parameters, {given.train:,} train and {given.dev} dev examples", end="; ")
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}", flush=True)
    method, hparams = METHODS[given.method], problem.init_hparams()
    with measured("training, 100 steps of Adam"):
        training = Training(solver=hg.Adam(lr=1e-3), steps=100, tol=0.0)
        params = training.run(problem, hparams, problem.init_params()).params
    with measured(f"{given.method}: what all dev examples share"):
        scores = prepared(method, problem, params, hparams)
    with measured("scores for the mean of dev"):
        mean = scores(None)
    for rows in torch.arange(given.dev).split(method.dev_block):
        with measured(f"scores for dev examples {rows[0]} to {rows[-1]}"):
            scores(rows)
    print(f"dev loss without the most harmful example: {mean.min().item():+.2e}")


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Print the seconds that the block takes, those of the processors, and the peak memory of the process so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"{what}: {wall:.1f} s, {cpu:.1f} s of processors, peak {peak:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
