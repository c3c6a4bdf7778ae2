"""The outer loop on several ranks: what each of them finds, and what is left in the folder."""

import json
import os
import signal
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import hypergrad as hg
from hypergrad.callback.state_file import read
from hypergrad.core.ranks import peers_of
from hypergrad.outer.lock import locked

ADAM = partial(torch.optim.Adam, lr=0.05)
UNROLLED = hg.Unrolled(solver=hg.Momentum(lr=0.05), inner_steps=5)
SOBA = hg.SingleLoop(method=hg.SOBA(solver=hg.GradientDescent(lr=0.05)))


def whole(seed: int = 0, *, dropout: float = 0.0) -> hg.Supervised:
    """A small classification, of 40 examples for train, in batches of 9."""
    torch.manual_seed(seed)
    X, y = torch.randn(70, 5), torch.randint(3, (70,))
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Dropout(dropout), nn.Linear(4, 3)).double()
    return hg.Supervised(
        model=model,
        loss=nn.functional.cross_entropy,
        train=(X[:40], y[:40]),
        dev=(X[40:55], y[40:55]),
        test=(X[55:], y[55:]),
        hyperparameters={"l2": hg.L2(init=1e-2, per="tensor")},
        batch_size=9,
    )


def problem(seed: int = 0, *, dropout: float = 0.0) -> hg.DataParallel:
    return hg.DataParallel(whole(seed, dropout=dropout))


def folder() -> Path:
    """A new folder, the same on all ranks."""
    return Path(peers_of().first(tempfile.mkdtemp()))


def fit(
    where: Path | None = None, *, of: Any = None, estimator: Any = UNROLLED, steps: int = 6, **settings: Any
) -> Any:
    optimizer = settings.pop("optimizer", ADAM)
    return hg.fit(of or problem(), estimator, optimizer, steps, folder=where, progress=False, **settings)


def bits(tensors: dict[str, Tensor]) -> dict[str, list[str]]:
    return {name: [float(x).hex() for x in value.flatten()] for name, value in tensors.items()}


