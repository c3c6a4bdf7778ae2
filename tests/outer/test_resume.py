"""A run that is cut short at any moment goes on to the same bits."""

import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from slow_cases import mostly_slow
from tables import PROBLEMS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import hypergrad as hg
from hypergrad.callback import history_file, state_file
from hypergrad.callback.base import Callback
from hypergrad.callback.jsonl import JSONLines
from hypergrad.callback.state_saver import StateSaver
from hypergrad.callback.tensorboard import TensorBoard
from hypergrad.outer.loop import Loop

ADAM = partial(torch.optim.Adam, lr=0.05)
IMPLICIT = hg.Implicit(solver=hg.Momentum(lr=0.05), inner_tol=1e-4, error_bar=False)


def with_dropout():
    """Mini-batches and dropout."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 10)).double()
    data = hg.digits()
    return hg.Supervised(
        model=model,
        loss=nn.functional.cross_entropy,
        train=data.train,
        dev=data.dev,
        test=data.test,
        hyperparameters={
            "l2": hg.L2(init=1e-3, per="tensor"),
            "rate": hg.Hyperparameter(0.1, constraint=hg.positive),
        },
        batch_size=64,
    )


def trainer(folder, *, problem=None, estimator=None, optimizer: Any = ADAM, steps=12, callbacks=(), **settings):
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    return hg.Trainer(
        problem=problem or with_dropout(),
        estimator=estimator or hg.Unrolled(solver=hg.Momentum(lr="rate"), inner_steps=15),
        optimizer=optimizer,
        outer_steps=steps,
        callbacks=[JSONLines(folder), TensorBoard(folder), StateSaver(folder, every=2), *callbacks],
        **settings,
    )


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "run/seconds"} for row in rows]


def events_of(folder):
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value) for event in events.Scalars("loss/dev")]


def require_same(a, b, where=""):
    """Require that two states are the same bits, but for wall time."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"seconds", "run/seconds"}:
            require_same(a[key], b[key], f"{where} {key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            require_same(x, y, f"{where} {index}")
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b or (a != a and b != b), (where, a, b)


def in_a_child(work) -> int:
    """A forked process that does the work and ends without cleaning up."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def killed_at(moment, folder):
    """Begin a run, or go on with it, in another process, and kill that."""
    resume = folder if state_file.found(folder) else None
    pid = in_a_child(lambda: trainer(folder).fit(resume=resume))
    time.sleep(moment)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody killed, and how long it took."""
    torch.set_default_dtype(torch.float64)
    folder, begin = tmp_path_factory.mktemp("whole"), time.perf_counter()
    trainer(folder).fit()
    return folder, time.perf_counter() - begin


def require_same_run(folder, whole):
    assert rows_of(folder) == rows_of(whole)
    assert events_of(folder) == events_of(whole)
    assert [step for step, _ in events_of(folder)] == list(range(13))
    require_same(state_file.read(folder), state_file.read(whole))


def kill_and_resume(folder, whole, moments):
    for moment in moments:
        killed_at(moment, folder)
        time.sleep(1.1)  # TensorBoard's files are in the order of their second
    resume = folder if state_file.found(folder) else None
    # Killed before its first state, a run begins anew, in another folder: its first row may be there already.
    folder = folder if resume else folder / "again"
    trainer(folder).fit(resume=resume)
    require_same_run(folder, whole)


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, whole):
    folder, seconds = whole
    moments = random.Random(0)
    kill_and_resume(tmp_path, folder, [0.3 + moments.random() * seconds * 0.6 for _ in range(2)])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_run_killed_at_any_moment_goes_on_to_the_same_bits(tmp_path, whole, seed):
    folder, seconds = whole
    kill_and_resume(tmp_path, folder, [random.Random(seed).random() * seconds * 1.2])


class Stop(Callback):
    """Breaks off at a step, as a person or a machine would."""

    def __init__(self, step, what):
        self.step, self.what = step, what

    def on_step(self, record):
        if record.step == self.step:
            self.what()


def interrupt():
    raise KeyboardInterrupt


ENDS = {
    "ctrl-c": (interrupt, KeyboardInterrupt),
    "sigterm": (lambda: os.kill(os.getpid(), signal.SIGTERM), KeyboardInterrupt),
}


@pytest.mark.parametrize(("what", "kind"), ENDS.values(), ids=ENDS)
def test_a_signal_leaves_a_state_between_the_regular_ones(tmp_path, whole, what, kind):
    class StopBehind(Stop):
        def on_state(self, step, state):
            if step == self.step:
                self.what()

        def on_step(self, record):
            pass

    with pytest.raises(kind):
        trainer(tmp_path, callbacks=[StopBehind(5, what)]).fit()
    assert state_file.read(tmp_path)["step"] == 5
    time.sleep(1.1)
    trainer(tmp_path).fit(resume=tmp_path)
    require_same_run(tmp_path, whole[0])


