"""Tuples of many tensors as one tensor, and back."""

import io

import torch

import hypergrad as hg
from hypergrad.callback.stacked import stacked, unstacked


def test_what_is_stacked_comes_back_as_it_was():
    rows, few = tuple(torch.randn(3) for _ in range(20)), (torch.zeros(2), torch.ones(2))
    others = (*rows[:9], torch.zeros(4))
    content = {"table": {"rows": rows, "average": rows[0]}, "few": few, "others": others, "list": [*rows], "t": 3}
    file = io.BytesIO()
    torch.save(stacked(content), file)
    file.seek(0)
    found = unstacked(torch.load(file, weights_only=True))
    assert found.keys() == content.keys()
    assert isinstance(found["table"]["rows"], tuple)
    assert all(torch.equal(x, y) for x, y in zip(found["table"]["rows"], rows, strict=True))
    assert [x.shape for x in found["others"]] == [x.shape for x in others]
    assert (len(found["few"]), len(found["list"]), found["t"]) == (2, 20, 3)


def test_a_table_is_one_tensor_of_a_state(tmp_path):
    X = torch.randn(60, 2)
    hg.Trainer(
        problem=hg.Supervised(
            model=torch.nn.Linear(2, 1).double(),
            loss=torch.nn.functional.mse_loss,
            train=(X[:40], X[:40, :1]),
            dev=(X[40:], X[40:, :1]),
            hyperparameters={"l2": hg.L2(init=0.1)},
            batch_size=2,
            fixed_batches=True,
        ),
        estimator=hg.SingleLoop(method=hg.SABA()),
        optimizer=lambda u: torch.optim.SGD(u, lr=0.1),
        outer_steps=1,
        callbacks=[hg.StateSaver(tmp_path)],
    ).fit()
    (table,) = torch.load(tmp_path / "state-000001.pt", weights_only=True)["adjoint"]["memory"]["inner"][
        "rows"
    ].values()
    assert table.shape == (20, 2 * 3 + 1)