def found(result: Any) -> dict[str, Any]:
    """All that ranks must have alike, to the last bit."""
    rows = [{k: float(v).hex() for k, v in row.items()} for row in result.history]
    return {"hparams": bits(result.last.hparams), "params": bits(result.last.params), "history": rows}


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two runs are the same, but for their wall time."""
    for one in (first, second):
        one["history"] = [{k: v for k, v in row.items() if k != "run/seconds"} for row in one["history"]]
    return first == second


def refused(call: Callable[[], object]) -> list[str]:
    try:
        call()
    except BaseException as error:
        return [type(error).__name__, " ".join([str(error), *getattr(error, "__notes__", [])])]
    return []


class At(hg.Callback):
    """Does something at a step, on one rank."""

    def __init__(self, step: int, rank: int, what: Callable[[], object]) -> None:
        self.step, self.rank, self.what = step, rank, what

    def on_step(self, record: Any) -> None:
        if record.step == self.step and peers_of().rank == self.rank:
            self.what()


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def full() -> None:
    raise OSError(28, "No space left on device")


def recorded() -> dict[str, Any]:
    where = folder()
    result = fit(where, steps=4)
    peers_of().barrier(20)
    names = sorted(path.name for path in where.iterdir())
    steps = [json.loads(line)["step"] for line in (where / "metrics.jsonl").read_text().splitlines()]
    alone = fit(of=whole(), steps=4)
    distance = max(
        float((x - alone.last.hparams[name]).abs().max() / x.abs().max()) for name, x in result.last.hparams.items()
    )
    return {"found": found(result), "names": names, "steps": steps, "distance": distance, "stopped": result.stopped}


def ended(how: Callable[[], None], **settings: Any) -> dict[str, Any]:
    """A run that a signal to rank 1 ends at step 3, and the same one that goes on from there."""
    where, dropout = folder(), settings.pop("dropout", 0.0)
    whole_run = found(fit(of=problem(dropout=dropout), **settings))
    said = refused(lambda: fit(where, of=problem(dropout=dropout), callbacks=[At(4, 1, how)], **settings))
    saved = read(where)["step"]
    again = found(fit(where, of=problem(dropout=dropout), **settings))
    return {"said": said, "saved": saved, "same": same(whole_run, again)}


def between_records() -> dict[str, Any]:
    """SIGTERM to rank 1 between two records."""
    where = folder()
    settings: dict[str, Any] = {"estimator": SOBA, "steps": 20, "record_every": 10}
    whole_run = found(fit(**settings))

    class Ends(hg.DataParallel):
        def at_outer_step(self, step: int) -> Any:
            if step == 14 and peers_of().rank == 1:
                terminate()
            return super().at_outer_step(step)

    said = refused(lambda: fit(where, of=Ends(whole()), **settings))
    saved = read(where)["step"]
    return {"said": said, "saved": saved, "same": same(whole_run, found(fit(where, **settings)))}


def decisions() -> dict[str, Any]:
    """Runs whose length and steps depend on losses and metrics, of which the last are others on each rank."""

    class Judged(hg.DataParallel):
        def metrics(self, params: Any, hparams: Any) -> Any:
            there = super().metrics(params, hparams)
            return {name: x + 1e-3 * self.ranks.rank * torch.rand(()) for name, x in there.items()}

    patient = fit(
        of=Judged(whole()), steps=40, monitor="dev_accuracy", patience=2, optimizer=partial(torch.optim.SGD, lr=3.0)
    )
    accepted = fit(steps=6, acceptance=hg.Acceptance(), warm_start=False, optimizer=partial(torch.optim.SGD, lr=50.0))
    slowly = hg.Unrolled(solver=hg.Momentum(lr=0.005), inner_steps=5)
    searched = fit(estimator=slowly, steps=3, optimizer=partial(hg.LBFGSB, bound=5.0), warm_start=False)
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0)
    reduced = fit(steps=6, scheduler=plateau, optimizer=partial(torch.optim.SGD, lr=5.0))
    runs = {"patient": patient, "accepted": accepted, "searched": searched, "reduced": reduced}
    return {name: [run.stopped, run.best.step, found(run)] for name, run in runs.items()}


def disk_is_full() -> list[str]:
    return refused(lambda: fit(folder(), callbacks=[At(2, 0, full)]))


def in_use() -> list[str]:
    where, peers = folder(), peers_of()
    if not peers.is_first:
        peers.barrier(20)
        return refused(lambda: fit(where))
    with locked([where]):
        peers.barrier(20)
        return refused(lambda: fit(where))


def hparams_differ() -> list[str]:
    class Drifts(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            for group in self.param_groups:
                group["params"][0].add_(1e-9 * peers_of().rank)

    return refused(lambda: fit(steps=30, optimizer=partial(Drifts, lr=0.01)))


def start_differs() -> list[str]:
    problem_here = whole()
    other = problem_here.init_params
    problem_here.init_params = lambda: {k: x + peers_of().rank for k, x in other().items()}  # type: ignore[method-assign]
    return refused(lambda: fit(of=hg.DataParallel(problem_here)))


def data_differ() -> list[str]:
    problem_here = whole()
    problem_here.X = problem_here.X + 1e-9 * peers_of().rank
    return refused(lambda: fit(of=hg.DataParallel(problem_here)))


def evaluation_fails_on_one() -> list[str]:
    """An acceptance rejects what fails on all ranks, and not what fails on one."""

    class Breaks(hg.DataParallel):
        def at_outer_step(self, step: int) -> Any:
            if step == 2 and self.ranks.rank == 1:
                raise hg.NonFiniteError("on purpose")
            return super().at_outer_step(step)

    return refused(lambda: fit(of=Breaks(whole()), acceptance=hg.Acceptance(), warm_start=False))


def other_world() -> dict[str, Any]:
    where = folder()
    if peers_of().is_first:
        fit(where, of=whole(), steps=3)
    peers_of().barrier(20)
    said = refused(lambda: fit(where, steps=6))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = fit(where, steps=6, any_world=True)
    about = [str(one.message) for one in caught if "processes" in str(one.message) or "process " in str(one.message)]
    return {"said": said, "warned": about, "step": result.last.step, "world": read(where)["world"]}


def own_streams() -> dict[str, Any]:
    """Random streams that differ between ranks go on where they were."""
    where, peers = folder(), peers_of()

    def begin(*callbacks: Any) -> Any:
        there = problem()
        torch.manual_seed(peers.rank)
        return fit(where, of=there, steps=4, callbacks=[Draws(), *callbacks])

    class Draws(hg.Callback):
        def on_step(self, record: Any) -> None:
            drawn.append(torch.rand(()).item())

    drawn: list[float] = []
    refused(lambda: begin(At(2, 0, terminate)))
    begin()
    torch.manual_seed(peers.rank)
    return {"drawn": drawn, "wanted": torch.rand(5).tolist()}


def cases() -> dict[str, Callable[[], Any]]:
    return {
        "recorded": recorded,
        "terminated": lambda: ended(terminate),
        "interrupted": lambda: ended(interrupt, dropout=0.3),
        "between records": between_records,
        "decisions": decisions,
        "disk is full": disk_is_full,
        "in use": in_use,
        "hparams differ": hparams_differ,
        "start differs": start_differs,
        "data differ": data_differ,
        "other world": other_world,
        "own streams": own_streams,
    }


def slow_cases() -> dict[str, Callable[[], Any]]:
    """Those that wait for a time limit."""
    return {"evaluation fails on one": evaluation_fails_on_one}
