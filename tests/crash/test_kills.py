"""A run that is killed in the middle of any call that changes a file goes on, by the same call, to the same bits."""

import itertools
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from folder_runs import RUNS, evidence, require_same, tuned
from moments import End, full, in_a_child, killed, nothing
from slow_cases import mostly_slow

import hypergrad as hg
from hypergrad.callback import state_file
from hypergrad.callback.trained_model import TrainedModel

pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # forks of a process with threads, and what the runs say of themselves

SEED = 18


def undisturbed(name: str, folder: Path, cache: dict[str, tuple[dict[str, Any], int]]) -> tuple[dict[str, Any], int]:
    """What a run leaves, and how many calls it makes."""
    if name not in cache:
        if not cache:
            tuned(name, folder / "warm")  # imports and first calls draw random numbers, open files and take seconds
        end = run(name, folder / f"whole {name}", nothing)
        assert end.code == 0, end.said
        cache[name] = evidence(folder / f"whole {name}"), end.calls
    return cache[name]


def run(name: str, folder: Path, act: Any, **settings: Any) -> End:
    """A run, or the rest of it, in another process."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return in_a_child(lambda: tuned(name, folder, **settings), folder, act, folder.with_suffix(".log"))


def kill_and_go_on(name: str, at: int, folder: Path, whole: dict[str, Any]) -> End:
    """Kill a run at a call, let the same call go on, and require the bits of the undisturbed run."""
    cut = run(name, folder, killed(at))
    kept = [state_file.read(path)["step"] for path in state_file.found(folder)]
    again = run(name, folder, nothing)
    where = f"{name!r} killed at call {at}, with the states {kept}"
    assert again.code == 0, f"{where}: {again.said}"
    require_same(evidence(folder), whole, where)
    return cut


QUICK = {"batches and dropout": 2, "single loop": 1}
"""Kills in CI."""


@pytest.mark.parametrize(("name", "kills"), QUICK.items(), ids=QUICK)
def test_a_killed_run_goes_on_to_the_same_bits(name, kills, tmp_path, cache):
    whole, calls = undisturbed(name, tmp_path, cache)
    moments = random.Random(f"{SEED} {name}")
    for number in range(kills):
        kill_and_go_on(name, moments.randrange(calls), tmp_path / str(number), whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_many_runs_killed_at_random_calls(name, tmp_path, cache):
    whole, calls = undisturbed(name, tmp_path, cache)
    moments = random.Random(f"{SEED} {name} slow")
    ends = [kill_and_go_on(name, moments.randrange(calls), tmp_path / str(i), whole) for i in range(16)]
    print(f"{name}: {sum(end.signal == 9 for end in ends)} kills among {calls} calls, seed {SEED}")


@pytest.mark.slow
def test_a_run_killed_at_every_call(tmp_path, cache):
    name = "batches and dropout"
    whole, calls = undisturbed(name, tmp_path, cache)
    ends = [kill_and_go_on(name, at, tmp_path / str(at), whole) for at in range(calls)]
    print(f"{name}: {sum(end.signal == 9 for end in ends)} kills, at each of {calls} calls")


def saved(x: float, folder: Path) -> None:
    """Save a model in which all numbers are the same."""
    hparams = {"many": torch.full((1001,), x), "one": torch.tensor(x)}
    TrainedModel(hparams, {"w": torch.full((3,), x)}, hg.Quadratic(size=3), {}, "a test").save(folder)


@pytest.mark.parametrize("how", mostly_slow([killed, full], [killed]))
def test_a_save_that_breaks_off_never_leaves_files_of_two_models(how, tmp_path):
    """The last of them, hparams.yaml, is missing until all are those of the new one."""
    found = []
    for at in itertools.count():
        folder = tmp_path / str(at)
        saved(1.0, folder)
        end = in_a_child(partial(saved, 2.0, folder), folder, how(at), tmp_path / "log")
        if (folder / "hparams.yaml").exists():
            tensors = hg.load_hparams(folder) | torch.load(folder / "model.pt", weights_only=True)
            numbers = {x for tensor in tensors.values() for x in tensor.flatten().tolist()}
            assert len(numbers) == 1, (at, numbers)
            found += numbers
        else:
            found.append(None)
        if end.code == 0:
            break
    assert [*dict.fromkeys(found)] == ([1.0, None, 2.0] if how is killed else [1.0, 2.0])
