"""K-FAC and EK-FAC against dense curvature, and what they refuse."""

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

import hypergrad as hg
from hypergrad.core.autodiff import flatten
from hypergrad.core.errors import IndefiniteError, NonFiniteError
from hypergrad.core.kronecker import KroneckerSettings, Layer
from hypergrad.problem.oracle import Oracle
from hypergrad.product.reverse import Reverse

N, P, K = 60, 6, 4


def data(seed: int, *, n: int = N, shape: tuple[int, ...] = (P,), classes: bool = True) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, *shape, generator=generator) + 0.3
    y = torch.randint(K, (n,), generator=generator) if classes else torch.randn(n, K, generator=generator)
    return X, y


def supervised(model: nn.Module, *, loss: Callable = cross_entropy, l2: float = 0.02, **given) -> hg.Supervised:
    shape, classes = given.pop("shape", (P,)), loss is not mse_loss
    given = {"hyperparameters": {"l2": hg.L2(init=l2)}} | given
    train, dev = (data(seed, shape=shape, classes=classes) for seed in (0, 1))
    return hg.Supervised(model=model, loss=loss, train=train, dev=dev, **given)


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def linear() -> nn.Module:
    return seeded(lambda: nn.Linear(P, K))


def mlp() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(P, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, K, bias=False)))


def cnn() -> nn.Module:
    layers = nn.Conv2d(2, 3, 3, padding=1), nn.GroupNorm(1, 3), nn.Tanh(), nn.Conv2d(3, 2, 2, stride=2, bias=False)
    return seeded(lambda: nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, K)))


def curvature(problem: hg.Supervised, hparams: hg.Tensors | None = None):
    """The operator of the Hessian at w₀."""
    hparams = problem.init_hparams() if hparams is None else hparams
    return Reverse().linearize(Oracle(problem, hparams, problem.inner_batch(0)), problem.init_params()).product


def layers_of(problem: hg.Supervised, hparams: hg.Tensors | None = None, **settings) -> list[Layer]:
    kronecker = curvature(problem, hparams).kronecker
    assert kronecker is not None
    return kronecker.factors(KroneckerSettings(**settings))


def block(layer: Layer, n: int) -> Tensor:
    """The dense matrix of a layer in all n parameters."""
    m, k = layer.values.shape
    Q = torch.kron(layer.outputs, layer.inputs)
    places = layer.read(torch.arange(n)).reshape(-1)
    H = torch.zeros(n, n)
    H[places[:, None], places] = Q @ torch.diag(layer.values.reshape(m * k)) @ Q.T
    return H


def estimate(problem: hg.InnerProblem, linsolve: hg.LinearSolver, *, trained: bool = True, **settings):
    settings = {"error_bar": False, "inner_steps": 300 if trained else 0, "inner_tol": 1e-10} | settings
    estimator = hg.Implicit(solver=hg.LBFGS(), linsolve=linsolve, **settings)
    return estimator.estimate(problem, problem.init_hparams(), problem.init_params())


def apart(found, exact) -> float:
    x, y = (flatten(one.grad) for one in (found, exact))
    return ((x - y).norm() / y.norm()).item()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [hg.KFAC, hg.EKFAC])
def test_a_linear_model_with_squared_loss_is_solved_exactly(kind, bias):
    problem = supervised(seeded(lambda: nn.Linear(P, K, bias=bias)), loss=mse_loss)
    found = estimate(problem, kind(damping=0.0))
    assert apart(found, estimate(problem, hg.Dense())) <= 1e-8
    assert found.stats["adjoint_status"] == "converged"
    assert found.stats["num_matvecs"] == 1


