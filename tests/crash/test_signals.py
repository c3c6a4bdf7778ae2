"""Signals at any call that changes a file, clocks that are set back, and two processes at once."""

import json
import os
import random
import re
import signal
import time
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from folder_runs import ADAM, IMPLICIT, evidence, require_same, tuned
from moments import in_a_child, killed, nothing, signalled
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_kills import run, undisturbed

import hypergrad as hg
from hypergrad.callback import state_file
from hypergrad.table.read import read_run

pytestmark = pytest.mark.filterwarnings("ignore")
SEED, NAME = 18, "batches and dropout"


def signal_and_go_on(at: int, kind: int, again_after: int | None, folder: Path, whole: dict[str, Any]) -> str:
    """Send a signal at a call, and perhaps a second one; then go on. How the first part ended."""
    end = run(NAME, folder, signalled(at, kind, again_after))
    where = f"signal {kind} at call {at}, again after {again_after}: {end.said}"
    first = [line for line in end.said.splitlines() if re.match(r"[\w.]*(Error|Interrupt|Terminated)\b", line)]
    # The default of SIGTERM ends a process before and after the steps, and at the second signal.
    assert end.signal in (0, signal.SIGTERM), where
    assert end.code != 2, where
    assert not [line for line in first if "Error" in line], where
    kept = [state_file.read(path)["step"] for path in state_file.found(folder)]
    again = run(NAME, folder, nothing)
    assert again.code == 0, f"{where}: {again.said}"
    require_same(evidence(folder), whole, f"{where} {kept}")
    return "killed" if end.signal else {0: "returned", 3: "raised"}[end.code]


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_at_any_call_is_an_interrupt(kind, tmp_path, cache):
    whole, calls = undisturbed(NAME, tmp_path, cache)
    at = random.Random(f"{SEED} {kind}").randrange(calls)
    assert signal_and_go_on(at, kind, None, tmp_path / "run", whole)


@pytest.mark.slow
@pytest.mark.parametrize("again_after", [None, 1, 2, 7])
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signals_at_many_calls(kind, again_after, tmp_path, cache):
    whole, calls = undisturbed(NAME, tmp_path, cache)
    moments, counts = random.Random(f"{SEED} {kind} {again_after}"), {}
    for number in range(12):
        at = moments.randrange(calls)
        how = signal_and_go_on(at, kind, again_after, tmp_path / str(number), whole)
        counts[how] = counts.get(how, 0) + 1
    print(f"{signal.Signals(kind).name}, again after {again_after}: {counts}, seed {SEED}")


def test_a_signal_while_torch_writes_a_state_is_an_interrupt(tmp_path, monkeypatch):
    """torch's writer hides what its file raises behind an error of its own."""
    fired = []

    class File:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            if not fired and len(data) > 100:
                fired.append(True)
                os.kill(os.getpid(), signal.SIGINT)
            return self.file.write(data)

        def flush(self) -> None:
            self.file.flush()

    save = torch.save
    monkeypatch.setattr(torch, "save", lambda content, file: save(content, cast(Any, File(file))))
    assert tuned(NAME, tmp_path).stopped == "interrupted"
    assert fired
    assert state_file.read(tmp_path)["step"] == 0
    assert tuned(NAME, tmp_path).last.step == 3


class AtTheEnd(hg.Callback):
    """Is asked to end by SIGTERM when the steps are done, and notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_end(self, result: hg.Result) -> None:
        self.heard.append("end")
        os.kill(os.getpid(), signal.SIGTERM)

    def on_error(self, error: BaseException, last: hg.Record | None) -> None:
        self.heard.append(type(error).__name__)
        print(self.heard)


def test_a_signal_at_the_end_saves_what_is_not_saved_yet(tmp_path):
    """Callbacks whose end was before hear nothing, and the others save what was reached."""
    folder, before = tmp_path / "run", AtTheEnd()
    callbacks = [hg.ModelSaver(folder), before, hg.StateSaver(folder, every=100), hg.Summary(folder)]

    def work() -> None:
        hg.Trainer(
            problem=hg.Quadratic(size=3), estimator=IMPLICIT, optimizer=ADAM, outer_steps=3, callbacks=callbacks
        ).fit()

    end = in_a_child(work, tmp_path, nothing, tmp_path / "log")
    assert (end.signal, end.code) == (0, 3), end.said
    assert "['end', 'Terminated']" in end.said
    assert state_file.read(folder)["step"] == 3
    assert read_run(folder).status == "interrupted"
    assert (folder / "model.pt").exists()


def test_a_clock_that_was_set_back_changes_nothing(tmp_path, monkeypatch, cache):
    """Files of events keep their order, and nothing depends on when a file was changed."""
    whole, _ = undisturbed(NAME, tmp_path, cache)
    folder, now = tmp_path / "run", time.time
    for steps, hours in {1: 0, 2: -5, 3: -9}.items():
        monkeypatch.setattr(time, "time", lambda hours=hours: now() + 3600 * hours)
        tuned(NAME, folder, steps)
        for number, path in enumerate(sorted(folder.glob("*"), reverse=True)):
            os.utime(path, (2e9 - number, 2e9 - number))
    monkeypatch.undo()
    require_same(evidence(folder)["metrics"], whole["metrics"])
    require_same(evidence(folder)["events"], whole["events"])
    require_same(evidence(folder)["state"]["hparams"], whole["state"]["hparams"])


def test_parts_of_a_run_within_a_second_are_shown_once(tmp_path):
    """More than ten, as the names of their files end in a counter, and "10" comes before "9"."""
    for steps in range(12):
        tuned("forward online", tmp_path, steps)
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("loss/dev")
    assert [event.step for event in events] == list(range(12))


def test_a_killed_part_of_a_finished_run_is_unfinished(tmp_path):
    """The summary of the first part would be taken for the result."""
    tuned(NAME, tmp_path, 1)
    assert read_run(tmp_path).status == "finished"
    end = in_a_child(lambda: tuned(NAME, tmp_path, 3), tmp_path, killed(100), tmp_path / "log")
    assert end.signal == signal.SIGKILL
    assert read_run(tmp_path).status == "unfinished"


def test_labels_that_were_written_in_part_are_written_again(tmp_path):
    tuned(NAME, tmp_path, 1)
    labels = json.loads((tmp_path / "labels.json").read_text())
    (tmp_path / "labels.json").write_text('{"l2": ["0.we')
    tuned(NAME, tmp_path, 2)
    assert json.loads((tmp_path / "labels.json").read_text()) == labels


@pytest.mark.slow
def test_of_four_processes_in_one_folder_one_goes_on(tmp_path, cache):
    whole, _ = undisturbed(NAME, tmp_path, cache)
    refused = 0
    for trial in range(5):
        folder = tmp_path / str(trial)
        children = []
        for _ in range(4):
            pid = os.fork()
            if pid == 0:
                try:
                    tuned(NAME, folder)
                except BaseException as error:
                    os._exit(3 if type(error).__name__ == "FolderInUseError" and str(folder) in str(error) else 4)
                finally:
                    os._exit(0)
            children.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        assert 0 in codes
        assert set(codes) <= {0, 3}, codes
        refused += codes.count(3)
        require_same(evidence(folder), whole, f"trial {trial}")
    print(f"{refused} of 20 processes were refused")
    assert refused > 0
