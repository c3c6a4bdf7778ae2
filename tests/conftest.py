import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # each worker has a core; before torch reads it, and for what tests start

import pytest
import torch


@pytest.fixture(autouse=True)
def _float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
