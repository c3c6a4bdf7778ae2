"""No move makes the host wait for a GPU, and all that a method keeps is on the device of the parameters."""

import pytest
import torch
from synchronisations import Synchronisations
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._pytree import tree_leaves

import hypergrad as hg
from hypergrad.single_loop.terms import Terms

META = torch.device("meta")
"""A device without values, on which reading one raises."""
SOLVER = hg.GradientDescent(lr=0.1)
METHODS = {
    "soba": hg.SOBA(solver=SOLVER),
    "masoba": hg.MASOBA(solver=SOLVER),
    "saba": hg.SABA(solver=SOLVER),
    "srba": hg.SRBA(solver=SOLVER, period=5),
    "f2sa": hg.F2SA(solver=hg.AdamW()),
    "bome": hg.BOME(inner_steps=2),
    "meha": hg.MEHA(solver=SOLVER),
    "sama": hg.SAMA(),
}


def supervised() -> hg.Supervised:
    torch.manual_seed(0)
    X, y = torch.randn(40, 3), torch.arange(40) % 3
    return hg.Supervised(
        model=nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 3)),
        loss=cross_entropy,
        train=(X[:23], y[:23]),
        dev=(X[23:], y[23:]),
        hyperparameters={"l2": hg.L2(init=0.3, per="tensor"), "weights": hg.ExampleWeights()},
        batch_size=6,
        dev_sample=5,
        fixed_batches=True,
        probe=False,
    )


@pytest.mark.parametrize("device", [torch.device("cpu"), META], ids=["cpu", "meta"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_move_reads_no_value_and_keeps_all_on_one_device(method, device):
    problem = supervised()
    hparams = {name: x.to(device) for name, x in problem.init_hparams().items()}
    problem = problem.to(device)
    params = problem.init_params()
    with Synchronisations() as met:
        memory = method.begin(Terms(problem, 0, 0), params, hparams)
        for t in range(11):  # two epochs of train and more
            move = method.move(Terms(problem, t, t), params, hparams, memory, t)
            params, memory = move.params, move.memory
    assert met.operations == []
    kept = [x for x in tree_leaves((params, memory)) if isinstance(x, Tensor)]
    assert {x.device for x in kept} == {device}
