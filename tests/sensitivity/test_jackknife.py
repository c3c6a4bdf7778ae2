import pytest
import torch
from optima import LOGISTIC, X, Y, central_jacobian, logistic_objective
from sklearn.datasets import load_breast_cancer
from torch.nn.functional import softplus

import hypergrad as hg


def correlation(a, b) -> float:
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


@pytest.fixture(scope="module")
def cancer():
    """The fit of all 569 patients with its loss, the design, and the 569 exact fits without one of them."""
    X, y = (torch.tensor(array, dtype=torch.float64) for array in load_breast_cancer(return_X_y=True))
    X = torch.cat([(X - X.mean(0)) / X.std(0), torch.ones(len(X), 1, dtype=X.dtype)], 1)

    def loss(w, weights):
        z = X @ w
        return (weights * (softplus(z) - y * z)).sum() + w @ w / 2

    def fit(weights, W):
        """Newton's method for m fits at once."""
        for _ in range(12):
            P = torch.sigmoid(W @ X.T)
            hessians = torch.einsum("np,mn,nq->mpq", X, weights * P * (1 - P), X) + torch.eye(X.shape[1], dtype=X.dtype)
            W = W - torch.linalg.solve(hessians, (weights * (P - y)) @ X + W)
        return W

    ones = torch.ones_like(y)
    w0 = fit(ones[None], X.new_zeros(1, X.shape[1]))
    refits = fit(1 - torch.eye(len(X), dtype=X.dtype), w0)
    w0 = w0[0]
    return loss, w0, ones, X, refits


def test_leave_one_out_against_569_refits(cancer):
    loss, w0, ones, X, refits = cancer
    first, second = (hg.InfinitesimalJackknife(order=k).at(loss, w0, ones).leave_out() for k in (1, 2))
    held_out = (X * refits).sum(1)
    assert correlation((X * first).sum(1), held_out) > 0.99
    assert correlation(torch.sigmoid((X * first).sum(1)), torch.sigmoid(held_out)) > 0.99
    errors = [(fits - refits).norm(dim=1).mean() for fits in (w0.expand_as(refits), first, second)]
    assert errors[2] < errors[1] < errors[0]


def fitted(order: int, **settings):
    _, solve, ones, _ = LOGISTIC
    return hg.InfinitesimalJackknife(order=order, **settings).at(logistic_objective, solve(ones), ones)


def test_leave_k_out_is_the_series_at_weights_zero():
    _, solve, ones, _ = LOGISTIC
    rows = torch.tensor([[0, 5, 7], [1, 2, 3]])
    for order in (1, 3):
        found = fitted(order, chunk=1).leave_out(rows)
        for i, out in enumerate(rows):
            weights = ones.index_fill(0, out, 0.0)
            terms = hg.TaylorExpansion(order=order).at(logistic_objective, solve(ones), ones).terms(weights)
            torch.testing.assert_close(found[i], solve(ones) + sum(terms))
            torch.testing.assert_close(fitted(order).predict(weights), found[i])
    torch.testing.assert_close(found[0], solve(ones.index_fill(0, rows[0], 0.0)), rtol=0.02, atol=1e-3)


def test_influence_is_the_derivative_of_the_dev_loss():
    _, solve, ones, _ = LOGISTIC

    def dev_loss(w, weights):
        return (X[:7] @ w - 0.3).square().mean() + weights[3] ** 2

    def total(first):
        weights = torch.cat([first, ones[6:]])
        return dev_loss(solve(weights), weights)

    truth = central_jacobian(total, ones[:6])
    torch.testing.assert_close(fitted(1).influence(dev_loss)[:6], truth, rtol=1e-6, atol=1e-8)


def test_covariance_is_the_sandwich():
    _, solve, ones, _ = LOGISTIC
    p = torch.sigmoid(X @ solve(ones))
    H = (X.T * (p * (1 - p))) @ X + 2 * torch.eye(5)
    bread, scores = torch.linalg.inv(H), X * (p - Y)[:, None]
    truth = bread @ scores.T @ scores @ bread
    torch.testing.assert_close(fitted(1).covariance(), truth)
    torch.testing.assert_close(fitted(1).standard_errors(), truth.diagonal().sqrt())


def test_weights_beside_other_hyperparameters_and_few_examples():
    def objective(w, hp):
        z = X[:3] @ w["w"]
        return (hp["omega"] * (softplus(z) - Y[:3] * z)).sum() + hp["l2"] * w["w"].square().sum()

    def flat(w, weights):
        return objective({"w": w}, {"l2": torch.tensor(1.0), "omega": weights})

    from optima import minimise

    solve, ones = minimise(flat, 5), torch.ones(3)
    jackknife = hg.InfinitesimalJackknife(order=2, weights="omega")
    found = jackknife.at(objective, {"w": solve(ones)}, {"l2": torch.tensor(1.0), "omega": ones})
    torch.testing.assert_close(found.jacobian, central_jacobian(solve, ones), rtol=1e-6, atol=1e-9)
    alone = hg.InfinitesimalJackknife(order=2).at(flat, solve(ones), ones).leave_out()
    torch.testing.assert_close(found.leave_out()["w"], alone)
    with pytest.raises(ValueError, match="needs a hyperparameter 'weights' of shape"):
        hg.InfinitesimalJackknife().at(objective, {"w": solve(ones)}, {"l2": torch.tensor(1.0), "omega": ones})


def test_weights_of_the_wrong_length_and_rows_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"must have shape \(60,\).*\(59,\)"):
        fitted(1).predict(torch.ones(59))
    with pytest.raises(ValueError, match="from 0 to 59"):
        fitted(1).leave_out(torch.tensor([60]))
    with pytest.raises(ValueError, match="hold an example once"):
        fitted(1).leave_out(torch.tensor([[0, 1], [5, 5]]))
