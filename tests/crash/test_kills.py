"""A run that is killed in the middle of any call that changes a file goes on, by the same call, to the same bits."""

import random
from pathlib import Path
from typing import Any

import pytest
from folder_runs import RUNS, evidence, require_same, tuned
from moments import End, in_a_child, killed, nothing

from hypergrad.callback import state_file

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


@pytest.fixture(scope="module")
def cache() -> dict[str, tuple[dict[str, Any], int]]:
    return {}


QUICK = {"batches and dropout": 3, "retrain": 1, "single loop": 1}
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
