"""Damaged run folders: the commands that read them name the file, with a code of 1 and without a traceback."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import call

from hypergrad import run
from hypergrad.baseline.__main__ import main as baseline
from hypergrad.influence.__main__ import main as influence
from hypergrad.plot.__main__ import main as plot
from hypergrad.table.__main__ import main as table

NO_TEXT = b"a\xc3\x28}\n"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run that can be copied and damaged."""
    folder = tmp_path_factory.mktemp("recorded")
    done = call(run.main, "outer_steps=1", "hydra.run.dir=run", "callback.tensorboard=null", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def text(content: str | bytes) -> Callable[[Path], object]:
    """The file holds something else."""
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def absent(path: Path) -> None:
    """There is no such file."""
    path.unlink()


def folder(path: Path) -> None:
    """A folder has its name."""
    path.unlink()
    path.mkdir()


def unreadable(path: Path) -> None:
    """The file exists, and reading it is an error, also for root."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


RESUMED = [
    *((".hydra/overrides.yaml", damage) for damage in (absent, folder, unreadable)),
    *((".hydra/overrides.yaml", text(x)) for x in (NO_TEXT, "a: [", "", "a: 1", "- 1", "- -m")),
    *((".hydra/hydra.yaml", damage) for damage in (absent, folder, text(NO_TEXT), text("words"), text("hydra: null"))),
    (".hydra/hydra.yaml", text("hydra: {runtime: {config_sources: [{path: 3, provider: command-line}]}}")),
    *(("state-000001.pt", damage) for damage in (folder, unreadable, text(""), text(NO_TEXT))),
    *(("history.jsonl", damage) for damage in (absent, folder, text(NO_TEXT))),
]
READ = [
    *(("summary.json", damage) for damage in (folder, unreadable, text(NO_TEXT), text("[1]"), text("{"))),
    ("summary.json", text('{"status": "finished", "last": 3}')),
    *(("metrics.jsonl", damage) for damage in (folder, unreadable, text(NO_TEXT), text("[{}]\n{}"), text("{}"))),
    ("metrics.jsonl", text('{"step": 0, "loss/dev": "x"}')),
    *((".hydra/config.yaml", damage) for damage in (folder, text(NO_TEXT), text("a: [a"))),
    *((".hydra/overrides.yaml", damage) for damage in (unreadable, text(NO_TEXT))),
]


def named(pairs):
    return [f"{name}-{getattr(damage, '__name__', 'text')}-{k}" for k, (name, damage) in enumerate(pairs)]


def require_refusal(done, name: str) -> None:
    assert done.returncode == 1
    said = done.stderr[done.stderr.rfind("error: ") :]
    assert said.startswith("error: ")
    assert name in said
    assert "Errno" not in said.splitlines()[0].replace("IsADirectoryError: [Errno 21]", "")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("name", "damage"), RESUMED, ids=named(RESUMED))
def test_a_damaged_run_is_not_resumed(name, damage, recorded, tmp_path):
    damage(shutil.copytree(recorded, tmp_path / "run") / name)
    require_refusal(call(run.main, "resume=run", "outer_steps=2", cwd=tmp_path), Path(name).name)


def test_a_folder_without_a_state_is_not_resumed(recorded, tmp_path):
    (shutil.copytree(recorded, tmp_path / "run") / "state-000001.pt").unlink()
    (tmp_path / "run" / "state-000000.pt").unlink(missing_ok=True)
    require_refusal(call(run.main, "resume=run", cwd=tmp_path), "holds no state-*.pt to go on from")


@pytest.mark.parametrize(("name", "damage"), READ, ids=named(READ))
def test_a_damaged_run_is_not_shown(name, damage, recorded, tmp_path):
    damage(shutil.copytree(recorded, tmp_path / "run") / name)
    require_refusal(call(lambda: table(["run"]), cwd=tmp_path), name)
    if Path(name).suffix == ".jsonl":
        require_refusal(call(lambda: plot(["run"]), cwd=tmp_path), name)
        require_refusal(call(baseline, "budget=run", cwd=tmp_path), name)


def test_labels_that_are_none_are_not_drawn(recorded, tmp_path):
    (shutil.copytree(recorded, tmp_path / "run") / "labels.json").write_text('{"l2": 3}')
    require_refusal(call(lambda: plot(["run"]), cwd=tmp_path), "labels.json")


@pytest.mark.parametrize("damage", [text(NO_TEXT), text("[]"), text("{}"), text('{"method": "cg"}')])
def test_settings_of_influences_that_are_none_are_not_resumed(damage, tmp_path):
    (tmp_path / "run").mkdir()
    damage(tmp_path / "run" / "influence.json")
    require_refusal(call(influence, "resume=run", cwd=tmp_path), "influence.json")
