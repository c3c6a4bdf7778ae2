"""Memory, time and size of a state with sharded parameters, for each rank, in units of the whole parameters.

python -m benchmarks.sharded_state --ranks 2

The run is that of `benchmarks.sharded_memory`. Peaks are those of the resident memory above what a rank has before.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist

import hypergrad as hg
from benchmarks.measure import limit_threads
from benchmarks.sharded_memory import MALLOC, TINY, WIDTH, problem, reset_peak, resident

F2SA = hg.F2SA(solver=hg.GradientDescent(lr=1e-3), multiplier=10)
"""Which keeps two copies of the parameters."""


class Measured(hg.StateSaver):
    """Saves states, and keeps the seconds and the peak of the last one."""

    def on_state(self, step: int, state: dict[str, Any]) -> None:
        with Measuring(self.__dict__):
            super().on_state(step, state)


class Measuring:
    """A block whose seconds and peak in MB are kept in a dict."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.found = found

    def __enter__(self) -> None:
        reset_peak()
        self.before, self.begin = resident("VmRSS"), time.perf_counter()

    def __exit__(self, *_: Any) -> None:
        self.found |= {"peak": resident("VmHWM") - self.before, "seconds": time.perf_counter() - self.begin}


def run(width: int, folder: Path) -> dict[str, Any]:
    """Two outer steps with states, resuming from the last one, and what the model in one file takes."""
    whole = hg.FullySharded(problem(width), check=False)
    adam = partial(torch.optim.Adam, lr=1e-2)
    make = partial(hg.Trainer, problem=whole, estimator=hg.SingleLoop(method=F2SA), optimizer=adam, outer_steps=2)
    saver, last, model = Measured(folder), dict[str, Any](), dict[str, Any]()
    result = make(callbacks=[saver]).fit()
    with Measuring(last):
        make().fit(resume=folder)
    with Measuring(model):
        whole.state_dicts(result.last.params, result.last.hparams)
    rank = dist.get_rank()
    own = (folder / "state-000002.shards").glob(f"__{rank}_*")
    written = sum(file.stat().st_size for file in own) / 2**20
    size = sum(x.numel() * x.element_size() for x in problem(width).init_params().values()) / 2**20
    return {"size": size, "written": written, "write": vars(saver), "read": last, "model": model}


def measure(folder: Path) -> None:
    """Run as one of the ranks, and write what was found."""
    limit_threads(1)
    dist.init_process_group("gloo")
    run(TINY, folder / "tiny")
    found = run(WIDTH, folder / "run")
    found["write"] = {key: found["write"][key] for key in ("peak", "seconds")}
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def main() -> None:
    """Print the numbers of each rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2, help="processes that share the parameters, ≥ 1")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.folder:
        return measure(given.folder)
    with TemporaryDirectory() as folder:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={given.ranks}"]
        command = [sys.executable, *launcher, "-m", "benchmarks.sharded_state", "--folder", folder]
        subprocess.run(command, check=True, env=os.environ | MALLOC | {"OMP_NUM_THREADS": "1"})
        ranks = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(given.ranks)]
    for rank, one in enumerate(ranks):
        print(f"rank {rank}, in units of {one['size']:.0f} MB: writes {one['written'] / one['size']:.2f} per state")
        for name in ("write", "read", "model"):
            print(f"  {name}: peak {one[name]['peak'] / one['size']:.2f}, {one[name]['seconds']:.2f} s")
    return None


if __name__ == "__main__":
    main()
