"""Scripts on several processes, started as torchrun does, with a time limit."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def torchrun(
    *arguments: str, world: int = 2, cwd: Path, options: Sequence[str] = (), limit: float = 150
) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node=WORLD ARGUMENTS` in a folder; its output is text.

    Also raised, by what it calls: TimeoutExpired after `limit` seconds; the processes are killed before.
    """
    with started(*arguments, world=world, cwd=cwd, options=options) as process:
        try:
            out, err = process.communicate(timeout=limit)
        finally:
            process.terminate()  # torchrun ends its workers at SIGTERM, and not at SIGKILL
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def started(*arguments: str, world: int = 2, cwd: Path, options: Sequence[str] = ()) -> subprocess.Popen[str]:
    """The same, not waited for."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}", *options]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "distributed")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*launcher, *arguments], cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
