"""Kronecker factors against second moments by hand, and against curvlinops."""

from typing import Any

import pytest
import torch
from layered_problems import (
    NEEDS_CURVLINOPS,
    K,
    N,
    P,
    apart,
    block,
    curvature,
    estimate,
    layers_of,
    linear,
    mlp,
    seeded,
    supervised,
)
from torch import Tensor, nn

import hypergrad as hg
from hypergrad.core.errors import NonFiniteError
from hypergrad.core.kronecker import KroneckerSettings
from hypergrad.problem.oracle import Oracle
from hypergrad.product.reverse import Reverse

pytestmark = NEEDS_CURVLINOPS


def test_the_factors_are_second_moments_by_hand():
    """K-FAC and EK-FAC of softmax regression, from the inputs and the curvature of each example."""
    problem = supervised(linear())
    X, w = problem.X, problem.init_params()
    a = torch.cat([X, torch.ones(N, 1)], 1)
    p = (X @ w["weight"].T + w["bias"]).softmax(1)
    C = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    n = P * K + K
    (factored,) = layers_of(problem)
    B, A = C.mean(0), a.T @ a / N
    by_hand = torch.kron(B, A)
    places = factored.read(torch.arange(n)).reshape(-1)
    assert (block(factored, n)[places[:, None], places] - by_hand).norm() <= 1e-12 * by_hand.norm()
    (corrected,) = layers_of(problem, corrected=True)
    G = torch.einsum("nij,nk,nl->ikjl", C, a, a).reshape(n, n) / N
    Q = torch.kron(corrected.outputs, corrected.inputs)
    assert (torch.diag(Q.T @ G @ Q) - corrected.values.reshape(-1)).norm() <= 1e-12 * G.norm()


