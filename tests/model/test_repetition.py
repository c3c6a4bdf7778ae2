"""What counts as the same result of two calls: the same bits on a CPU, equal up to rounding on a GPU."""

import itertools

import pytest
import torch
from elsewhere import ELSEWHERE, elsewhere
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.model import loss_trial, trial
from hypergrad.model.repetition import is_repeated


@pytest.mark.parametrize(
    ("off", "here", "there"),
    [(0.0, True, True), (1e-12, False, True), (1e-6, False, False), (float("nan"), False, False)],
)
def test_tensors(off, here, there):
    x = torch.randn(5, generator=torch.Generator().manual_seed(0))
    assert is_repeated(x, x + off) == here
    with elsewhere():
        assert is_repeated(x.to(ELSEWHERE), (x + off).to(ELSEWHERE)) == there


def test_shapes_types_and_whole_numbers():
    x = torch.ones(3)
    assert not is_repeated(x, x[:2])
    assert not is_repeated(x, x.float())
    with elsewhere():
        one = torch.arange(3).to(ELSEWHERE)
        assert is_repeated(one, one.clone())
        assert not is_repeated(one, one + 1)


class _Scaled(nn.Module):
    """A layer whose calls differ by a factor."""

    def __init__(self, factors: itertools.cycle) -> None:
        super().__init__()
        self.layer, self._factors = nn.Linear(4, 3), factors

    def forward(self, X: Tensor) -> Tensor:
        return self.layer(X) * next(self._factors)


@pytest.mark.parametrize("where", ["loss", "model"])
def test_problems_ask_for_no_more(where, monkeypatch):
    """A loss and a model whose calls differ by rounding are refused on a CPU, and not where that is the same."""
    factors = itertools.cycle([1.0, 1.0 + 1e-12])

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(z, y) * next(factors)

    def make() -> hg.Supervised:
        model, own = (nn.Linear(4, 3), loss) if where == "loss" else (_Scaled(factors), cross_entropy)
        train, dev = ((torch.randn(9, 4), torch.arange(9) % 3) for _ in range(2))
        return hg.Supervised(model=model, loss=own, train=train, dev=dev, hyperparameters={"l2": hg.L2()}, probe=False)

    with pytest.raises(ValueError, match="two calls differ"):
        make()
    module = loss_trial if where == "loss" else trial
    monkeypatch.setattr(module, "is_repeated", lambda x, y: torch.allclose(x, y, rtol=1e-8))
    make()