OPTIMIZERS = {
    "adam": (ADAM, {}),
    "lbfgs": (partial(torch.optim.LBFGS, line_search_fn="strong_wolfe", max_iter=2), {}),
    "lbfgsb": (hg.LBFGSB, {}),
    "plateau": (ADAM, {"scheduler": partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0)}),
    "cosine": (ADAM, {"scheduler": partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=8)}),
    "inverse root": (
        ADAM,
        {"scheduler": partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=hg.InverseRoot(base=1.0))},
    ),
    "acceptance": (partial(torch.optim.SGD, lr=20.0), {"acceptance": hg.Acceptance()}),
    "cold": (ADAM, {"warm_start": False, "max_grad_norm": 0.1}),
}


@pytest.mark.parametrize(("optimizer", "settings"), mostly_slow(OPTIMIZERS, ["adam", "lbfgsb", "acceptance"]))
def test_every_optimiser_goes_on_to_the_same_bits(tmp_path, optimizer, settings):
    def make(folder, callbacks=()):
        return trainer(
            folder,
            problem=PROBLEMS["ridge-per-feature" if optimizer is hg.LBFGSB else "quadratic"],
            estimator=IMPLICIT,
            optimizer=optimizer,
            steps=7,
            callbacks=callbacks,
            **settings,
        )

    make(tmp_path / "whole").fit()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "cut", [Stop(5, interrupt)]).fit()
    result = make(tmp_path / "cut").fit(resume=tmp_path / "cut")
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    require_same(state_file.read(tmp_path / "cut"), state_file.read(tmp_path / "whole"))
    assert [row["step"] for row in result.history] == list(range(len(rows_of(tmp_path / "whole"))))


def quick(folder, **settings):
    return trainer(folder, **({"problem": PROBLEMS["ridge"], "estimator": IMPLICIT, "steps": 4} | settings))


ONLINE = hg.Forward(solver=hg.Momentum(lr=0.02), inner_steps=5, online=True)


def test_online_forward_mode_goes_on_to_the_same_bits(tmp_path):
    settings = {"problem": PROBLEMS["quadratic"], "estimator": ONLINE}
    quick(tmp_path / "whole", steps=6, **settings).fit()
    quick(tmp_path / "cut", steps=4, **settings).fit()
    quick(tmp_path / "cut", steps=6, **settings).fit(resume=tmp_path / "cut")
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    require_same(state_file.read(tmp_path / "cut"), state_file.read(tmp_path / "whole"))


def test_the_packed_derivatives_of_an_earlier_version_are_refused(tmp_path):
    settings = {"problem": PROBLEMS["quadratic"], "estimator": ONLINE}
    quick(tmp_path, **settings).fit()
    (path, *_) = reversed(state_file.found(tmp_path))
    torch.save(torch.load(path, weights_only=True) | {"adjoint": torch.zeros(9, 15)}, path)
    with pytest.raises(ValueError, match="Continue that run with the version that began it, or begin a new run"):
        quick(tmp_path, steps=6, **settings).fit(resume=path)


def test_more_steps_can_be_added_to_a_run_that_ended(tmp_path):
    quick(tmp_path / "long", steps=6).fit()
    quick(tmp_path / "short").fit()
    quick(tmp_path / "short", steps=6).fit(resume=tmp_path / "short")
    assert rows_of(tmp_path / "short") == rows_of(tmp_path / "long")


def with_history(folder: Path):
    """Turn the states of a run into those of the version before, which held the history themselves."""
    for path in state_file.found(folder):
        torch.save({**state_file.read(path), "version": 2}, path)
    (folder / "history.jsonl").unlink()


@pytest.mark.parametrize("name", ["ridge", "ridge-per-feature"])
def test_a_state_of_the_version_before_goes_on_to_the_same_bits(tmp_path, name):
    settings = {"problem": PROBLEMS[name]}
    quick(tmp_path / "whole", steps=6, **settings).fit()
    quick(tmp_path / "cut", **settings).fit()
    with_history(tmp_path / "cut")
    result = quick(tmp_path / "cut", steps=6, **settings).fit(resume=tmp_path / "cut")
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    require_same(state_file.read(tmp_path / "cut"), state_file.read(tmp_path / "whole"))
    assert all(len(path) == 7 for path in result.trajectory.values())


def test_a_run_goes_on_in_another_folder_with_its_whole_history(tmp_path):
    quick(tmp_path / "a").fit()
    quick(tmp_path / "b", steps=6).fit(resume=tmp_path / "a")
    assert [row["step"] for row in state_file.read(tmp_path / "b")["history"]] == list(range(7))


