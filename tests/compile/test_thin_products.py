"""Thin products with one matrix are formed at once where none waits for another, and give the same numbers."""

import pytest
import torch

from hypergrad.compile.tracing import trace_nested

X = torch.linspace(-1, 1, 40 * 6, dtype=torch.float64).sin().view(40, 6)
A = torch.linspace(0, 2, 6 * 3, dtype=torch.float64).view(6, 3)


def apart(x, a, b):
    return (x @ a).exp() * (x @ b)


def apart_and_transposed(x, a, b):
    return (x @ a).exp() * (x.t().t() @ (b.cos() @ torch.ones(3, 3)))


def in_a_row(x, a, b):
    return x @ (x.t() @ (x @ a)) + (x @ b)


def of_both_ways(x, a, b):
    return x.t() @ (x @ a) + x.t() @ (x @ b).tanh()


def wide(x, a, b):
    return (x @ a.repeat(1, 8)) + (x @ b.repeat(1, 8))


@pytest.mark.parametrize(
    ("function", "products"), [(apart, 1), (apart_and_transposed, 2), (in_a_row, 3), (of_both_ways, 2), (wide, 2)]
)
def test_is_the_same_by_fewer_products(function, products):
    joined, traced = trace_nested(function, X, A, A.flip(0))
    counted = sum(node.target is torch.ops.aten.mm.default for node in traced.graph.nodes)
    assert counted == products
    torch.testing.assert_close(joined(X, A.cos(), A.sin()), function(X, A.cos(), A.sin()), rtol=1e-13, atol=1e-13)
