"""Everything on one GPU in under six minutes, each section in a process with a time limit of its own.

python -m benchmarks.gpu [--device cuda] [--section NAME …] [--tiny] [--minutes M]
"""

import argparse
import subprocess
import sys
import time

import torch

from benchmarks.gpu.sections import SECTIONS
from benchmarks.gpu.table import console

_SLOW = 20
"""The factor on all limits without a GPU, where they are of no use."""

_GRACE = 3
"""Seconds for a section to print what it has, once its time is over."""


def main() -> None:
    """Run the sections that were asked for; the exit code is 1 if one failed, with the names at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Ratios to bare PyTorch on a GPU.")
    parser.add_argument("--device", default="cuda", help="cpu runs the same lines without a GPU")
    parser.add_argument("--section", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="only these")
    parser.add_argument("--tiny", action="store_true", help="small models, to try every line on a CPU")
    parser.add_argument("--minutes", type=float, default=5.8, help="after which no section goes on")
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(
            f"--device {given.device} needs a GPU, and torch {torch.__version__} finds none; use --device cpu."
        )
    console.print(f"{_name(given.device)}, torch {torch.__version__}, float32 with tf32 unless said otherwise")
    end, outcomes = time.monotonic() + 60 * given.minutes, {}
    for name in given.section:
        left = end - time.monotonic()
        limit = SECTIONS[name].limit * (1 if given.device.startswith("cuda") else _SLOW)
        outcomes[name] = "no time left" if left < 5 else _run(name, given, min(limit, left))
    for name, outcome in outcomes.items():
        console.print(f"{name}: {outcome}")
    sys.exit(any(not outcome.startswith("done") for outcome in outcomes.values()))


def _run(name: str, given: argparse.Namespace, limit: float) -> str:
    """What became of a section; its output goes where ours goes."""
    command = [sys.executable, "-m", "benchmarks.gpu.sections", name, "--device", given.device]
    begin = time.monotonic()
    sys.stdout.flush()
    process = subprocess.Popen([*command, *(["--tiny"] if given.tiny else [])])
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        _stop(process)
        return f"stopped after its {limit:.0f} s"
    took = f"{time.monotonic() - begin:.0f} s"
    return f"done in {took}" if code == 0 else f"FAILED with exit code {code} after {took}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a process, which may print the rows that it has."""
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else f"the {device}"


if __name__ == "__main__":
    main()
