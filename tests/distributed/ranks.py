"""Cases on several processes: one launch by torchrun runs all cases of a module, because a start takes seconds.

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
import os
import signal
import subprocess
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


TOGETHER = (
    "quick_cases",
    "shared_cases",
    "traffic_cases",
    "plan_cases",
    "sharded_cases",
    "ignored_cases",
    "same_start_cases",
)
"""Modules whose cases on two processes are one launch if all tests run."""


def together() -> dict[str, Callable[[], Any]]:
    """The cases of these modules."""
    return {f"{module}: {name}": case for module in TOGETHER for name, case in import_module(module).cases().items()}


def run(module: str, world: int = 2, function: str = "cases", seconds: int = 60) -> Results:
    """The results of all cases of a module on `world` processes of gloo, from one launch in each process of the tests.

    Args:
        module: in tests/ or tests/distributed/; imported on every rank.
        world: the number of processes.
        function: in that module, without arguments; returns the cases by name, the same names on all ranks.
        seconds: for all cases, after which every rank prints where it stands, and ends.
    """
    if "PYTEST_XDIST_WORKER" in os.environ and module in TOGETHER and (world, function) == (2, "cases"):
        everything, before = _launch("ranks", world, "together", 300), f"{module}: "
        found = [
            {name.removeprefix(before): x for name, x in one.items() if name.startswith(before)}
            for one in everything.found
        ]
        return Results(found, everything.output)
    return _launch(module, world, function, seconds)


@cache
def _launch(module: str, world: int, function: str, seconds: int) -> Results:
    with tempfile.TemporaryDirectory() as folder:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, PATHS))}
        process = subprocess.Popen(
            [*launcher, __file__, module, function, folder, str(seconds)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=seconds + 30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        return Results([_read(Path(folder, f"{rank}.jsonl")) for rank in range(world)], output[-LONGEST_OUTPUT:])


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
