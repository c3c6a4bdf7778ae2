"""Single-loop methods whose hyperparameters are spread over the ranks, against one process; every rank calls each."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from sharded_lambda_cases import BOTH, difference, fit, folder, supervised

import hypergrad as hg
from hypergrad.core.autodiff import Tensors
from hypergrad.core.collectives import Traffic
from hypergrad.core.errors import RankError

STEP = hg.GradientDescent(lr=0.1)
METHODS: dict[str, hg.Method] = {
    "SOBA": hg.SOBA(solver=hg.Momentum(lr=0.1), adjoint_lr=0.1),
    "MASOBA": hg.MASOBA(solver=STEP, averaging=0.3),
    "SABA": hg.SABA(),
    "SRBA": hg.SRBA(solver=STEP, period=3),
    "AmIGO": hg.AmIGO(solver=STEP, inner_steps=2, adjoint_steps=2),
    "F2SA": hg.F2SA(solver=STEP, inner_steps=2, same_batch=False),
    "BOME": hg.BOME(solver=STEP, inner_steps=2),
    "MEHA": hg.MEHA(solver=STEP),
    "SAMA": hg.SAMA(solver=hg.Adam(lr=0.05)),
}
HELD = ("MASOBA", "SABA", "SRBA")
"""Methods whose memory has parts that are shaped as λ."""


def batches(batch_size: int | None = 3) -> hg.Supervised:
    """Batches of 3 of 13 examples, of which some ranks have none, and of 3 of 7 dev examples."""
    return supervised(batch_size, fixed_batches=batch_size is not None, dev_sample=3 if batch_size else None)


def trajectory(name: str, sharded: Sequence[str], batch_size: int | None = 3, **settings: Any) -> float:
    """How far ten moves with spread hyperparameters are from those of one process."""
    estimator = hg.SingleLoop(method=METHODS[name])
    if name == "SAMA":  # Adam would enlarge the rounding errors of its differences
        settings = {"optimizer": partial(torch.optim.SGD, lr=100.0), **settings}
    one = fit(batches(batch_size), estimator, **settings)
    return difference(fit(hg.DataParallel(batches(batch_size), sharded=sharded), estimator, **settings), one)


class Sizes(hg.Callback):
    """Keeps the numbers of entries of what a state has of λ in the carry."""

    def on_state(self, step: int, state: dict[str, Any]) -> None:
        self.memory = state["adjoint"]["memory"]


def held() -> dict[str, Any]:
    """The rows that a rank keeps of λ in the memories of methods."""
    found = {}
    for name in HELD:
        sizes = Sizes()
        problem = hg.DataParallel(batches(), sharded=BOTH)
        fit(problem, hg.SingleLoop(method=METHODS[name]), outer_steps=2, callbacks=[sizes])
        parts = {
            "MASOBA": lambda m: [m["average"]],
            "SRBA": lambda m: [m["D"][2], m["before"]["hparams"]],
            "SABA": lambda m: [part for _, part in (*m["inner"]["rows"], m["outer"]["average"])],
        }[name](sizes.memory)
        found[name] = [[len(part["of hyperparameters"][one].own) for one in BOTH] for part in parts]
    return found


def traffic() -> list[int]:
    """[all-reduces, numbers in them] of a move of SOBA with whole weights, and with private rows of them."""
    counts: list[int] = []
    for sharded in ([], ["weights"]):
        problem = hg.DataParallel(supervised(), sharded=sharded).on_shards()
        rows = problem.hparam_rows()
        hparams: Tensors = rows.own(problem.init_hparams())
        estimator, sent = hg.SingleLoop(method=METHODS["SOBA"]), Traffic()
        first = estimator.unrecorded(problem, hparams, problem.init_params())
        with sent.counting():
            estimator.unrecorded(problem, hparams, first.params, outer_step=1, inner_step=1, carry=first.carry)
        counts += [sent.calls, sent.numbers]
    return counts


def diverging() -> str:
    """What all ranks say of a run that explodes."""
    estimator = hg.SingleLoop(method=hg.SOBA(solver=hg.GradientDescent(lr=1e4)))
    try:
        fit(hg.DataParallel(batches(), sharded=BOTH), estimator, outer_steps=100)
    except (hg.HypergradError, RankError) as error:
        return str(error)
    return ""


def moves(name: str, problem: hg.InnerProblem, **settings: Any) -> hg.Result:
    """Moves with exact evaluations where they are interrupted too."""
    return fit(problem, hg.SingleLoop(method=METHODS[name]), exact_every=5, **settings)


def spread() -> hg.InnerProblem:
    return hg.DataParallel(batches(), sharded=BOTH)


def interrupted(name: str) -> float:
    """Write states until step 5 of 10; the difference of going on there at the same number of ranks."""
    path = folder() / f"{name}-{dist.get_world_size()}"
    moves(name, spread(), outer_steps=5, callbacks=[hg.StateSaver(path, every=5)])
    return difference(moves(name, spread(), resume=path), moves(name, spread()))


def alone(name: str) -> float:
    """The same of one process without torch.distributed, for the ranks to go on from."""
    path = folder() / f"{name}-1"
    moves(name, batches(), outer_steps=5, callbacks=[hg.StateSaver(path, every=5)])
    return difference(moves(name, batches(), resume=path), moves(name, batches()))


def resumed(name: str, before: int) -> float:
    """The difference of going on where `before` ranks stopped, from the numbers of one process."""
    again = moves(name, spread(), resume=folder() / f"{name}-{before}", any_world=True)
    return difference(again, moves(name, batches()))


def suggested() -> float:
    """Moves of SABA with the suggested steps of w and of λ."""
    return trajectory("SABA", BOTH, optimizer=hg.SuggestedSGD(factor=0.01), max_grad_norm=None)


def cases() -> dict[str, Callable[[], Any]]:
    """In CI: each method once, with and without private rows."""
    return {
        **{name: partial(trajectory, name, BOTH) for name in METHODS},
        "unrecorded": partial(trajectory, "SRBA", BOTH, record_every=5),
        "held": held,
        "traffic": traffic,
        "diverging": diverging,
        **{f"interrupted, {name}": partial(interrupted, name) for name in HELD},
        **{f"from one, {name}": partial(resumed, name, 1) for name in HELD},
    }


def every_method() -> dict[str, Callable[[], Any]]:
    """For slow tests: each method with each kind of rows, on batches and on all data, with optimisers."""
    kinds: list[Any] = [partial(torch.optim.SGD, lr=0.5, momentum=0.9), torch.optim.RMSprop, torch.optim.Adamax]
    return {
        **{
            f"{name}, {names}, {batch_size}": partial(trajectory, name, names, batch_size)
            for name in METHODS
            for names in (BOTH, BOTH[:1], BOTH[1:])
            for batch_size in (None, 3)
        },
        **{f"{k}": partial(trajectory, "MASOBA", BOTH, optimizer=kind) for k, kind in enumerate(kinds)},
        "suggested": suggested,
        **{f"interrupted, {name}": partial(interrupted, name) for name in HELD},
    }


def going_on() -> dict[str, Callable[[], Any]]:
    """On another number of ranks than the four that wrote the states."""
    return {name: partial(resumed, name, 4) for name in HELD}