def test_a_state_without_its_history_is_refused(tmp_path):
    quick(tmp_path).fit()
    lines = (tmp_path / "history.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "history.jsonl").write_text("".join(lines[:4]))
    with pytest.raises(hg.CheckpointError, match=r"needs the first 5 records .* holds 4; .* of step 2, can be read"):
        quick(tmp_path).fit(resume=tmp_path)
    (tmp_path / "history.jsonl").unlink()
    with pytest.raises(hg.CheckpointError, match="holds 0; a state file goes with the history.jsonl beside it"):
        quick(tmp_path).fit(resume=tmp_path)


def test_a_save_writes_as_much_at_every_step(tmp_path, monkeypatch):
    """The bytes of each state, and the records that each save appends."""
    appended, sizes = [], {}
    append = history_file.HistoryFile.append

    def counted(self, history, trajectory):
        before = self.rows
        append(self, history, trajectory)
        appended.append(self.rows - before)

    class Weigh(Callback):
        def on_state(self, step, state):
            sizes.update({path.name: path.stat().st_size for path in state_file.found(tmp_path)})

    monkeypatch.setattr(history_file.HistoryFile, "append", counted)
    quick(tmp_path, steps=40, callbacks=[Weigh()]).fit()
    assert appended == [1] + 20 * [2]
    assert len(sizes) == 21
    assert len({size for name, size in sizes.items() if name > "state-000008.pt"}) == 1
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 41


def test_a_state_is_built_for_those_who_keep_it_only_and_later_steps_do_not_change_it(monkeypatch):
    built, kept = [], {}
    state = Loop.state
    monkeypatch.setattr(Loop, "state", lambda self, last: built.append(last.step) or state(self, last))

    class Keep(Callback):
        def on_state(self, step, state):
            kept[step] = state

    def fitted(*callbacks):
        hg.fit(PROBLEMS["ridge"], IMPLICIT, ADAM, 3, progress=False, callbacks=callbacks)

    fitted(Stop(9, interrupt))
    assert built == []
    fitted(Keep())
    assert built == [0, 1, 2, 3]
    for step, one in kept.items():
        assert [row["step"] for row in one["history"]] == list(range(step + 1))
        assert len(one["trajectory"]["l2"]) == step + 1
        assert one["history"][-1]["step"] == step
        assert torch.equal(one["trajectory"]["l2"][-1], one["hparams"]["l2"])


def damage_truncated(path: Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_foreign(path: Path):
    torch.save({"state_dict": {}}, path)


def damage_later(path: Path):
    torch.save(torch.load(path, weights_only=True) | {"version": 99}, path)


def damage_code(path: Path):
    torch.save({"format": "hypergrad state", "step": Stop}, path)


DAMAGES = {
    "truncated": (damage_truncated, "cannot be read: it is truncated"),
    "foreign": (damage_foreign, "is not the state of a run of hypergrad"),
    "of a later version": (damage_later, "is of version 99 of the format, and this hypergrad reads versions 2 and 3"),
    "code": (damage_code, "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_bad_file_is_refused_by_name_and_the_one_before_is_offered(tmp_path, damage, message):
    quick(tmp_path).fit()
    assert [path.name for path in state_file.found(tmp_path)] == ["state-000002.pt", "state-000004.pt"]
    damage(tmp_path / "state-000004.pt")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    pattern = rf"state-000004.pt {message}.* of step 2, can be read: resume=\S+state-000002.pt"
    with pytest.raises(hg.CheckpointError, match=pattern):
        quick(tmp_path).fit(resume=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    result = quick(tmp_path, steps=5).fit(resume=tmp_path / "state-000002.pt")
    assert [row["step"] for row in rows_of(tmp_path)] == [0, 1, 2, 3, 4, 5]
    assert result.last.step == 5
    assert state_file.read(tmp_path)["step"] == 5


def test_the_state_of_another_experiment_is_refused(tmp_path):
    quick(tmp_path).fit()
    for settings, name in [
        ({"problem": PROBLEMS["quadratic"]}, "problem was Ridge, and here it is Quadratic"),
        ({"problem": hg.Ridge(hg.diabetes(seed=2))}, "data was"),
        ({"problem": hg.Ridge(hg.diabetes(seed=1), l2=2.0)}, "initial hyperparameters was"),
        ({"estimator": hg.Unrolled()}, "estimator was Implicit"),
        ({"optimizer": partial(torch.optim.Adam, lr=0.1)}, "optimizer was Adam"),
    ]:
        with pytest.raises(hg.CheckpointError, match=f"belongs to another experiment: its {name}"):
            quick(tmp_path, **settings).fit(resume=tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no state-"):
        quick(tmp_path).fit(resume=tmp_path.parent)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        quick(tmp_path).fit(resume=tmp_path / "state-000009.pt")


class Watched(hg.Ridge):
    """With a metric that is least at l2 = 0.9, which descent on the dev loss passes by."""

    def metrics(self, params, hparams) -> dict[str, torch.Tensor | float]:
        return {"watch_loss": (hparams["l2"] - 0.9).square()}


def test_the_best_by_a_monitor_outlives_a_resume(tmp_path):
    settings = {"problem": Watched(hg.diabetes(seed=3)), "monitor": "watch_loss"}
    whole = quick(tmp_path / "whole", steps=6, **settings).fit()
    quick(tmp_path / "cut", steps=4, **settings).fit()
    result = quick(tmp_path / "cut", steps=6, **settings).fit(resume=tmp_path / "cut")
    assert result.best.step == whole.best.step < 4
    assert torch.equal(result.best.hparams["l2"], whole.best.hparams["l2"])
    with pytest.raises(hg.CheckpointError, match="its monitor was watch_loss, and here it is outer_loss"):
        quick(tmp_path / "cut", problem=settings["problem"]).fit(resume=tmp_path / "cut")


@pytest.mark.parametrize("where", ["save", "fsync", "replace"])
def test_a_full_disk_loses_nothing_that_was_saved(tmp_path, monkeypatch, where):
    """The disk fills up while the state of step 4 is written."""
    quick(tmp_path / "whole", steps=6).fit()

    def is_full(*arguments, **_):
        if where == "save":
            arguments[1].write(b"half a state")
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill():
        monkeypatch.setattr(
            *{"save": (torch, "save"), "fsync": (os, "fsync"), "replace": (Path, "replace")}[where], is_full
        )

    class FillBehind(Callback):
        def on_step(self, record):
            if record.step == 4:
                fill()

    with pytest.raises(OSError, match="No space left") as caught:
        quick(tmp_path / "full", steps=6, callbacks=[FillBehind()]).fit()
    if where != "replace":  # which is no writing, and has the name in the error of a real disk
        assert re.search(r"(state-000004.pt|.*\.jsonl) could not be written, and .* free .* resume=", str(caught.value))
    assert "StateSaver could not save what was reached" in "".join(caught.value.__notes__)
    monkeypatch.undo()
    assert {path.name for path in (tmp_path / "full").glob("state*")} == {"state-000000.pt", "state-000002.pt"}
    quick(tmp_path / "full", steps=6).fit(resume=tmp_path / "full")
    assert rows_of(tmp_path / "full") == rows_of(tmp_path / "whole")


def fill_and_go_on(folder: Path, whole: Path, limit, lift):
    """In this process: the disk is full from step 4 on, and has room again after the run has failed."""

    class FillBehind(Callback):
        def on_step(self, record):
            if record.step == 4:
                limit()

    with pytest.raises(OSError, match="No space left on device|File too large"):
        quick(folder, steps=6, callbacks=[FillBehind()]).fit()
    assert [state_file.read(path)["step"] for path in state_file.found(folder)] == [0, 2]
    assert not list(folder.glob("*.tmp"))
    lift()
    quick(folder, steps=6).fit(resume=folder)
    assert rows_of(folder) == rows_of(whole)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of TensorBoard's writer
def test_a_limit_on_the_size_of_files_loses_nothing_that_was_saved(tmp_path):
    quick(tmp_path / "whole", steps=6).fit()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def lift():
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    try:
        fill_and_go_on(
            tmp_path / "full",
            tmp_path / "whole",
            lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1])),
            lift,
        )
    finally:
        lift()
        signal.signal(signal.SIGXFSZ, ignored)


ON_A_SMALL_DISK = """
import os, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
torch.set_default_dtype(torch.float64)
import test_resume

disk, whole = map(Path, sys.argv[2:])

def limit():
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass

test_resume.fill_and_go_on(disk / "run", whole, limit, (disk / "filler").unlink)
print("went on")
"""


@pytest.mark.slow
def test_a_small_disk_that_fills_up_loses_nothing_that_was_saved(tmp_path):
    """A tmpfs of 2 MB, in a mount namespace of its own."""
    quick(tmp_path / "whole", steps=6).fit()
    (disk := tmp_path / "disk").mkdir()
    mount = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"',
        disk,
    ]
    if shutil.which("unshare") is None or subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    here = Path(__file__).parent
    done = subprocess.run(
        [*mount, sys.executable, "-W", "error::UserWarning", "-c", ON_A_SMALL_DISK, here, disk, tmp_path / "whole"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (here.parents[1], here.parent)))},
    )
    assert "went on" in done.stdout, done.stderr


def test_states_are_in_order_beyond_a_million_steps(tmp_path):
    for step in (1_000_000, 999_999):
        (tmp_path / f"state-{step:06d}.pt").touch()
    assert [path.name for path in state_file.found(tmp_path)] == ["state-999999.pt", "state-1000000.pt"]
