"""How often the host waits for the device: in an iteration of a solver, and in a step of training."""

import warnings
from collections.abc import Callable
from functools import partial

import torch
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

import hypergrad as hg
from benchmarks.gpu.table import console
from benchmarks.gpu.workload import workloads
from hypergrad.training.dynamics import Dynamics

_READS = ("_local_scalar_dense", "equal", "nonzero", "masked_select")
SHORT, LONG = 15, 35


class _Reads(TorchDispatchMode):
    """Counts the operations that read a value; on a CPU nothing waits."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in _READS
        return func(*args, **(kwargs or {}))


def counted(work: Callable[[], object], device: torch.device) -> int:
    """How often the host waited in a call, as torch reports it; on a CPU, how often a value was read."""
    if device.type != "cuda":
        with _Reads() as reads:
            work()
        return reads.count
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("synchroniz" in str(one.message) for one in told)


def waits(device: torch.device, *, tiny: bool) -> bool:
    """Counts in a long run minus a short one, for each further iteration or step."""
    what = "waits for the device" if device.type == "cuda" else "reads a value by an operation of torch"
    table = Table("", "each", "goal", title=f"how often the host {what}", title_justify="left")
    for name, (work, goal) in _works(device, tiny=tiny).items():
        for num in (SHORT, LONG):
            work(num)()  # what is only done once is done
        few, many = (counted(work(num), device) for num in (SHORT, LONG))
        table.add_row(name, f"{(many - few) / (LONG - SHORT):.2f}", goal)
    console.print(table)
    return True


def _works(device: torch.device, *, tiny: bool) -> dict[str, tuple[Callable[[int], Callable[[], object]], str]]:
    """By name, what makes a work of so many iterations or steps, and the goal."""
    models = workloads(device, tiny=tiny)
    whole, batches = models["softmax"].problem(), models["softmax"].problem(batch_size=10)
    hparams, params = whole.init_hparams(), whole.init_params()

    def solve(linsolve: Callable[[int], hg.LinearSolver], num: int, product: hg.Product | None = None):
        estimator = hg.Implicit(
            linsolve=linsolve(num), product=product or hg.Reverse(), inner_steps=0, damping=1e-6, error_bar=False
        )
        return lambda: estimator.estimate(whole, hparams, params)

    def train(problem: hg.Supervised, num: int):
        solver = hg.Momentum(lr=0.01)
        dynamics = Dynamics(problem, solver, hparams)
        return lambda: dynamics.advance(solver.init(params), range(num))

    def through(tape: hg.Tape, num: int):
        estimator = hg.Unrolled(solver=hg.Momentum(lr=0.01), tape=tape, inner_steps=num)
        return lambda: estimator.estimate(whole, hparams, params)

    def cg(num: int) -> hg.LinearSolver:
        return hg.CG(max_iter=num, tol=0.0)

    return {
        "CG, an iteration": (partial(solve, cg), "0.2"),
        "CG by differences, an iteration": (partial(solve, cg, product=hg.CentredDifferences()), "0.2"),
        "MINRES, an iteration": (partial(solve, lambda num: hg.MINRES(max_iter=num, tol=0.0)), "0.2"),
        "GMRES, an iteration": (partial(solve, lambda num: hg.GMRES(max_iter=num, tol=0.0)), "0.2"),
        "Neumann, an iteration": (partial(solve, lambda num: hg.Neumann(num_terms=num, scale=0.1, tol=0.0)), "0.2"),
        "training, a step": (partial(train, whole), "0"),
        "training, a step of mini-batches": (partial(train, batches), "0"),
        **{
            f"{type(tape).__name__}, a step": (partial(through, tape), "0")
            for tape in (hg.Graph(), hg.Store(), hg.Checkpoint(), hg.Reversible())
        },
    }
