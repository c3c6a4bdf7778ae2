"""As killed.py, with sharded parameters: python -m torch.distributed.run killed_shards.py FOLDER."""

import sys
import warnings
from functools import partial
from pathlib import Path

import torch
from killed import Slowly
from sharded_state_cases import KINDS, problem

import hypergrad as hg

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore", hg.NotConvergedWarning)
    with hg.processes() as peers:
        optimizer = partial(torch.optim.Adam, lr=0.1)
        callbacks = [Slowly(folder.parent, peers.rank)]
        hg.fit(problem(), KINDS["f2sa"], optimizer, steps=40, folder=folder, callbacks=callbacks, progress=False)
