"""The preconditioner of the steepest directions of examples, against the dense Gauss–Newton matrix."""

from typing import Any

import pytest
import torch
from layered_problems import K, N, P, cnn, curvature, linear, mlp, supervised
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss, one_hot

import hypergrad as hg
from hypergrad.core.errors import IndefiniteError, NonFiniteError
from hypergrad.problem.oracle import Oracle

ALL = N * K
MODELS = {"linear": (linear, (P,)), "mlp": (mlp, (P,)), "cnn": (cnn, (2, 4, 4))}


def rows_of(problem: hg.Supervised, rank: int, hparams: hg.Tensors | None = None) -> Tensor:
    kronecker = curvature(problem, hparams).kronecker
    assert kronecker is not None
    assert kronecker.rows is not None
    return torch.cat(list(kronecker.rows(rank)))


def gauss_newton(problem: hg.Supervised, hparams: hg.Tensors | None = None) -> Tensor:
    """The dense matrix, penalties included."""
    oracle = Oracle(problem, problem.init_hparams() if hparams is None else hparams, problem.inner_batch(0))
    product = hg.GaussNewton().linearize(oracle, problem.init_params()).product
    n = sum(w.numel() for w in problem.init_params().values())
    return torch.stack([product(e) for e in torch.eye(n)], 1)


@pytest.mark.parametrize("loss", [cross_entropy, mse_loss, binary_cross_entropy_with_logits])
@pytest.mark.parametrize(("make", "shape"), MODELS.values(), ids=MODELS)
def test_all_directions_make_the_gauss_newton_matrix(make, shape, loss):
    problem = supervised(make(), loss=mse_loss if loss is mse_loss else cross_entropy, shape=shape)
    if loss is binary_cross_entropy_with_logits:
        parts = [(X, one_hot(y, K).double()) for X, y in ((problem.X, problem.y), (problem.X_dev, problem.y_dev))]
        hyperparameters: Any = {"l2": hg.L2(init=0.02)}
        problem = hg.Supervised(model=make(), loss=loss, train=parts[0], dev=parts[1], hyperparameters=hyperparameters)
    J, kronecker = rows_of(problem, ALL), curvature(problem).kronecker
    assert kronecker is not None
    G = gauss_newton(problem)
    assert (J.T @ J + torch.diag(kronecker.diagonal()) - G).norm() <= 1e-10 * G.norm()


def test_weights_of_examples_count():
    problem = supervised(mlp(), hyperparameters={"c": hg.ExampleWeights(), "l2": hg.L2(init=1e-6)})
    hparams = {"c": torch.arange(N) / N, "l2": torch.tensor(1e-6)}
    J, G = rows_of(problem, ALL, hparams), gauss_newton(problem, hparams)
    assert (J.T @ J + 2e-6 * torch.eye(len(G)) - G).norm() <= 1e-10 * G.norm()


def test_the_steepest_are_chosen():
    """Ten examples have a thousandfold weight; a fifth of the rows, theirs, have nearly all of the curvature."""
    problem = supervised(mlp(), hyperparameters={"c": hg.ExampleWeights(), "l2": hg.L2(init=1e-6)})
    hparams = {"c": torch.ones(N), "l2": torch.tensor(1e-6)}
    hparams["c"][::6] = 1000.0
    J, G = rows_of(problem, 10 * K, hparams), gauss_newton(problem, hparams)
    assert J.shape[0] == 10 * K
    assert (J.T @ J - G).norm() <= 0.01 * G.norm()


def test_parts_of_a_batch_give_the_same_rows():
    whole, parts = (supervised(mlp(), micro_batch=size) for size in (None, 17))
    A, B = (rows_of(problem, ALL) for problem in (whole, parts))
    assert (A.T @ A - B.T @ B).norm() <= 1e-12 * (A.T @ A).norm()
    assert rows_of(parts, 12).shape == (12, A.shape[1])


@pytest.mark.parametrize(("make", "shape"), MODELS.values(), ids=MODELS)
def test_cg_ends_at_the_dense_solution(make, shape):
    """Single precision in the preconditioner does not limit the result."""
    problem = supervised(make(), shape=shape, l2=0.05)
    A, b = curvature(problem).shifted(2.0), torch.randn(sum(w.numel() for w in problem.init_params().values()))
    exact = hg.Dense().solve(A, b).x
    found = hg.CG(tol=1e-11, preconditioner=hg.LowRankGaussNewton(rank=20)).solve(A, b)
    assert found.status == "converged"
    assert (found.x - exact).norm() <= 1e-9 * exact.norm()


@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_with_all_rows_it_is_the_inverse(damping):
    problem = supervised(mlp(), l2=0.05)
    G, v = gauss_newton(problem), torch.randn(sum(w.numel() for w in problem.init_params().values()))
    inverse, products = hg.LowRankGaussNewton(rank=ALL, damping=damping).prepare(curvature(problem).shifted(0.3), v)
    assert inverse is not None
    assert products == 0
    # single precision, and a condition number of 1e3
    assert (inverse(G @ v + (0.3 + damping) * v) - v).norm() <= 1e-4 * v.norm()


def test_its_cost_is_its_rows():
    cost = hg.LowRankGaussNewton(rank=20).preparation(1000)
    assert (cost.products, cost.blocks, cost.vectors) == (0, (), 20)


def test_few_examples_with_much_curvature_need_few_products():
    problem = supervised(mlp(), hyperparameters={"c": hg.ExampleWeights(), "l2": hg.L2(init=1e-6)})
    hparams = {"c": torch.full((N,), 1e-3), "l2": torch.tensor(1e-6)}
    hparams["c"][::6] = 1000.0
    b = torch.randn(sum(w.numel() for w in problem.init_params().values()))
    A = hg.GaussNewton().linearize(Oracle(problem, hparams, None), problem.init_params()).product.shifted(10.0)
    counts = [
        hg.CG(tol=1e-6, preconditioner=one).solve(A, b).num_matvecs
        for one in (None, hg.LowRankGaussNewton(rank=10 * K))
    ]
    assert 3 * counts[1] <= counts[0]


def test_what_it_cannot_serve_is_an_error_with_a_remedy():
    A = curvature(supervised(mlp(), hyperparameters={"c": hg.ExampleWeights()}))
    b = torch.ones(sum(w.numel() for w in supervised(mlp()).init_params().values()))
    with pytest.raises(IndefiniteError, match="damping > 0"):
        hg.LowRankGaussNewton().prepare(A, b)
    with pytest.raises(ValueError, match="but products"):
        hg.CG(preconditioner=hg.LowRankGaussNewton()).solve(lambda v: 2 * v, b)
    other = supervised(mlp(), loss=lambda z, y: z.square().mean())
    with pytest.raises(ValueError, match="cannot serve this problem: its loss"):
        hg.LowRankGaussNewton().prepare(curvature(other).shifted(1.0), b)
    broken = supervised(mlp())
    broken.X[3] = torch.nan
    with pytest.raises(NonFiniteError, match="train data"):
        hg.LowRankGaussNewton(rank=ALL).prepare(curvature(broken).shifted(1.0), b)
    with pytest.raises(ValueError, match="rank"):
        hg.LowRankGaussNewton(rank=0)
