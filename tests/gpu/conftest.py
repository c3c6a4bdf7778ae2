"""The devices of these tests: a GPU with `pytest -m gpu`, and otherwise one that is only named, see elsewhere.py."""

from collections.abc import Iterator

import pytest
import torch
from elsewhere import ELSEWHERE, elsewhere


def require_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip(f"needs a GPU, and torch {torch.__version__} finds none")


@pytest.fixture(params=["elsewhere", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """A device that is not the CPU."""
    if request.param == "cuda":
        require_gpu()
        yield torch.device("cuda")
    else:
        with elsewhere():
            yield ELSEWHERE


@pytest.fixture
def cuda() -> torch.device:
    """A GPU; for tests marked `gpu`."""
    require_gpu()
    return torch.device("cuda")
