"""Weights of examples, of which a batch sees some: their direction in the mean, and what moves the others."""

from functools import partial

import pytest
import torch
from torch.distributions import constraints
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.core.autodiff import flatten, unflatten

SIZE, DEV_SIZE, BATCH, BATCHES = 22, 17, 5, 5
SGD = hg.GradientDescent(lr=0.1)


def problem(batch_size: int | None = BATCH, dev_sample=None, init=0.5, constraint=constraints.unit_interval):
    generator = torch.Generator().manual_seed(0)
    train, dev = (
        (torch.randn(n, 3, generator=generator).double(), torch.randint(3, (n,), generator=generator))
        for n in (SIZE, DEV_SIZE)
    )
    weights = hg.ExampleWeights(init=init, constraint=constraint)
    return hg.Supervised(
        model=torch.nn.Linear(3, 3).double(),
        loss=cross_entropy,
        train=train,
        dev=dev,
        hyperparameters={"weights": weights, "l2": hg.L2(init=0.05)},
        batch_size=batch_size,
        dev_sample=dev_sample,
    )


def solved(whole):
    """w*, v* = −H⁻¹ ∇_w f and dF/dλ on all data."""
    hparams = whole.init_hparams()
    w = hg.Training(solver=hg.Newton(), steps=20).run(whole, hparams, whole.init_params()).params
    implicit = hg.Implicit(solver=hg.Newton(), inner_steps=1, linsolve=hg.Dense(), error_bar=False)
    flat = flatten(w)
    H = torch.func.hessian(lambda x: whole.inner_loss(unflatten(x, w), hparams, None))(flat)
    df_dw = torch.func.grad(lambda x: whole.outer_loss(unflatten(x, w), hparams, None))(flat)
    return w, -torch.linalg.solve(H, df_dw), flatten(implicit.estimate(whole, hparams, w).grad)


@pytest.mark.parametrize(("init", "constraint"), [(0.5, constraints.unit_interval), (1 / SIZE, constraints.simplex)])
@pytest.mark.parametrize("batch_size", [None, 1, 5, 11, SIZE, SIZE + 8])
def test_the_mean_over_an_epoch_is_the_hypergradient_of_each_weight(batch_size, init, constraint):
    whole = problem(None, None, init, constraint)
    w, v, expected = solved(whole)
    one = problem(batch_size, 4, init, constraint)
    carry = {"t": 0, "memory": {"v": v, "solver": {}}}
    found = [
        flatten(
            hg
            .SingleLoop(method=hg.SOBA(solver=SGD))
            .estimate(one, one.init_hparams(), w, inner_step=step, outer_step=3, carry=carry)
            .grad
        )
        for step in range(one.inner_place(0).num_batches)
    ]
    torch.testing.assert_close(torch.stack(found).mean(0), expected, rtol=0, atol=1e-12)
    assert expected.abs().min() > 1e-6


def seen(one, step):
    """The rows of train that an inner step uses."""
    batch = one.inner_batch(step)
    assert batch is not None
    return batch.rows


METHODS = {
    "SOBA": hg.SOBA(solver=SGD),
    "MASOBA": hg.MASOBA(solver=SGD),
    "AmIGO": hg.AmIGO(solver=SGD),
    "F2SA": hg.F2SA(solver=SGD),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_direction_is_zero_for_weights_that_the_batches_of_the_move_did_not_see(method):
    one, estimator = problem(2), hg.SingleLoop(method=method)
    hparams, params = one.init_hparams(), one.init_params()
    first = estimator.estimate(one, hparams, params)
    begin = method.num_batches
    second = estimator.estimate(one, hparams, first.params, outer_step=1, inner_step=begin, carry=first.carry)
    rows = torch.cat([seen(one, step) for step in range(begin, 2 * begin)])
    nonzero = second.grad["weights"].nonzero()[:, 0]
    assert len(nonzero) > 0
    assert set(nonzero.tolist()) <= set(rows.tolist())


def moves(optimizer):
    """u of each weight in seven outer steps, and the rows that each saw; the first one has v = 0, and moves nothing."""
    one = problem()
    estimator = hg.SingleLoop(method=hg.SOBA(solver=SGD))
    result = hg.Trainer(problem=one, estimator=estimator, optimizer=optimizer, outer_steps=7).fit()
    u = result.trajectory["weights"].logit()
    return u.diff(dim=0), [seen(one, step) for step in range(7)]


def test_sgd_leaves_them_where_they_are():
    steps, rows = moves(partial(torch.optim.SGD, lr=10.0))
    for step, those in zip(steps[1:], rows[1:], strict=True):
        assert set(step.nonzero()[:, 0].tolist()) == set(those.tolist())


def test_momentum_moves_them_on_in_geometric_steps():
    steps, rows = moves(partial(torch.optim.SGD, lr=10.0, momentum=0.7))
    assert torch.count_nonzero(steps[0]) == 0
    for k in range(1, 4):  # before the next epoch
        torch.testing.assert_close(steps[1 + k][rows[1]], 0.7**k * steps[1][rows[1]], rtol=1e-10, atol=0)
    assert torch.count_nonzero(steps[1][torch.cat(rows[2:5])]) == 0


def test_a_moving_average_goes_on_in_geometric_steps():
    one, estimator = problem(), hg.SingleLoop(method=hg.MASOBA(solver=SGD, averaging=0.3))
    hparams, params, carry, found = one.init_hparams(), one.init_params(), None, []
    for step in range(5):
        estimate = estimator.estimate(one, hparams, params, outer_step=step, inner_step=step, carry=carry)
        params, carry = estimate.params, estimate.carry
        found.append(estimate.grad["weights"][seen(one, 1)])
    assert torch.count_nonzero(found[0]) == 0
    for k in range(1, 4):
        torch.testing.assert_close(found[1 + k], 0.7**k * found[1], rtol=1e-12, atol=0)


def test_adam_moves_them_by_its_momentum_whatever_their_gradient():
    lr, b1, b2 = 0.1, 0.9, 0.99
    steps, rows = moves(partial(torch.optim.Adam, lr=lr, betas=(b1, b2), eps=1e-30))
    those, first = rows[1], 2  # the number of Adam's step that sees them
    for k in range(4):
        t = first + k
        size = lr * (1 - b1) / (1 - b2) ** 0.5 * (b1 / b2**0.5) ** k * (1 - b2**t) ** 0.5 / (1 - b1**t)
        torch.testing.assert_close(steps[t - 1][those].abs(), torch.full((BATCH,), size).double(), rtol=1e-8, atol=0)
        assert torch.equal(steps[t - 1][those].sign(), steps[first - 1][those].sign())
    not_yet = torch.cat(rows[2:5])
    assert torch.count_nonzero(steps[1][not_yet]) == 0


@pytest.mark.parametrize("batches", [10, 80])
@pytest.mark.parametrize("gradient", [1e-3, 7.0])
def test_adam_moves_an_entry_by_the_root_of_the_number_of_batches_in_an_epoch(batches, gradient):
    u = torch.zeros((), dtype=torch.float64, requires_grad=True)
    adam, ends = torch.optim.Adam([u], lr=0.1), []
    for step in range(60 * batches):
        u.grad = torch.tensor(batches * gradient if step % batches == 0 else 0.0).double()
        adam.step()
        if step % batches == batches - 1:
            ends.append(u.item())
    assert ends[40] - ends[-1] == pytest.approx(19 * 0.1 * batches**0.5, rel=0.06)
