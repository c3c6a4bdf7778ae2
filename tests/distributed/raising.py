"""A run of which one rank fails in the middle: python -m torch.distributed.run raising.py FOLDER."""

import sys
from pathlib import Path
from typing import Any

import loop_cases

import hypergrad as hg
from hypergrad.core.ranks import peers_of


class Breaks(hg.DataParallel):
    """Fails on rank 1 in an outer step, while the other ranks wait in a sum."""

    def at_outer_step(self, step: int) -> Any:
        if step == 3 and peers_of().rank == 1:
            Path("raised").touch()
            raise ValueError("no such file on this machine")
        return super().at_outer_step(step)


if __name__ == "__main__":
    with hg.processes():
        loop_cases.fit(Path(sys.argv[1]), of=Breaks(loop_cases.whole()))
