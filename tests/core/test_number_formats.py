"""The coarsest format in the graph of a value."""

import pytest
import torch

from hypergrad.core import formats
from hypergrad.core.formats import coarsest

EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float64, torch.float32, torch.bfloat16)}


def test_the_coarsest_of_all_operations_counts():
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    assert coarsest(x.square().sum(), "f") == EPS[torch.float64]
    assert coarsest(x.float().square().double().sum(), "f") == EPS[torch.float32]
    assert coarsest(x.square().sum().bfloat16(), "f") == EPS[torch.bfloat16]
    assert coarsest(x.to(torch.complex128).square().abs().sum(), "f") == EPS[torch.float64]
    assert coarsest(torch.ones((), dtype=torch.float32), "f") == EPS[torch.float32]


@pytest.mark.parametrize("place", ["inside", "at the end"])
def test_float16_is_refused_by_name(place):
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    value = x.half().double().sum() if place == "inside" else x.sum().half()
    with pytest.raises(ValueError, match=r"The dev loss is computed in float16, .* Use bfloat16"):
        coarsest(value, "The dev loss")


@pytest.mark.parametrize("library", [torch.backends.cuda.matmul, torch.backends.cudnn], ids=["matmul", "convolution"])
def test_tf32_is_for_what_its_library_computes(library, monkeypatch):
    monkeypatch.setattr(formats, "allows_tf32", lambda asked: asked is library)
    kinds = ("AddmmBackward0", "ConvolutionBackward0", "TanhBackward0")
    matmul = library is torch.backends.cuda.matmul
    assert [formats._allows_tf32(kind) for kind in kinds] == [matmul, not matmul, False]
