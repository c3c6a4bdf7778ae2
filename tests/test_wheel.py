"""What is shipped is what runs: the wheel, alone, from an empty directory."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import hypergrad

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # from a clean copy: a build in the checkout would leave build/ behind, and find what an earlier one left
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True)
    for line in subprocess.run(
        ["git", "ls-files", "--modified", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines():
        if (ROOT / line).exists():
            (source / line).parent.mkdir(parents=True, exist_ok=True)
            (source / line).write_bytes((ROOT / line).read_bytes())
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    (path,) = folder.glob("*.whl")
    return path


def pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_wheel_carries_every_file(wheel):
    assert wheel.name.startswith(f"torch_hypergrad-{hypergrad.__version__}-")
    shipped = set(zipfile.ZipFile(wheel).namelist())
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "hypergrad").rglob("*.py")}
    configs = {f"hypergrad/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert shipped >= code | configs | {"hypergrad/py.typed"}
    assert not {name for name in shipped if name.startswith(("tests", "benchmarks", "configs"))}


def test_the_wheel_runs_from_an_empty_directory(wheel, tmp_path):
    target, empty = tmp_path / "target", tmp_path / "empty"
    empty.mkdir()
    pip("install", "--no-deps", "--target", str(target), str(wheel))
    where = "import hypergrad, hypergrad.configs as c; print(hypergrad.__file__, c.__file__)"
    for arguments, expected in [
        (["-c", where], f"{target}/hypergrad/__init__.py {target}/hypergrad/configs/__init__.py"),
        (["-m", "hypergrad.run", "experiment=ridge"], "tensorboard --logdir"),
        (["-m", "hypergrad.run", "--info", "searchpath"], "pkg://hypergrad.configs"),
    ]:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=empty,
            env=os.environ | {"PYTHONPATH": str(target)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