def test_the_mean_over_targets_drawn_from_the_model_approaches_the_exact_curvature():
    problem = supervised(linear())
    n = P * K + K
    (exact,), (drawn,) = layers_of(problem), layers_of(problem, fisher="mc")
    assert 0 < (block(exact, n) - block(drawn, n)).norm() <= 0.5 * block(exact, n).norm()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weights_of_examples_and_classes_count(reduction):
    """Weights 0 and 2 are the curvature of the examples left out and doubled."""
    weights = torch.tensor([0.0, 2.0]).repeat(N // 2)
    problem = supervised(
        mlp(), hyperparameters={"c": hg.ExampleWeights()}, loss=nn.CrossEntropyLoss(reduction=reduction)
    )
    X, y = problem.X, problem.y
    twice = hg.Supervised(
        model=mlp(),
        loss=nn.CrossEntropyLoss(reduction=reduction),
        train=(X[1::2].repeat(2, 1), y[1::2].repeat(2)),
        dev=(X + 1, y),
        hyperparameters={"l2": hg.L2()},
    )
    first, last = layers_of(problem, {"c": weights}, corrected=True)
    same, same_last = layers_of(twice, corrected=True)
    # The eigenvectors of the inputs are those of all examples, but the trace is that of the weighted ones.
    assert first.values.sum().item() == pytest.approx(same.values.sum().item(), rel=1e-10)
    assert last.values.sum().item() == pytest.approx(same_last.values.sum().item(), rel=1e-10)


def test_parts_of_a_batch_have_the_factors_of_the_whole():
    whole, parts = supervised(mlp()), supervised(mlp(), micro_batch=7)
    n = sum(w.numel() for w in whole.init_params().values())
    for one, other in zip(layers_of(whole), layers_of(parts), strict=True):
        assert (block(one, n) - block(other, n)).norm() <= 1e-12 * block(one, n).norm()


def test_several_batches_have_the_mean_of_their_factors():
    """Batch 0 twice, because further batches begin there, and batch 1."""
    batches, trace = supervised(linear(), batch_size=N // 2), []
    for step in range(2):
        oracle = Oracle(batches, batches.init_hparams(), batches.inner_batch(step))
        kronecker = Reverse().linearize(oracle, batches.init_params()).product.kronecker
        assert kronecker is not None
        trace.append(kronecker.factors(KroneckerSettings(corrected=True))[0].values.sum().item())
    (found,) = layers_of(batches, num_batches=3, corrected=True)
    assert found.values.sum().item() == pytest.approx((2 * trace[0] + trace[1]) / 3, rel=1e-10)


def test_damping_is_that_of_curvlinops():
    """Exact and heuristic damping, against the inverse that curvlinops makes."""
    import curvlinops  # pyright: ignore[reportMissingImports]

    model = mlp()
    problem = supervised(model, l2=1e-30)
    (first, last) = layers_of(problem)
    params = [p for part in (model[0], model[3]) for p in part.parameters()]  # type: ignore[index]
    operator = curvlinops.KFACLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        params,
        [(problem.X, problem.y)],
        fisher_type="type-2",
        separate_weight_and_bias=False,
        check_deterministic=False,
    )
    v = torch.randn(65, generator=torch.Generator().manual_seed(0))
    for heuristic in (False, True):
        exact = {"use_exact_damping": not heuristic, "use_heuristic_damping": heuristic}
        inverse: Any = curvlinops.KFACInverseLinearOperator(operator, damping=0.1, **exact)
        diagonal = torch.zeros(65)
        x = inverse @ [v[:30].view(5, 6), v[30:35], v[45:65].view(4, 5)]
        mine = first.damped(diagonal, 0.1, heuristic=heuristic).solve(v)
        assert (mine - torch.cat([x[0], x[1][:, None]], 1)).norm() <= 1e-9 * mine.norm()
    assert last.bias is None


def shared() -> nn.Module:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again, self.last = nn.Linear(P, P), nn.Linear(P, P), nn.Linear(P, K)
            self.tied = nn.Linear(P, P)
            self.tied.weight = self.again.weight

        def forward(self, x: Tensor) -> Tensor:
            x = self.tied(torch.tanh(self.again(x)))
            return self.last(torch.tanh(self.first(torch.tanh(self.first(x)))))

    return seeded(Twice)


def test_layers_that_are_called_twice_or_share_parameters_are_left_to_the_diagonal():
    problem = supervised(shared())
    (only,) = layers_of(problem)
    names = list(problem.init_params())
    starts = [sum(w.numel() for w in list(problem.init_params().values())[:i]) for i in range(len(names))]
    assert names[starts.index(only.weight)] == "last.weight"
    found = estimate(problem, hg.CG(tol=1e-9, max_iter=1000, preconditioner=hg.KFAC()), damping=0.2)
    assert apart(found, estimate(problem, hg.Dense(), damping=0.2)) <= 1e-6


def test_nan_in_one_example_is_said():
    problem = supervised(mlp())
    kronecker = curvature(problem).kronecker
    problem.X[7, 2] = torch.nan
    assert kronecker is not None
    with pytest.raises(NonFiniteError, match="layer '3'.*NaN in the train data"):
        kronecker.factors(KroneckerSettings(corrected=True))


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("raises", [False, True])
def test_a_decomposition_that_fails_in_single_precision_is_made_in_double(corrected, raises, monkeypatch):
    """As LAPACK's does for the inputs of a convolutional network of which many are always 0."""
    problem = supervised(mlp())
    expected = layers_of(problem, corrected=corrected)
    single, double = torch.float32, torch.linalg.eigh

    def failing(x: Tensor) -> Any:
        if x.dtype == single and raises:
            raise RuntimeError("did not converge")  # the class of which torch.linalg.LinAlgError is one
        values, vectors = double(x)
        return (values * torch.nan, vectors * torch.nan) if x.dtype == single else (values, vectors)

    monkeypatch.setattr("torch.linalg.eigh", failing)
    found = layers_of(problem.to(single), corrected=corrected)
    n = sum(w.numel() for w in problem.init_params().values())
    for one, other in zip(found, expected, strict=True):
        assert one.values.dtype == single
        exact = block(other, n)
        assert (block(one.to(exact), n) - exact).norm() <= 1e-5 * exact.norm()