def test_penalties_of_each_feature_are_a_part_of_what_is_solved():
    """With orthogonal inputs the eigenvectors are the features, so that the diagonal is exact."""
    X = torch.linalg.qr(torch.randn(N, P, generator=torch.Generator().manual_seed(0)))[0] * torch.arange(1.0, P + 1)
    y = data(0, classes=False)[1]
    penalty = hg.L2(init=0.02, per="weight")
    model = seeded(lambda: nn.Linear(P, K, bias=False))
    problem = hg.Supervised(model=model, loss=mse_loss, train=(X, y), dev=(X + 1, y), hyperparameters={"l2": penalty})
    scale = torch.linspace(0.01, 0.5, P).repeat(K)
    A = curvature(problem, {"l2": scale})
    found = hg.KFAC(damping=0.0).solve(A, torch.ones(P * K))
    assert found.residual <= 1e-10


def test_on_softmax_regression_ekfac_beats_kfac_and_that_the_identity():
    problem = supervised(linear())
    exact = estimate(problem, hg.Dense())
    error = {kind: apart(estimate(problem, kind(damping=0.0)), exact) for kind in (hg.KFAC, hg.EKFAC)}
    identity = apart(estimate(problem, hg.CG(max_iter=1, tol=0.0)), exact)  # the best multiple of ∂f/∂w
    assert error[hg.EKFAC] < error[hg.KFAC] < identity


@pytest.mark.parametrize("kind", [hg.KFAC, hg.EKFAC])
@pytest.mark.parametrize("fisher", ["type-2", "mc", "empirical"])
@pytest.mark.parametrize(("model", "shape"), [(mlp, (P,)), (cnn, (2, 4, 4))], ids=["mlp", "cnn"])
def test_preconditioned_cg_agrees_with_the_dense_solve(model, shape, fisher, kind):
    problem = supervised(model(), shape=shape)
    tol = 1e-9
    found = estimate(problem, hg.CG(tol=tol, max_iter=500, preconditioner=kind(fisher=fisher)), damping=0.05)
    assert found.stats["adjoint_status"] == "converged"
    assert apart(found, estimate(problem, hg.Dense(), damping=0.05)) <= 1e3 * tol


@pytest.mark.parametrize("approximation", ["expand", "reduce"])
def test_ekfac_needs_fewer_products_than_plain_cg(approximation):
    """On badly scaled inputs."""
    X, y = data(0)
    X = X * torch.logspace(0, -2, P)
    problem = hg.Supervised(
        model=linear(), loss=cross_entropy, train=(X, y), dev=(X + 1, y), hyperparameters={"l2": hg.L2(init=1e-5)}
    )
    A, b = curvature(problem), torch.randn(P * K + K, generator=torch.Generator().manual_seed(0))
    plain = hg.CG(tol=1e-6).solve(A, b)
    found = hg.CG(tol=1e-6, preconditioner=hg.EKFAC(damping=0.0, approximation=approximation)).solve(A, b)
    assert found.converged
    assert found.num_matvecs <= plain.num_matvecs / 2


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
    import curvlinops

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
        inverse = curvlinops.KFACInverseLinearOperator(operator, damping=0.1, **exact)
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


def test_as_a_solver_it_says_its_residual():
    problem = supervised(mlp())
    A, b = curvature(problem).shifted(0.3), torch.ones(65)
    found = hg.KFAC().solve(A, b)
    assert found.status == "max_iter"
    assert "KFAC" in found.remark
    assert found.residual == pytest.approx(((b - A(found.x)).norm() / b.norm()).item(), rel=1e-12)
    assert found.num_matvecs == 3  # two probes of the normalisation, and the residual
    several = hg.KFAC().inverse(A, b)(torch.stack([b, 2 * b], 1))
    assert (several.x[:, 1] - 2 * found.x).norm() <= 1e-12 * found.x.norm()
    assert hg.KFAC(tol=10.0).solve(A, b).converged


def test_the_error_bar_of_kfac_covers_its_error():
    problem = supervised(linear())
    found = estimate(problem, hg.EKFAC(damping=0.0), error_bar=True)
    exact = estimate(problem, hg.Dense())
    distance = (flatten(found.grad) - flatten(exact.grad)).norm().item()
    assert found.stats["error_status"] == "estimated"
    assert distance <= found.stats["error_estimate"] <= 100 * distance


