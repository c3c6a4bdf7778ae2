"""Memory and time of derivatives of an optimum with many parameters, whose Hessian is met by products only.

python -m benchmarks.matrix_free
"""

import time

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import hypergrad as hg
from benchmarks.measure import Work
from benchmarks.peers.memory import peak_megabytes

SIZES = (10**5, 3 * 10**5, 10**6)
KINDS = {"expansion": "`TaylorExpansion(order=3)`", "argmin": "`grad` through `argmin`"}


def make(name: str) -> Work:
    """One call: for "expansion 1000000" the derivatives of orders 1 to 3, for "argmin 1000000" one of reverse mode."""
    kind, size = name.split()
    scale = torch.linspace(1, 2, int(size))

    def objective(w: Tensor, hp: Tensor) -> Tensor:
        return ((w - hp) ** 2 * scale).sum() / 2 + (w**4).sum() / 4

    w0, hp0, one = torch.zeros(int(size)), torch.tensor(0.0), torch.tensor(1.0)
    linsolve = hg.CG(tol=1e-10)
    if kind == "expansion":
        return lambda: hg.TaylorExpansion(order=3, linsolve=linsolve).at(objective, w0, hp0).derivatives(one)[-1]

    def reverse() -> Tensor:
        argmin = hg.argmin(objective, w0, hp0, linsolve=linsolve)
        return torch.func.grad(lambda hp: argmin(hp).sum())(hp0)

    return reverse


def main() -> None:
    """Print the table."""
    torch.set_default_dtype(torch.float64)
    table = Table("", "parameters", "peak MB", "vectors of p", "s", title="matrix-free", title_justify="left")
    for kind, shown in KINDS.items():
        make(f"{kind} 1000")()  # what is imported and allocated once does not count
        for size in SIZES:
            begin = time.perf_counter()
            _, megabytes = peak_megabytes(make(f"{kind} {size}"))
            seconds = time.perf_counter() - begin
            table.add_row(
                shown, f"{size}", f"{megabytes:.0f}", f"{megabytes * 2**20 / (8 * size):.1f}", f"{seconds:.2f}"
            )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
