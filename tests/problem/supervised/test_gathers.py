"""A step gathers the rows of its batch once, and as whole rows."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import hypergrad as hg
from hypergrad.data.tree import take, take_rows


class Gathered(TorchDispatchMode):
    """Counts the gathers by the shape of their result."""

    def __init__(self):
        super().__init__()
        self.shapes = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if function in (torch.ops.aten.index.Tensor, torch.ops.aten.index_select.default):
            self.shapes[tuple(found.shape)] += 1
        return found


@pytest.mark.parametrize("rows", [torch.tensor([4, 0, 0, 2]), torch.tensor([], dtype=torch.long), slice(1, 3), [2, -1]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_rows_are_those_of_indexing(rows, dtype):
    inputs = torch.arange(30).reshape(5, 3, 2).to(dtype)
    tree = {"x": inputs, "pair": (inputs[:, 0], inputs[:, 0, 0])}
    assert torch.equal(take_rows(inputs, rows), inputs[rows])
    found, expected = (tree_leaves(function(tree, rows)) for function in (take_rows, take))
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


def test_inputs_are_gathered_once_in_a_step():
    data = hg.Splits(*(hg.Split(X[:90], y[:90]) for X, y in hg.digits()))
    problem = hg.HyperCleaning(data, batch_size=32)
    w = {name: x.requires_grad_() for name, x in problem.init_params().items()}
    with Gathered() as gathered:
        problem.inner_loss_and_gradient(w, problem.init_hparams(), problem.inner_batch(0))
    assert gathered.shapes[32, 64] == 1
    assert gathered.shapes[32,] == 3  # the targets twice, and the weights
