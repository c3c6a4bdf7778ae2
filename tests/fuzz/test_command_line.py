"""Random arguments on the command line: a right exit code, a message that names key and value, and no traceback.

`python tests/fuzz/test_command_line.py --cases N --seed S` runs more of them; `--first I --cases 1` runs one again.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from commands import call
from messages import complaint, verdict
from other_commands import MAINS, command_case
from overrides import Case, override_case

from hypergrad import run

Verdicts = dict[Any, tuple[Case, str]]
"""By the number of a case, or by its command and number."""


def verdicts(seed: int, numbers: range) -> Verdicts:
    """Each case, and how the command behaved."""
    found = {}
    for number in numbers:
        case = override_case(seed, number)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            found[number] = case, verdict(run.main, case, Path(folder), "outer_steps=0", "callback.tensorboard=null")
    return found


def other_verdicts(seed: int, numbers: range, folder: Path) -> Verdicts:
    """Each case of the commands other than `hypergrad.run`, and how the command behaved."""
    runs, found = folder / "runs", Verdicts()
    (runs / "empty").mkdir(parents=True)
    (runs / "file").write_text("no run")
    done = call(run.main, "outer_steps=1", "hydra.run.dir=runs/good", "callback=[jsonl,summary]", cwd=folder)
    assert done.returncode == 0, done.stderr
    shutil.copytree(runs / "good", runs / "bad")
    (runs / "bad" / "summary.json").write_bytes(b"\xff")
    for command, main in MAINS.items():
        for number in numbers:
            case = command_case(command, seed, number, runs)
            (runs / "file").write_text("no run")  # which a table may have been written to
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as here:
                found[command, number] = case, verdict(main, case, Path(here))
    return found


def wrong(found: Verdicts) -> Verdicts:
    """The cases in which the command did not behave."""
    return {number: pair for number, pair in found.items() if pair[1].startswith("wrong")}


def test_the_judge_wants_key_value_and_remedy():
    case = Case(("solver.lr=abc",), "lr", "abc")
    assert not complaint("Error executing job with solver.lr=abc\nerror: lr must be above 0, but it is 'abc'.", case)
    assert "does not name 'lr'" in complaint(
        "Error executing job with solver.lr=abc\nerror: it must not be 'abc'", case
    )
    assert "does not name the value" in complaint("error: lr must be above 0", case)
    assert "no remedy" in complaint("error: lr abc", case)
    assert "not our words" in complaint("error: lr: 'abc' object is not callable; it must be", case)
    assert "no message" in complaint("lr abc must be", case)


def test_random_arguments_are_run_or_refused():
    assert not wrong(verdicts(0, range(16)))


def test_random_arguments_of_the_other_commands_are_run_or_refused(tmp_path):
    assert not wrong(other_verdicts(0, range(3), tmp_path))


@pytest.mark.slow
def test_twenty_random_calls_of_each_other_command_are_run_or_refused(tmp_path):
    found = other_verdicts(0, range(20), tmp_path)
    print(f"{len(found)} cases of seed 0")
    assert not wrong(found)


@pytest.mark.slow
def test_five_hundred_random_arguments_are_run_or_refused():
    found = verdicts(0, range(500))
    print(f"{len(found)} cases of seed 0")
    assert not wrong(found)


def main() -> None:
    """Run cases, and print those that are wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--others", action="store_true", help="the commands other than hypergrad.run")
    chosen = parser.parse_args()
    numbers = range(chosen.first, chosen.first + chosen.cases)
    if chosen.others:
        with tempfile.TemporaryDirectory() as folder:
            found = other_verdicts(chosen.seed, numbers, Path(folder))
    else:
        found = verdicts(chosen.seed, numbers)
    for number, (case, said) in wrong(found).items():
        print(f"{number}: {' '.join(case.arguments)}\n    {said}")
    counts = {kind: sum(said == kind for _, said in found.values()) for kind in ("right", "refused")}
    print(f"seed {chosen.seed}: {len(found)} cases, {counts}, wrong {len(wrong(found))}")


if __name__ == "__main__":
    main()
