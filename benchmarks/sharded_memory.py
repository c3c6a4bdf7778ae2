"""Peak memory of a hypergradient with sharded parameters, for each rank, in units of that of one process.

python -m benchmarks.sharded_memory --ranks 2

The model is a transformer whose parameters are far larger than its activations. All processes form the same
hypergradient, by one training step and CG with products by differences. The peak is that of the resident memory of a
process (Linux), without what it has after the same on a tiny model. glibc is told to give freed tensors back at once:
otherwise the resident memory is that of the past.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

import hypergrad as hg
from benchmarks.measure import limit_threads
from hypergrad.model.transformer import TransformerClassifier

WIDTH, LAYERS, EXAMPLES, WORDS = 384, 8, 8, 4
TINY = 16
PRODUCTS = 5
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def problem(width: int) -> hg.Supervised:
    """Short texts with random labels; 9.5 million parameters in float64 for the usual width."""
    torch.manual_seed(0)
    model = TransformerClassifier(vocabulary=50, num_outputs=2, length=WORDS, width=width, layers=LAYERS, heads=8)
    model = model.double()
    X, y = torch.randint(1, 50, (2 * EXAMPLES, WORDS)), torch.arange(2 * EXAMPLES) % 2
    return hg.Supervised(
        model=model,
        loss=cross_entropy,
        train=(X[:EXAMPLES], y[:EXAMPLES]),
        dev=(X[EXAMPLES:], y[EXAMPLES:]),
        hyperparameters={"weights": hg.ExampleWeights()},
        probe=False,
    )


def resident(entry: str) -> float:
    """The resident memory of this process in MB: `VmRSS` now, `VmHWM` at its peak."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(entry))
    return int(line.split()[1]) / 1024


def hypergradient(width: int, is_spread: bool, before: float = 0.0) -> dict[str, float]:
    """Form it, with the peaks of memory above `before` while the problem is made, and afterwards; in MB."""
    reset_peak()
    one = hg.FullySharded(problem(width), check=False) if is_spread else problem(width)
    hparams, params = one.init_hparams(), one.init_params()
    start = resident("VmHWM") - before
    reset_peak()
    estimator = hg.Implicit(
        inner_steps=1,
        inner_tol=0.0,
        solver=hg.GradientDescent(lr=1e-3),
        linsolve=hg.CG(tol=0.0, max_iter=PRODUCTS),
        damping=1.0,
        product=hg.CentredDifferences(),
        error_bar=False,
    )
    found = estimator.estimate(one, hparams, params)
    size = sum(x.numel() * x.element_size() for x in params.values()) / 2**20
    norm = torch.linalg.vector_norm(found.grad["weights"]).item()
    peak = resident("VmHWM") - before
    return {"start": start, "peak": peak, "parameters": size, "grad": norm, "products": found.num_matvecs}


def reset_peak() -> None:
    """Let the peak be that of what follows."""
    Path("/proc/self/clear_refs").write_text("5")


def measure(folder: str) -> None:
    """Form the hypergradient, as one of the ranks or alone, and write the peaks."""
    limit_threads(1)
    rank, is_spread = int(os.environ.get("RANK", "0")), "RANK" in os.environ
    if is_spread:
        dist.init_process_group("gloo")
    hypergradient(TINY, is_spread)
    before = resident("VmRSS")
    Path(folder, f"{rank}.json").write_text(json.dumps(hypergradient(WIDTH, is_spread, before)))
    if is_spread:
        dist.destroy_process_group()


def launched(ranks: int) -> list[dict[str, float]]:
    """The numbers of each rank; one process alone if there is one rank."""
    launcher = [] if ranks == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    with TemporaryDirectory() as folder:
        command = [sys.executable, *launcher, "-m", "benchmarks.sharded_memory", "--folder", folder]
        subprocess.run(command, check=True, env=os.environ | MALLOC | {"OMP_NUM_THREADS": "1"})
        return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(ranks)]


def main() -> None:
    """Compare one process with several ranks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2, help="processes that share the parameters, ≥ 2")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.folder:
        return measure(given.folder)
    (alone,), ranks = launched(1), launched(given.ranks)
    for name, one in {"one process": alone, **{f"rank {k}": x for k, x in enumerate(ranks)}}.items():
        print(
            f"{name}: {one['parameters']:.0f} MB of parameters, peak {one['start']:.0f} MB at the start and "
            f"{one['peak']:.0f} MB in the hypergradient of norm {one['grad']:.6g}, {one['products']:.0f} products"
        )
    for when in ("start", "peak"):
        print(f"{when}: a rank / one process = {max(one[when] for one in ranks) / alone[when]:.2f}")
    return None


if __name__ == "__main__":
    main()
