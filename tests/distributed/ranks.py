"""Cases on several processes: one launch by torchrun runs all cases of a module.

To import torch takes seconds. One process does it for all launches, and torchrun and the ranks are forks of it.
A test module reads its results from another module, which has no tests and runs on every rank:

    # products_cases.py
    def cases() -> dict[str, Callable[[], Any]]: ...   # what each returns is JSON

    # test_products.py
    @pytest.mark.parametrize("case", ["cg", "neumann"])
    def test_parity(case):
        first, second = ranks.run("products_cases").of(case)
"""

import faulthandler
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATHS = [ROOT, ROOT / "tests", ROOT / "tests" / "distributed"]
LONGEST_OUTPUT = 20_000


@dataclass(frozen=True)
class Results:
    """What the ranks found.

    Attributes:
        found: by rank and case, `{"value": …}` or `{"error": …}`, and "seconds"; a case that did not end is missing.
        output: the end of what all processes printed, and where each one stood when its time was up.
    """

    found: list[dict[str, Any]]
    output: str

    def of(self, case: str) -> list[Any]:
        """The value of a case on each rank; an AssertionError with what was printed if it has none on some."""
        for rank, found in enumerate(self.found):
            assert case in found, f"rank {rank} did not end {case!r}:\n{self.output}"
            assert "value" in found[case], f"rank {rank} failed in {case!r}:\n{found[case]['error']}"
        return [found[case]["value"] for found in self.found]


IMPORTED = ["hypergrad", "sklearn.datasets", "torch._dynamo", "torch.distributed.run", "torch.utils.tensorboard"]
"""What most ranks need and is slow to import."""


def run(module: str, world: int = 2, function: str = "cases", seconds: int = 300, *, forks: bool = True) -> Results:
    """The results of all cases of a module on `world` processes of gloo, from one launch in each process of the tests.

    Args:
        module: in tests/ or tests/distributed/; imported on every rank.
        world: the number of processes.
        function: in that module, without arguments; returns the cases by name, the same names on all ranks.
        seconds: for all cases, after which every rank prints where it stands, and ends.
        forks: whether ranks are forks, of which torchrun keeps each one until all have returned, with its connections.
    """
    return _launch(module, world, function, seconds, forks)


@cache
def _launch(module: str, world: int, function: str, seconds: int, forks: bool) -> Results:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(IMPORTED)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "output")
        output.touch()
        environment = os.environ | {"OMP_NUM_THREADS": "1"}  # that of the server is of when it started
        environment["PYTHONPATH"] = os.pathsep.join(map(str, PATHS))
        how = ("--start-method=fork", "--run-path") if forks else ()
        arguments = (*how, __file__, module, function, folder, str(seconds))
        process = server.Process(target=_torchrun, args=(environment, world, output, *arguments))
        process.start()
        process.join(seconds + 30)
        if process.is_alive():
            os.killpg(process.ident or 0, signal.SIGKILL)
            process.join()
        found = [_read(Path(folder, f"{rank}.jsonl")) for rank in range(world)]
        return Results(found, output.read_text()[-LONGEST_OUTPUT:])


def _torchrun(environment: dict[str, str], world: int, output: Path, *arguments: str) -> None:
    """Start the ranks, in a process that has imported what they need."""
    from torch.distributed.run import main

    os.setsid()
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    sys.path[:0] = map(str, PATHS)
    main(["--standalone", f"--nproc-per-node={world}", *arguments])


def _read(path: Path) -> dict[str, Any]:
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(map(json.loads, lines))


def _outcome(case: Callable[[], Any]) -> dict[str, Any]:
    begin = time.perf_counter()
    try:
        found = {"value": case()}
    except Exception:  # a case may raise anything, which the test that asks for it then shows
        found = {"error": traceback.format_exc()}
    return {**found, "seconds": time.perf_counter() - begin}


def _rank(module: str, function: str, folder: str, seconds: str) -> None:
    """What one rank does."""
    import torch
    import torch.distributed as dist

    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as in a new process; torchrun has set its own
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_default_dtype(torch.float64)
    dist.init_process_group("gloo")
    cases = getattr(import_module(module), function)()
    # The first rank to end makes torchrun end the others, which also say where they stand.
    faulthandler.register(signal.SIGTERM, chain=True)
    faulthandler.dump_traceback_later(int(seconds), exit=True)
    with Path(folder, f"{dist.get_rank()}.jsonl").open("w") as file:
        for name, case in cases.items():
            # Written at once, so that what has been found is known if a later case never ends.
            print(json.dumps([name, _outcome(case)]), file=file, flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    _rank(*sys.argv[1:])
