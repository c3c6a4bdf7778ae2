"""The sections, and one of them in this process."""

import argparse
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import torch


@dataclass(frozen=True)
class Section:
    """A part of the benchmark that runs in a process of its own.

    Attributes:
        module: in this package.
        function: of the module, from device and `tiny` to whether everything that ran was right.
        limit: seconds after which its process is ended.
        model: the first argument of the function, if it has one.
    """

    module: str
    function: str
    limit: float
    model: str | None = None

    def load(self) -> Callable[..., bool]:
        """The function."""
        found = getattr(import_module(f"benchmarks.gpu.{self.module}"), self.function)
        return found if self.model is None else partial(found, self.model)


SECTIONS = {
    "gradient": Section("derivatives", "gradient", 40),
    "product": Section("derivatives", "products", 45),
    "unrolled-softmax": Section("hypergradients", "unrolled", 70, "softmax"),
    "unrolled-mlp": Section("hypergradients", "unrolled", 30, "mlp"),
    "unrolled-resnet": Section("hypergradients", "unrolled", 45, "resnet"),
    "unrolled-gpt": Section("hypergradients", "unrolled", 40, "gpt"),
    "implicit": Section("hypergradients", "implicit", 40),
    "waits": Section("waits", "waits", 25),
    "correctness": Section("correctness", "correctness", 25),
    "resume": Section("correctness", "resume", 25),
    "compiled-softmax": Section("hypergradients", "compiled", 90, "softmax"),
    "compiled-mlp": Section("hypergradients", "compiled", 90, "mlp"),
    "jax": Section("jax_scan", "jax_scan", 60),
}
"""In the order of use; where the time is over, the last are left out."""


def main() -> None:
    """Run one section; the exit code is 1 if a result was wrong or a row failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.sections", description="One section, in here.")
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", module="hypergrad")  # that small problems are not solved is known
    torch.set_float32_matmul_precision("high")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("The time is over."))
    sys.exit(not SECTIONS[given.section].load()(torch.device(given.device), tiny=given.tiny))


if __name__ == "__main__":
    main()
