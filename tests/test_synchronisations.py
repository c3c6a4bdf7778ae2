"""What counts as a synchronisation of host and GPU."""

import pytest
import torch
from synchronisations import Synchronisations

X = torch.arange(6.0).view(2, 3)
WAIT = {
    "item": lambda: X.sum().item(),
    "branch": lambda: bool(X.sum() > 0),
    "equal": lambda: torch.equal(X, X),
    "mask": lambda: X[X > 2],
    "nonzero": lambda: X.nonzero(),
    "in backward": lambda: _Reads.apply(torch.ones(3, requires_grad=True)).sum().backward(),
}
FREE = {"norm": lambda: X.norm(), "rows": lambda: X[torch.tensor([1, 0])], "where": lambda: X.where(X > 2, X)}


class _Reads(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, *grad_outputs):
        (g,) = grad_outputs
        return g if float(g.sum()) > 0 else None


@pytest.mark.parametrize("name", WAIT)
def test_counts_what_needs_a_value(name):
    with Synchronisations() as met:
        WAIT[name]()
    assert len(met.operations) == 1


@pytest.mark.parametrize("name", FREE)
def test_counts_nothing_else(name):
    with Synchronisations() as met:
        FREE[name]()
    assert not met.operations


def test_copies_between_devices():
    device = torch.device("meta")  # a device without values stands for a GPU
    with Synchronisations() as met:
        x, y = torch.zeros(3, device=device), torch.zeros(3)
        y.to(device)
        x.copy_(y)
        y.to(device, non_blocking=True)
        x.copy_(y, non_blocking=True)
        torch.add(x, x.to(torch.float64))
        with pytest.raises(NotImplementedError):
            x.cpu()
    assert [name.split()[0] for name in met.operations] == ["_to_copy", "copy_", "_to_copy"]
