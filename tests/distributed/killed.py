"""A run in a folder that can be killed at any moment: python -m torch.distributed.run killed.py FOLDER."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import loop_cases

import hypergrad as hg


class Slowly(hg.Callback):
    """Leaves time to kill this process in each step, and says which it is."""

    def on_start(self, run: Any) -> None:
        (self.folder / f"pid-{self.rank}").write_text(str(os.getpid()))

    def on_step(self, record: Any) -> None:
        time.sleep(0.05)

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = folder, rank


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with hg.processes() as peers:
        slowly = Slowly(folder.parent, peers.rank)
        loop_cases.fit(folder, of=loop_cases.problem(dropout=0.3), steps=40, callbacks=[slowly])
