"""Runs whose hyperparameters are spread over the ranks, against those of one process; every rank calls each."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import hypergrad as hg
from hypergrad.core.autodiff import Tensors

STATES = "HYPERGRAD_TEST_STATES"
"""The variable that names a folder for states, which a later launch reads."""
BOTH = ("l2", "weights")
_COMPARED = ("hparam", "hypergradient/norm", "loss", "inner/grad_norm")
"""Beginnings of the tags that two runs have in common."""
DRAWN = (11, 6, 4)
"""Examples of train, dev and test."""
ESTIMATORS: dict[str, tuple[hg.HypergradEstimator, int | None]] = {
    "implicit": (
        hg.Implicit(
            solver=hg.GradientDescent(lr=0.3),
            linsolve=hg.CG(tol=1e-13),
            inner_steps=10,
            error_bar=False,
        ),
        None,
    ),
    "unrolled": (hg.Unrolled(solver=hg.Momentum(lr=0.2), inner_steps=4), None),
    # Batches of 3 examples: some ranks have none.
    "mini-batches": (hg.Unrolled(solver=hg.Momentum(lr=0.2), tape=hg.Store(), inner_steps=4), 3),
}


def supervised(batch_size: int | None = None, more: dict[str, Any] | None = None, **settings: Any) -> hg.Supervised:
    """Softmax regression with a penalty for each parameter and a weight for each of 13 examples."""
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn(20, 3, generator=generator).double(), torch.randint(0, 3, (20,), generator=generator)
    model = torch.nn.Linear(3, 3).double()
    with torch.no_grad():
        for w in model.parameters():
            w.copy_(torch.randn(w.shape, generator=generator))
    return hg.Supervised(
        model=model,
        loss=torch.nn.functional.cross_entropy,
        train=(X[:13], y[:13]),
        dev=(X[13:], y[13:]),
        hyperparameters={
            "l2": hg.L2(init=0.3, per="weight"),
            "weights": hg.ExampleWeights(),
            "all": hg.L2(init=0.05),
            **(more or {}),
        },
        batch_size=batch_size,
        **settings,
    )


def fit(problem: hg.InnerProblem, estimator: hg.HypergradEstimator, **settings: Any) -> hg.Result:
    """Ten outer steps with Adam and clipping."""
    optimizer = settings.pop("optimizer", partial(torch.optim.Adam, lr=0.1))
    known: dict[str, Any] = {"outer_steps": 10, "max_grad_norm": 1e-3, **settings}
    resume = {key: known.pop(key) for key in ("resume", "any_world") if key in known}
    return hg.Trainer(problem=problem, estimator=estimator, optimizer=optimizer, **known).fit(**resume)


def error(found: Tensors, wanted: Tensors) -> float:
    """The largest relative difference of named tensors."""
    return max(_distance(found[name], x) for name, x in wanted.items())


def _distance(x: Tensor, y: Tensor) -> float:
    return 0.0 if torch.equal(x, y) else ((x - y).norm() / y.norm()).item()


def _apart(x: float, y: float) -> float:
    return 0.0 if x == y else abs(x - y) / abs(y)


def difference(found: hg.Result, wanted: hg.Result) -> float:
    """The largest relative difference of λ, dF/dλ and the recorded norms of two runs."""
    tensors = [error(getattr(getattr(found, key), part), getattr(getattr(wanted, key), part))
               for key in ("first", "last", "best") for part in ("hparams", "grad")]  # fmt: skip
    rows = zip(found.history, wanted.history, strict=True)
    numbers = [(row[tag], x) for row, other in rows for tag, x in other.items() if tag.startswith(_COMPARED)]
    return max([*tensors, *(_apart(x, y) for x, y in numbers)])


def trajectory(kind: str, sharded: Sequence[str], **settings: Any) -> float:
    """How far a run with spread hyperparameters is from that of one process."""
    estimator, batch_size = ESTIMATORS[kind]
    one = fit(supervised(batch_size), estimator, **settings)
    many = hg.DataParallel(supervised(batch_size), sharded=sharded)
    return difference(fit(many, estimator, **settings), one)


class Seen(hg.Callback):
    """Keeps the numbers of entries of what callbacks get, and of a state."""

    def on_step(self, record: hg.Record) -> None:
        self.record = {name: x.numel() for name, x in (record.hparams | record.grad).items()}

    def on_state(self, step: int, state: dict[str, Any]) -> None:
        self.state = state


def kept() -> dict[str, Any]:
    """What a rank keeps of hyperparameters that are spread, and what callbacks get."""
    seen = Seen()
    problem = hg.DataParallel(supervised(), sharded=BOTH)
    result = fit(problem, ESTIMATORS["unrolled"][0], outer_steps=1, callbacks=[seen])
    state = seen.state
    moments = [x for entry in state["optimizer"]["state"].values() for x in entry.values() if not isinstance(x, Tensor)]
    return {
        "u": {name: len(state["u"][name].own) for name in BOTH},
        "optimizer": sum(x.own.numel() for x in moments),
        "records": [{name: len(one["grad"][name].own) for name in BOTH} for one in state["records"]],
        "callbacks": seen.record,
        "result": {name: x.numel() for name, x in result.hparams.items()},
    }


def cleaning() -> dict[str, float]:
    """Metrics, the last training and the files of a run, against those of one process."""
    torch.manual_seed(0)
    parts = [hg.Split(X, y.argmax(1)) for X, y in ((torch.randn(n, 3), torch.randn(n, 3)) for n in DRAWN)]
    make = partial(hg.HyperCleaning, hg.Splits(*parts), l2=0.1, batch_size=5, micro_batch=2)
    settings: dict[str, Any] = {"outer_steps": 2, "retrain": True}
    path = folder() / "cleaning"
    one = fit(make(), ESTIMATORS["unrolled"][0], **settings)
    callbacks = [hg.ModelSaver(path), hg.JSONLines(path)]
    many = fit(hg.DataParallel(make(), sharded=["weights"]), ESTIMATORS["unrolled"][0], callbacks=callbacks, **settings)
    assert one.final_model is not None
    assert many.final_model is not None
    return {
        "metrics": max(abs(many.last.metrics[name] - x) for name, x in one.last.metrics.items()),
        "last training": error(many.final_model.params, one.final_model.params),
        "weights of train and dev": error(many.final_model.hparams, one.final_model.hparams),
        "run": difference(many, one),
        "file": error(hg.load_hparams(path), one.hparams) if dist.get_rank() == 0 else 0.0,
    }


def histograms() -> list[float]:
    """The number of event files, and of the entries in a histogram of λ and one of dF/dλ."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path = folder() / f"tensorboard-{dist.get_world_size()}"
    problem = hg.DataParallel(supervised(), sharded=BOTH)
    fit(problem, ESTIMATORS["unrolled"][0], outer_steps=1, callbacks=[hg.TensorBoard(path)])
    events = EventAccumulator(str(path))
    events.Reload()
    last = [events.Histograms(tag)[-1].histogram_value.num for tag in ("hparam/weights", "hypergradient/weights")]
    return [len(list(path.glob("events*"))), *last]


