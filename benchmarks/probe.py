"""What the probe of a user's model costs, once: in gradients on as many examples as the probe has.

python -m benchmarks.probe [--rounds N] [--threads N]
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from benchmarks.measure import clocked, interleaved, ratios, timing_settings
from hypergrad.model.probe import EXAMPLES

MODELS: dict[str, Callable[[], nn.Module]] = {
    "perceptron, 64 × 128 × 10": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 10)),
    "perceptron, 64 × 2048 × 2048 × 10": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(64, 2048), nn.Tanh(), nn.Linear(2048, 2048), nn.Tanh(), nn.Linear(2048, 10)
    ),
    "convolutions, batch normalisation, dropout": lambda: nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Dropout(0.2), nn.Linear(1024, 10)),
    ),
    "transformer layer on 8 rows of pixels": lambda: nn.Sequential(
        *(nn.Flatten(1, 2), nn.Linear(8, 32), nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)),
        *(nn.Flatten(), nn.Linear(256, 10)),
    ),
}


def made(module: nn.Module, *, probe: bool) -> hg.Supervised:
    """A problem whose inner gradient was formed once, so that its second derivatives were tried too."""
    data = hg.Splits(*(hg.Split(X[:EXAMPLES].view(-1, 1, 8, 8), y[:EXAMPLES]) for X, y in hg.digits()))
    hyperparameters = {"l2": hg.L2(init=1e-3)}
    problem = hg.on_splits(data, model=module, loss=cross_entropy, hyperparameters=hyperparameters, probe=probe)
    with torch.enable_grad():
        problem.inner_loss_and_gradient(problem.init_params(), problem.init_hparams(), problem.inner_batch(0))
    return problem


def gradient(module: nn.Module, problem: hg.Supervised) -> object:
    """A gradient by torch alone, on the same examples."""
    return torch.autograd.grad(cross_entropy(module(problem.X), problem.y), list(module.parameters()))


def run(rounds: int) -> Table:
    """The table.

    Raises:
        RuntimeError: if the probe changes the inner loss.
    """
    shown = Table("model", "probe, in gradients", "quartiles apart", "probe, ms", title="the probe, once for a problem")
    for name, make in MODELS.items():
        torch.manual_seed(0)
        module = make()
        problem, plain = made(module, probe=True), made(module, probe=False)
        losses = [
            each.inner_loss(each.init_params(), each.init_hparams(), each.inner_batch(0)).item()
            for each in (problem, plain)
        ]
        if losses[0] != losses[1]:
            raise RuntimeError(f"The inner loss of the {name} is {losses[0]} with the probe and {losses[1]} without.")
        calls = {
            "with": clocked(lambda m=module: made(m, probe=True), 1),
            "without": clocked(lambda m=module: made(m, probe=False), 1),
            "gradient": clocked(partial(gradient, module, problem), 10),
        }
        times = interleaved(calls, repeats=rounds)
        spent = [a - b for a, b in zip(times["with"], times["without"], strict=True)]
        in_gradients, spread = ratios(spent, times["gradient"])
        shown.add_row(name, f"{in_gradients:.1f}", f"{spread:.1f}", f"{1e3 * statistics.median(spent):.1f}")
    return shown


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probe", description="What the probe costs.")
    given = timing_settings(parser, rounds=9)
    torch.set_default_dtype(torch.float64)
    Console(width=110, highlight=False).print(run(given.rounds))


if __name__ == "__main__":
    main()
