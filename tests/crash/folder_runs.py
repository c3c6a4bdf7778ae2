"""Short runs of many kinds in a folder, and what must be the same in the folders of two of them."""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

import hypergrad as hg
from hypergrad.callback import state_file

STEPS = 3
ADAM = partial(torch.optim.Adam, lr=0.05)
SGD = partial(torch.optim.SGD, lr=0.05)
IMPLICIT = hg.Implicit(solver=hg.Momentum(lr=0.05), inner_tol=1e-4, error_bar=False)
UNROLLED = hg.Unrolled(solver=hg.Momentum(lr="rate"), inner_steps=4)
ONE_LOOP = hg.SingleLoop(method=hg.SOBA(solver=hg.GradientDescent(lr=0.05)))


class Noisy(Dataset):
    """Examples that are drawn anew in each epoch."""

    def __init__(self, seed: int, n: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.X, self.y = torch.randn(n, 5, generator=generator), torch.arange(n) % 3

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> Any:
        return self.X[index] + 0.1 * torch.randn(5), self.y[index]


def table(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 5, generator=generator), torch.arange(n) % 3


def network(dropout: float = 0.3, rate: bool = True, **settings: Any) -> hg.Supervised:
    """A network with dropout, on mini-batches."""
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Dropout(dropout), nn.Linear(4, 3)).double()
    tuned: dict[str, Any] = {"l2": hg.L2(init=1e-2, per="tensor")}
    tuned |= {"rate": hg.Hyperparameter(0.1, constraint=hg.positive)} if rate else {}
    data: dict[str, Any] = {"train": table(1, 40), "dev": table(2, 12), "test": table(3, 12)}
    return hg.Supervised(model=model, loss=cross_entropy, hyperparameters=tuned, batch_size=8, **data | settings)


def _streamed() -> hg.Supervised:
    return network(train=Noisy(1, 40), dev=Noisy(2, 12), stream=True)


def _ridge() -> hg.Ridge:
    return hg.Ridge(hg.diabetes(seed=3), per_feature=True)


RUNS: dict[str, tuple[Callable[[], hg.InnerProblem], hg.HypergradEstimator, Any, dict[str, Any]]] = {
    "batches and dropout": (network, UNROLLED, ADAM, {}),
    "lbfgsb": (_ridge, IMPLICIT, hg.LBFGSB, {}),
    "lbfgs": (_ridge, IMPLICIT, partial(torch.optim.LBFGS, line_search_fn="strong_wolfe", max_iter=2), {}),
    "acceptance": (_ridge, IMPLICIT, partial(torch.optim.SGD, lr=20.0), {"acceptance": hg.Acceptance()}),
    "patience": (network, UNROLLED, partial(torch.optim.SGD, lr=20.0, maximize=True), {"patience": 0}),
    "folds": (lambda: hg.k_fold(network(0.0), 3, seed=0), UNROLLED, ADAM, {}),
    "plateau": (
        network,
        UNROLLED,
        ADAM,
        {"scheduler": partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0)},
    ),
    "cosine": (network, UNROLLED, ADAM, {"scheduler": partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=8)}),
    "retrain": (network, UNROLLED, ADAM, {"retrain": True}),
    "single loop": (partial(network, 0.3, False), ONE_LOOP, SGD, {"record_every": 2}),
    "streamed": (_streamed, UNROLLED, ADAM, {}),
    "dev sample": (partial(network, dev_sample=6), UNROLLED, ADAM, {"exact_every": 2}),
    "forward online": (
        lambda: hg.Quadratic(size=7),
        hg.Forward(solver=hg.Momentum(lr=0.02), inner_steps=5, online=True),
        ADAM,
        {},
    ),
}


def tuned(name: str, folder: Path, steps: int = STEPS, **further: Any) -> hg.Result:
    """The run of a name in a folder; the same call goes on with what it finds there."""
    problem, estimator, optimizer, settings = RUNS[name]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        for seed in (torch.manual_seed, random.seed, np.random.seed):
            seed(1)
        every = {"folder": folder, "progress": False} | settings | further
        return hg.fit(problem(), estimator, optimizer, steps, **every)
    finally:
        torch.set_default_dtype(before)


def evidence(folder: Path) -> dict[str, Any]:
    """All that the folder of a run says, without wall time and the addresses of this folder."""
    events = EventAccumulator(str(folder)).Reload()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    labels = folder / "labels.json"
    return {
        "metrics": [json.loads(line) for line in lines],
        "events": {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in ("loss/dev", "run/products")},
        "state": state_file.read(folder),
        "summary": json.loads((folder / "summary.json").read_text()),
        "labels": json.loads(labels.read_text()) if labels.exists() else None,
        "hparams": yaml.safe_load((folder / "hparams.yaml").read_text()),
        "models": {path.name: torch.load(path, weights_only=True) for path in folder.glob("model*.pt")},
        "unfinished": [path.name for path in folder.glob("*.part")],
    }


def require_same(a: Any, b: Any, where: str = "") -> None:
    """Require that two things are the same bits, but for wall time."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), (where, a.keys() ^ b.keys())
        for key in a.keys() - {"seconds", "run/seconds"}:
            require_same(a[key], b[key], f"{where} {key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), (where, len(a), len(b))
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            require_same(x, y, f"{where} {index}")
    else:
        same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b or (a != a and b != b)
        assert same, f"{where}: {str(a)[:200]} and {str(b)[:200]}"


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The whole rows of `metrics.jsonl`, without wall time."""
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{key: value for key, value in row.items() if key != "run/seconds"} for row in rows]
