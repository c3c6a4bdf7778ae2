"""A batch of products with one matrix is one product, with the same numbers."""

import pytest
import torch

from hypergrad.compile.shared_matrices import SharedMatrices
from hypergrad.compile.tracing import trace

M = torch.linspace(-1, 1, 40 * 6, dtype=torch.float64).sin().view(40, 6)
BATCH = torch.linspace(0, 2, 3 * 6 * 5, dtype=torch.float64).cos().view(3, 6, 5)

FUNCTIONS = {
    "M B": lambda b: M @ b,
    "Bᵀ Mᵀ": lambda b: b.t() @ M.t(),
    "Mᵀ (M B)": lambda b: M.t() @ (M @ b),
    "B Bᵀ": lambda b: b @ b.t(),
}


@pytest.mark.parametrize(("name", "batched"), [("M B", 0), ("Bᵀ Mᵀ", 0), ("Mᵀ (M B)", 0), ("B Bᵀ", 1)])
def test_a_shared_matrix_is_multiplied_once(name, batched):
    function = FUNCTIONS[name]

    def together(B):
        with SharedMatrices():
            return torch.vmap(function)(B)

    traced = trace(together, [BATCH])
    assert sum(node.target is torch.ops.aten.bmm.default for node in traced.graph.nodes) == batched
    wanted = torch.stack([function(b) for b in BATCH])
    torch.testing.assert_close(traced(BATCH), wanted, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(together(BATCH), wanted, rtol=1e-13, atol=1e-13)
