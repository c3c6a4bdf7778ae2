"""A function in a group of processes on this machine, started by torchrun, and what its first rank found."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_RESULT = "HYPERGRAD_LAUNCHED_RESULT"
"""The environment variable that names the file for the result."""


def launch(module: str, ranks: int, task: str, *arguments: float, timeout: float = 600.0) -> Any:
    """What `task` returned on the first of `ranks` processes, each `python -m module` with one thread.

    Args:
        module: whose `main` calls `served` first.
        ranks: processes, ≥ 1.
        task: its name there.
        arguments: numbers for it.
        timeout: seconds after which all are ended.

    Raises:
        RuntimeError: if a process failed or the time ran out; the message ends with what was printed last.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        told = os.environ | {"OMP_NUM_THREADS": "1", _RESULT: str(path)}
        command = [*torchrun, "-m", module, task, *map(str, arguments)]
        with subprocess.Popen(command, env=told, stderr=subprocess.PIPE, text=True) as started:
            try:
                _, said = started.communicate(timeout=timeout)
            except subprocess.TimeoutExpired as late:
                started.terminate()  # torchrun then ends the others, which a kill would leave running
                raise RuntimeError(f"{ranks} processes of {module} {task} did not end in {timeout:g} s.") from late
        if started.returncode != 0:
            raise RuntimeError(f"{ranks} processes of {module} {task} failed:\n{said[-3000:]}")
        return json.loads(path.read_text())


def served(tasks: Mapping[str, Callable[..., Any]]) -> bool:
    """In a process that `launch` started, run the task that was asked for; return whether this is one."""
    path = os.environ.get(_RESULT)
    if path is None:
        return False
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    task, *arguments = sys.argv[1:]
    found = tasks[task](*(float(x) if "." in x else int(x) for x in arguments))
    if dist.get_rank() == 0:
        Path(path).write_text(json.dumps(found))
    dist.barrier()  # else a rank may close its connections while another one still reads
    dist.destroy_process_group()
    return True
