import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # each worker has a core; before torch reads it, and for what tests start

from typing import Any

import pytest
import torch
from xdist.scheduler import LoadFileScheduling


@pytest.fixture(autouse=True)
def _float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported and collected stays to the end: no search for garbage goes through its 750,000 objects."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


class _ByFile(LoadFileScheduling):
    """A file of tests runs in one worker, and all tests on several processes in one, which share their launches."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "distributed" if "tests/distributed/" in file else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    return _ByFile(config, log)