def folder() -> Path:
    """Where states are, as the test says."""
    return Path(os.environ[STATES])


def interrupted() -> float:
    """Write states until step 4 of 10; the difference of going on there at the same number of ranks."""
    estimator, batch_size = ESTIMATORS["mini-batches"]
    path = folder() / str(dist.get_world_size())
    saver = hg.StateSaver(path, every=2)
    make = partial(hg.DataParallel, supervised(batch_size), sharded=BOTH)
    fit(make(), estimator, outer_steps=4, callbacks=[saver])
    whole, again = fit(make(), estimator), fit(make(), estimator, resume=path)
    return difference(again, whole)


def resumed(before: int) -> float:
    """The difference of going on where `before` ranks stopped, from the numbers of one process."""
    estimator, batch_size = ESTIMATORS["mini-batches"]
    problem = hg.DataParallel(supervised(batch_size), sharded=BOTH)
    again = fit(problem, estimator, resume=folder() / str(before), any_world=True)
    return difference(again, fit(supervised(batch_size), estimator))


def cases() -> dict[str, Callable[[], Any]]:
    plain: dict[str, Callable[[], Any]] = {
        f"{kind}, {' and '.join(names)}": partial(trajectory, kind, names)
        for kind, names in [("implicit", BOTH), ("unrolled", ["l2"]), ("mini-batches", BOTH)]
    }
    accepted = {"acceptance": hg.Acceptance(), "optimizer": partial(torch.optim.SGD, lr=2e3), "outer_steps": 4}
    return {
        **plain,
        "acceptance": partial(trajectory, "implicit", BOTH, **accepted),
        "kept": kept,
        "cleaning": cleaning,
        "interrupted": interrupted,
    }


def every_optimizer() -> dict[str, Callable[[], Any]]:
    """For slow tests."""
    kinds: list[Any] = [
        partial(torch.optim.SGD, lr=0.5, momentum=0.9),
        *(
            getattr(torch.optim, name)
            for name in ("Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam")
        ),
        torch.optim.RAdam,
    ]
    return {
        **{
            f"{kind}, {names}": partial(trajectory, kind, names)
            for kind in ESTIMATORS
            for names in (BOTH, BOTH[:1], BOTH[1:])
        },
        **{str(k): partial(trajectory, "mini-batches", BOTH, optimizer=kind) for k, kind in enumerate(kinds)},
        "histograms": histograms,
        "interrupted": interrupted,
    }


def going_on() -> dict[str, Callable[[], Any]]:
    """On another number of ranks than the four that wrote the states."""
    return {"resumed": partial(resumed, 4)}
