"""Optimality conditions that contain a gradient, under every transform: L1 problems, and a user's own."""

from functools import partial

import pytest
import torch
from torch.func import jacfwd, jacrev, vmap

import hypergrad as hg
from hypergrad.core.autodiff import central_difference, flatten
from hypergrad.data.tables import Split, Splits
from hypergrad.training.training import Training

N, P = 40, 6


def splits(classes):
    generator = torch.Generator().manual_seed(1)
    w = torch.tensor([1.5, -2, 0, 0, 0.8, 0])

    def part():
        X = torch.randn(N, P, generator=generator)
        z = X @ w + 0.1 * torch.randn(N, generator=generator)
        return Split(X, (z > 0).to(X.dtype) if classes else z)

    return Splits(part(), part(), part())


class Doubled(hg.Ridge):
    """A condition that is a multiple of the gradient."""

    def optimality(self, params, hparams, batch):
        return {name: 2 * x for name, x in super().optimality(params, hparams, batch).items()}


class Bent(hg.Ridge):
    """A condition that is not linear in the gradient, and not symmetric."""

    def optimality(self, params, hparams, batch):
        grad = super().optimality(params, hparams, batch)["weight"]
        return {"weight": torch.tanh(grad) * torch.linspace(1, 2, len(grad)) + grad.roll(1)}


class OfLossAndGradient(hg.Ridge):
    """A condition from the loss and its gradient together."""

    def optimality(self, params, hparams, batch):
        loss, grad = self.inner_loss_and_gradient(params, hparams, batch)
        return {"weight": grad["weight"] * (1 + loss)}


PROBLEMS = {
    "lasso": lambda: hg.Lasso(splits(False), l1=0.3),
    "lasso, a penalty for each": lambda: hg.Lasso(splits(False), l1=0.3, per_feature=True),
    "elastic net": lambda: hg.ElasticNet(splits(False), l1=0.3, l2=0.2),
    "sparse logistic": lambda: hg.SparseLogistic(splits(True), l1=0.03, l2=0.05),
    "doubled": lambda: Doubled(splits(False), l2=0.3),
    "bent": lambda: Bent(splits(False), l2=0.3),
    "of loss and gradient": lambda: OfLossAndGradient(splits(False), l2=0.3, per_feature=True),
}
every_problem = pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)


def solved(problem, hparams):
    if isinstance(problem, hg.Ridge):
        return problem.solution(hparams)
    solver = hg.ProximalGradient()
    return Training(solver=solver, steps=3000, tol=1e-13).run(problem, hparams, problem.init_params()).params


def known(problem, w):
    """λ ↦ the solution with the support and signs of w, by operations that torch can differentiate."""
    if isinstance(problem, hg.Ridge):
        return lambda hp: hg.Ridge.solution(problem, hp)["weight"]
    w0 = w["weight"]
    S, X, y = w0.nonzero()[:, 0], problem.X.X, problem.y

    def solution(hp):
        l1, l2 = (hp[k].expand(P)[S] if k in hp else torch.zeros(len(S)) for k in ("l1", "l2"))
        if isinstance(problem, hg.SparseLogistic):
            v = w0[S]
            for _ in range(3):  # Newton steps from the solution: derivatives up to order 3
                p = torch.sigmoid(X[:, S] @ v)
                H = X[:, S].T @ (X[:, S] * (p * (1 - p))[:, None]) / N + 2 * torch.diag(l2)
                v = v - torch.linalg.solve(H, X[:, S].T @ (p - y) / N + l1 * w0[S].sign() + 2 * l2 * v)
        else:
            H = 2 * X[:, S].T @ X[:, S] / N + 2 * torch.diag(l2)
            v = torch.linalg.solve(H, 2 * X[:, S].T @ y / N - l1 * w0[S].sign())
        return torch.zeros(P).index_copy(0, S, v)

    return solution


def on_flat(function, hparams):
    sizes = [x.numel() for x in hparams.values()]
    return lambda flat: function({
        name: piece.view_as(x) for (name, x), piece in zip(hparams.items(), flat.split(sizes), strict=True)
    })


@every_problem
def test_derivatives_are_those_of_the_solution(make):
    problem = make()
    hparams = problem.init_hparams()
    w, flat = solved(problem, hparams), flatten(hparams)
    truth = on_flat(known(problem, w), hparams)
    torch.testing.assert_close(truth(flat), w["weight"], rtol=1e-9, atol=1e-9)
    first, second = jacrev(truth)(flat), jacrev(jacrev(truth))(flat)
    near = partial(torch.testing.assert_close, rtol=1e-7, atol=1e-8)
    near(hg.LinearResponse().at(problem, w, hparams).jacobian(), first)
    optimum = hg.argmin(problem, w, hparams, order=2)
    found = on_flat(lambda hp: optimum(hp)["weight"], hparams)
    near(jacrev(found)(flat), first)
    near(jacfwd(found)(flat), first)
    near(jacrev(jacrev(found))(flat), second)
    near(jacfwd(jacrev(found))(flat), second)
    leaf = flat.clone().requires_grad_()
    near(torch.autograd.grad(found(leaf).sum(), leaf)[0], first.sum(0))


@every_problem
def test_a_batch_of_hyperparameters(make):
    problem = make()
    hparams = problem.init_hparams()
    w, flat = solved(problem, hparams), flatten(hparams)
    truth = on_flat(known(problem, w), hparams)
    optimum = hg.argmin(problem, w, hparams, at="resolve")
    found = on_flat(lambda hp: optimum(hp)["weight"], hparams)
    rows = torch.stack([flat, 1.01 * flat])
    torch.testing.assert_close(vmap(found)(rows), vmap(truth)(rows), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(vmap(jacrev(found))(rows), vmap(jacrev(truth))(rows), rtol=1e-6, atol=1e-7)


@every_problem
def test_expansions_to_the_third_order(make):
    problem = make()
    hparams = problem.init_hparams()
    w, flat = solved(problem, hparams), flatten(hparams)
    truth = on_flat(known(problem, w), hparams)
    direction = torch.linspace(1, 2, len(flat)) * flat
    found = hg.TaylorExpansion(order=3).at(problem, w, hparams).derivatives(
        {name: piece.view_as(x) for (name, x), piece in
         zip(hparams.items(), direction.split([x.numel() for x in hparams.values()]), strict=True)}
    )  # fmt: skip
    function, wanted = lambda t: truth(flat + t * direction), []
    for _ in range(3):
        function = jacrev(function)
        wanted.append(function(torch.tensor(0.0)))
    for derivative, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(derivative["weight"], right, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["lasso", "elastic net", "sparse logistic", "bent"])
def test_refits_agree(name):
    problem = PROBLEMS[name]()
    hparams = problem.init_hparams()
    w = solved(problem, hparams)
    direction = {name: torch.ones_like(x) for name, x in hparams.items()}
    slope = central_difference(lambda hp: solved(problem, hp)["weight"], hparams, direction, 1e-5)
    found = hg.LinearResponse().at(problem, w, hparams).jvp(direction)["weight"]
    torch.testing.assert_close(found, slope, rtol=1e-6, atol=1e-7)


def test_what_ignores_its_parameters_is_refused_inside_a_transform_too():
    class Deaf(Doubled):
        def inner_loss(self, params, hparams, batch):
            return hparams["l2"] * 2

    problem = Deaf(splits(False), l2=0.3)
    with pytest.raises(ValueError, match=r"Deaf.inner_loss depends on none of weight"):
        jacrev(lambda hp: problem.optimality(problem.init_params(), hp, None)["weight"])(problem.init_hparams())