def test_auto_tries_it_where_it_is_asked_to():
    X, y = data(0, n=300, shape=(500,))
    X = X * torch.logspace(0, -2, 500)
    model, l2 = seeded(lambda: nn.Linear(500, K)), {"l2": hg.L2(init=1e-4)}
    problem = hg.Supervised(model=model, loss=cross_entropy, train=(X, y), dev=(X + 1, y), hyperparameters=l2)
    A, b = curvature(problem), torch.randn(501 * K, generator=torch.Generator().manual_seed(0))
    found = hg.Auto(kfac=True).solve(A, b)
    assert found.converged
    assert "preconditioned by EK-FAC" in found.remark
    assert (b - A(found.x)).norm() <= 1e-6 * b.norm()
    before = hg.Auto().solve(A, b)
    assert "EK-FAC" not in before.remark
    assert found.num_matvecs < before.num_matvecs


def test_refusals_name_the_remedy(monkeypatch):
    with pytest.raises(ValueError, match=r"huber_loss, is none of .*CrossEntropyLoss.*hg.CG"):
        estimate(huber(), hg.KFAC(), trained=False)
    embedded = seeded(lambda: nn.Sequential(nn.LayerNorm(P), nn.Flatten(), Scaled()))
    with pytest.raises(ValueError, match="no linear or convolutional layer"):
        estimate(supervised(embedded), hg.EKFAC(), trained=False)
    with pytest.raises(ValueError, match="nothing is known here but products"):
        hg.KFAC().solve(torch.eye(3).mv, torch.ones(3))
    with pytest.raises(ValueError, match="fisher must be one of"):
        hg.KFAC(fisher="exact")
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    with pytest.raises(ImportError, match=r"torch-hypergrad\[curvature\]"):
        estimate(supervised(linear()), hg.KFAC(), trained=False)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(K, P))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.scale.T


def huber() -> hg.Supervised:
    train, dev = (data(seed, classes=False) for seed in (0, 1))
    return hg.Supervised(
        model=linear(), loss=nn.functional.huber_loss, train=train, dev=dev, hyperparameters={"l2": hg.L2(init=0.1)}
    )


def test_a_singular_block_needs_damping():
    """Two inputs are the same, and nothing is penalised."""
    X, y = data(0)
    X[:, 1] = X[:, 0]
    problem = hg.Supervised(
        model=linear(),
        loss=mse_loss,
        train=(X, one_hot(y, K).double()),
        dev=(X + 1, one_hot(y, K).double()),
        hyperparameters={"c": hg.ExampleWeights()},
    )
    for kind in (hg.KFAC, hg.EKFAC):
        with pytest.raises(IndefiniteError, match="singular.*damping > 0"):
            estimate(problem, kind(damping=0.0), trained=False)
        assert estimate(problem, kind(damping=0.1), trained=False).grad["c"].isfinite().all()


def test_nan_in_one_example_is_said():
    problem = supervised(mlp())
    kronecker = curvature(problem).kronecker
    problem.X[7, 2] = torch.nan
    assert kronecker is not None
    with pytest.raises(NonFiniteError, match="layer '3'.*NaN in the train data"):
        kronecker.factors(KroneckerSettings(corrected=True))


def test_outputs_of_more_dimensions_are_for_kfac_alone():
    class Pixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(2, K, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)

    X = torch.randn(20, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    y = torch.randint(K, (20, 3, 3), generator=torch.Generator().manual_seed(0))
    problem = hg.Supervised(
        model=seeded(Pixels), loss=cross_entropy, train=(X, y), dev=(X + 1, y), hyperparameters={"l2": hg.L2(init=0.1)}
    )
    with pytest.raises(ValueError, match="EKFAC cannot serve.*shape .n, k.*K-FAC takes these"):
        estimate(problem, hg.EKFAC(), trained=False)
    A, b = curvature(problem), torch.ones(3 * K)
    assert hg.CG(tol=1e-9, preconditioner=hg.KFAC(damping=0.0)).solve(A, b).converged


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(hg.Supervised, "is_spread", property(lambda self: True))
    with pytest.raises(ValueError, match="several processes"):
        estimate(supervised(linear()), hg.KFAC(), trained=False)
