"""A run whose examples are read when they are used goes on to the same bits, whatever reads them."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from slow_cases import mostly_slow
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, IterableDataset

import hypergrad as hg
from hypergrad.callback import state_file
from hypergrad.callback.jsonl import JSONLines
from hypergrad.callback.state_saver import StateSaver

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # where there are few cores


class Noisy(Dataset):
    """Examples that are drawn anew in each epoch."""

    def __init__(self, seed: int, n: int, delay: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.X, self.y, self.delay = torch.randn(n, 5, generator=generator), torch.arange(n) % 3, delay

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> Any:
        time.sleep(self.delay)
        return self.X[index] + 0.1 * torch.randn(5), self.y[index]


class Shuffled(IterableDataset):
    """The same in an order drawn for each pass."""

    def __init__(self, data: Noisy) -> None:
        self.data = data

    def __iter__(self) -> Any:
        return (self.data[i] for i in torch.randperm(len(self.data)).tolist())


def trainer(folder: Path, num_workers: int, *, in_order: bool = False, delay: float = 0.0, **settings: Any):
    torch.manual_seed(1)
    train = Noisy(1, 40, delay)
    problem = hg.Supervised(
        model=nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Dropout(0.2), nn.Linear(4, 3)).double(),
        loss=cross_entropy,
        dev=Noisy(2, 12),
        hyperparameters={"l2": hg.L2(init=1e-2, per="tensor")},
        batch_size=6,
        num_workers=num_workers,
        **{"train": Shuffled(train) if in_order else train, "stream": True} | settings,
    )
    return hg.Trainer(
        problem=problem,
        estimator=hg.Unrolled(solver=hg.Momentum(lr=0.1), inner_steps=5),
        optimizer=partial(torch.optim.Adam, lr=0.05),
        outer_steps=6,
        callbacks=[JSONLines(folder), StateSaver(folder, every=1)],
    )


def bits(folder: Path) -> tuple[list[Any], torch.Tensor]:
    """The rows and the last λ of a run."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [{key: x for key, x in json.loads(line).items() if key != "run/seconds"} for line in lines]
    return rows, state_file.read(folder)["hparams"]["l2"]


def require_same_run(folder: Path, wanted: tuple[list[Any], torch.Tensor]) -> None:
    rows, hparams = bits(folder)
    assert rows == wanted[0]
    assert torch.equal(hparams, wanted[1])


def cut_short(folder: Path, num_workers: int, **settings: Any) -> None:
    """A run that breaks off after its third step."""

    class Stop(hg.Callback):
        def on_step(self, record: Any) -> None:
            if record.step == 3:
                raise KeyboardInterrupt

    run = trainer(folder, num_workers, **settings)
    with pytest.raises(KeyboardInterrupt):
        replace(run, callbacks=[*run.callbacks, Stop()]).fit()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("in_order", mostly_slow({"map": False, "in order": True}, ["map"]))
def test_a_run_goes_on_with_any_number_of_workers(tmp_path, in_order):
    trainer(tmp_path / "whole", 0, in_order=in_order).fit()
    wanted = bits(tmp_path / "whole")
    cut_short(tmp_path / "cut", 2, in_order=in_order)
    trainer(tmp_path / "cut", 0, in_order=in_order).fit(resume=tmp_path / "cut")
    require_same_run(tmp_path / "cut", wanted)


def test_other_data_and_data_in_memory_are_another_run(tmp_path):
    cut_short(tmp_path, 0)
    with pytest.raises(hg.CheckpointError, match="its batches was .*, streamed train, dev, and here it is"):
        trainer(tmp_path, 0, stream=False).fit(resume=tmp_path)
    changed = Noisy(1, 40)
    changed.X[39] += 1
    with pytest.raises(hg.CheckpointError, match="its data was"):
        trainer(tmp_path, 0, train=changed).fit(resume=tmp_path)


def begin_and_kill(folder: Path, num_workers: int, moment: float) -> None:
    """Begin a run, or go on with it, in another process, and kill that at a moment after its first state."""
    resume = folder if state_file.found(folder) else None
    pid = os.fork()
    if pid == 0:
        try:
            trainer(folder, num_workers, delay=4e-3).fit(resume=resume)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 60
    while not state_file.found(folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(moment)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, num_workers, seed):
    trainer(tmp_path / "whole", 0).fit()
    moments = random.Random(seed)
    for _ in range(2):
        begin_and_kill(tmp_path / "cut", num_workers, moments.random() * 0.7)
    trainer(tmp_path / "cut", num_workers).fit(resume=tmp_path / "cut")
    require_same_run(tmp_path / "cut", bits(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 3])
def test_no_process_outlives_a_killed_run(tmp_path, num_workers):
    source = f"""
import os, sys, time
sys.path[:0] = {[str(folder) for folder in Path(__file__).parents[:2]]!r}
from test_resume_of_streams import *
run = trainer(Path({str(tmp_path)!r}), {num_workers})
run.problem.inner_batch(0)
import multiprocessing
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", source], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        children = [int(pid) for pid in process.stdout.readline().split()]
        process.kill()
    assert len(children) == num_workers
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
