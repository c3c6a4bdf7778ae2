"""The products of two systems with the same operator, kept together."""

import pytest
import torch

from hypergrad.core.operator import Operator
from hypergrad.linsolve.recording import MOST, Recording


def recorded(first: int, count: int) -> Recording:
    """Products of the diagonal matrix 1, 2, … with some unit vectors."""
    n = 2 * MOST
    recording, units = Recording(), torch.eye(n, dtype=torch.float64)
    A = recording.watch(Operator((torch.arange(n) + 1.0).double().mul))
    for i in range(first, first + count):
        A(units[i])
    return recording


@pytest.mark.parametrize(
    ("before", "after"), [(0, 3), (4, 3), (MOST * 6 // 10, MOST // 10), (MOST - 3, 3), (MOST - 3, 20), (MOST, MOST)]
)
def test_joined_recordings_forget_only_what_does_not_fit(before, after):
    both = recorded(0, before).joined(recorded(before, after))
    kept = range(max(0, before + after - MOST), before + after)
    assert [int(v.argmax()) for v in both.vectors] == list(kept)
    assert [float(Av.max()) for Av in both.products] == [i + 1 for i in kept]


def test_products_read_before_the_vectors_are_without_those_of_zero():
    recording = Recording()
    A = recording.watch(Operator(torch.tensor([2.0, 3.0], dtype=torch.float64).mul))
    for v in torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], dtype=torch.float64):
        A(v)
    assert [float(Av.max()) for Av in recording.products] == [2, 3]
