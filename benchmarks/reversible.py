"""The bits that reversible learning keeps, by decay and number of steps, against those that a step must forget.

python -m benchmarks.reversible
"""

import math
from fractions import Fraction

import torch
from rich.console import Console
from rich.table import Table

import hypergrad as hg
from benchmarks.problem.softmax import Digits
from hypergrad.core.autodiff import leaves
from hypergrad.training.dynamics import Dynamics

STATE = 5 * 64
"""Bits of the integer state of a parameter: w, v, w₀, v₀ and the remainders' number."""


def bits(decay: float, num_steps: int) -> tuple[float, float, float]:
    """Per parameter and step: bits of full words and information in the last, bits held, bits with the state."""
    problem = Digits()
    dynamics = Dynamics(problem, hg.Momentum(lr=0.05, momentum=decay), leaves(problem.init_hparams()))
    run = hg.Reversible().start(dynamics, dynamics.solver.init(problem.init_params()))
    for t in range(num_steps):
        run.step(t)
    kept = run.remainders["W"]
    held = 32 * len(kept.words) + kept.x.element_size() * 8
    used = 32 * len(kept.words) + math.log2(kept.bound)
    return used / num_steps, held / num_steps, (held - 64 + STATE) / num_steps


def main() -> None:
    """Print the curve."""
    torch.set_default_dtype(torch.float64)
    table = Table("β", "T", "log₂(1/β)", "used", "÷ log₂(1/β)", "held", "with the integer state", "float64 states")
    for decay in (0.5, 0.9, 0.98, 0.99):
        limit = -math.log2(Fraction(decay).limit_denominator(100))
        for num_steps in (100, 1000, 10_000):
            used, held, everything = bits(decay, num_steps)
            table.add_row(
                f"{decay:g}",
                str(num_steps),
                f"{limit:.4f}",
                f"{used:.4f}",
                f"{used / limit:.3f}",
                f"{held:.4f}",
                f"{everything:.3f}",
                "128",
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
