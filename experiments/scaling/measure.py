"""Times of this machine on 1 to 4 processes: what the model is made of, and what it predicts."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from benchmarks.distributed import reduce_seconds
from benchmarks.launch import served
from benchmarks.measure import interleaved
from hypergrad.problem.oracle import Oracle

STEPS, PRODUCTS, WIDTH, PARTS = 5, 10, 256, 8
_SOLVER = hg.GradientDescent(lr=0.1)
ESTIMATORS: dict[str, hg.HypergradEstimator] = {
    "CG": hg.Implicit(
        solver=_SOLVER,
        linsolve=hg.CG(max_iter=PRODUCTS, tol=0.0),
        damping=1.0,
        inner_steps=STEPS,
        inner_tol=0.0,
        error_bar=False,
    ),
    "unrolled, Store": hg.Unrolled(solver=_SOLVER, tape=hg.Store(), inner_steps=STEPS),
    "SOBA, a move": hg.SingleLoop(method=hg.SOBA(solver=_SOLVER)),
    "F2SA, a move": hg.SingleLoop(method=hg.F2SA(solver=_SOLVER)),
}
"""By the names of `methods.METHODS`."""


def network(parts: int = 1) -> hg.Supervised:
    """64 inputs, tanh units and ten classes, on a part of the digits; a penalty for each tensor."""
    torch.manual_seed(0)
    data = hg.digits()
    model = nn.Sequential(nn.Linear(64, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 10)).double()
    train, dev = (
        (part.X[: len(part.X) // parts].double(), part.y[: len(part.y) // parts]) for part in (data.train, data.dev)
    )
    penalties = {"l2": hg.L2(init=1e-2, per="tensor")}
    return hg.Supervised(model=model, loss=cross_entropy, train=train, dev=dev, hyperparameters=penalties)


def gradient_seconds(rounds: int) -> dict[str, list[float]]:
    """CPU seconds of an inner gradient on all of train, and on a part of it: of all rounds."""

    def work(problem: hg.Supervised) -> Callable[[], float]:
        oracle, params = Oracle(problem, problem.init_hparams()), problem.init_params()
        return partial(_cpu, lambda: oracle.evaluate(params))

    return interleaved({"whole": work(network()), "part": work(network(PARTS))}, repeats=rounds)


def method_seconds(rounds: int) -> dict[str, list[float]]:
    """Of one hypergradient by each method on all ranks: seconds, and CPU seconds of the busiest rank, of all rounds."""
    problem = hg.DataParallel(network())
    hparams, params = problem.init_hparams(), problem.init_params()
    clocks: dict[str, Callable[[], float]] = {}
    for name, estimator in ESTIMATORS.items():
        carry: Any = None
        if isinstance(estimator, hg.SingleLoop):  # a move after the first one
            carry = estimator.estimate(problem, hparams, params).carry
        work = partial(estimator.unrecorded, problem, hparams, params, carry=carry)
        clocks |= {name: partial(_wall, work), f"{name}, CPU": partial(_cpu, work)}
    return interleaved(clocks, repeats=rounds)


def _wall(work: Callable[[], object]) -> float:
    dist.barrier()
    begin = time.perf_counter()
    work()
    dist.barrier()
    return time.perf_counter() - begin


def _cpu(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    spent = torch.tensor([time.process_time() - begin])
    dist.all_reduce(spent, op=dist.ReduceOp.MAX)
    return spent.item()


TASKS = {"reduce": reduce_seconds, "gradient": gradient_seconds, "methods": method_seconds}

if __name__ == "__main__":
    served(TASKS)
