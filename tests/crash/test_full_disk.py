"""A disk that is full, read-only, or allows no larger files: nothing that was saved is lost, and the file is named."""

import errno
import os
import random
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from folder_runs import RUNS, evidence, require_same, tuned
from moments import full, nothing
from test_kills import run, undisturbed

import hypergrad as hg
from hypergrad.callback import state_file

pytestmark = pytest.mark.filterwarnings("ignore")
SEED = 18


def fill_and_go_on(name: str, at: int, folder: Path, whole: dict[str, Any], *, until: int | None, kind: int) -> bool:
    """Fill the disk at a call, and perhaps free it some calls later; then go on with room. Whether the run failed."""
    end = run(name, folder, full(at, until, kind))
    where = f"{name!r}, {errno.errorcode[kind]} from call {at} until {until}"
    assert end.signal == 0, f"{where}: {end.said}"
    if end.code:
        said = next(line for line in reversed(end.said.splitlines()) if re.match(r"[\w.]*Error: ", line))
        assert said.startswith(f"OSError: [Errno {kind}] {os.strerror(kind)}: "), f"{where}: {said}"
        assert str(folder) in said, f"{where}: {said}"
        assert all(state_file.read(path) for path in state_file.found(folder))
    again = run(name, folder, nothing)
    assert again.code == 0, f"{where}: {again.said}"
    require_same(evidence(folder), whole, where)
    return bool(end.code)


def test_a_full_disk_loses_nothing_and_names_the_file(tmp_path, cache):
    name = "batches and dropout"
    whole, calls = undisturbed(name, tmp_path, cache)
    moments = random.Random(SEED)
    for number in range(2):
        at = moments.randrange(calls)
        fill_and_go_on(name, at, tmp_path / str(number), whole, until=None, kind=errno.ENOSPC)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("length", [1, 20, None])
def test_disks_that_fail_at_many_calls(kind, length, tmp_path, cache):
    moments = random.Random(f"{SEED} {kind} {length}")
    failed = 0
    for number, name in enumerate([*RUNS][:10]):
        whole, calls = undisturbed(name, tmp_path, cache)
        at = moments.randrange(calls)
        until = None if length is None else at + length
        failed += fill_and_go_on(name, at, tmp_path / str(number), whole, until=until, kind=kind)
    print(f"{errno.errorcode[kind]} for {length or 'all'} calls: {failed} of 10 runs failed, seed {SEED}")
    assert failed >= 3


@pytest.mark.slow
def test_a_limit_on_the_size_of_files(tmp_path, cache):
    """Of many sizes; Python ignores SIGXFSZ, so a write fails with EFBIG."""
    name = "batches and dropout"
    whole, _ = undisturbed(name, tmp_path, cache)
    for size in (0, 200, 1000, 2000, 5000, 10_000, 25_000):

        def limited(folder: Path, size: int = size) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            tuned(name, folder)

        folder = tmp_path / str(size)
        pid = os.fork()
        if pid == 0:
            try:
                limited(folder)
            except OSError as error:
                os._exit(0 if error.errno == errno.EFBIG and str(folder) in str(error) else 2)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, size
        again = run(name, folder, nothing)
        assert again.code == 0, again.said
        require_same(evidence(folder), whole, f"limit {size}")


READ_ONLY = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[1].split(":")
from folder_runs import tuned
try:
    tuned("batches and dropout", Path(sys.argv[2]), 4)
except OSError as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_begun", [False, True])
def test_a_read_only_folder_is_named(tmp_path, is_begun):
    folder = tmp_path / "run"
    folder.mkdir()
    if is_begun:
        tuned("batches and dropout", folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    start = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(folder)]
    if shutil.which("unshare") is None or subprocess.run([*start, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting a folder read-only is not permitted here")
    here = Path(__file__).parent
    paths = ":".join(map(str, (here, here.parent, here.parents[1])))
    done = subprocess.run(
        [*start, sys.executable, "-c", READ_ONLY, paths, str(folder)], capture_output=True, text=True, check=False
    )
    assert re.search(rf"OSError: \[Errno 30\] Read-only file system: '{folder}/", done.stdout), (
        done.stdout + done.stderr
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert tuned("batches and dropout", folder, 4).last.step == 4


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises((OSError, ValueError), match=re.escape(str(tmp_path / "run"))):
        tuned("batches and dropout", tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


def test_a_lock_on_a_full_disk_is_released(tmp_path, monkeypatch):
    def is_full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", is_full)
    with pytest.raises(OSError, match=r"No space left on device: .*\.lock.json could not be written"):
        tuned("batches and dropout", tmp_path)
    monkeypatch.undo()
    assert isinstance(tuned("batches and dropout", tmp_path), hg.Result)
