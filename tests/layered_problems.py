"""Small networks, their Kronecker factors, and hypergradients of them."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

import hypergrad as hg
from hypergrad.core.autodiff import flatten
from hypergrad.core.kronecker import KroneckerSettings, Layer
from hypergrad.core.operator import Operator
from hypergrad.problem.oracle import Oracle
from hypergrad.product.reverse import Reverse

# An optional extra: beside a torch for CPUs its torchvision breaks other imports. CI installs it without that.
NEEDS_CURVLINOPS = pytest.mark.skipif(find_spec("curvlinops") is None, reason="needs the extra curvature")
N, P, K = 60, 6, 4


def data(seed: int, *, n: int = N, shape: tuple[int, ...] = (P,), classes: bool = True) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, *shape, generator=generator) + 0.3
    y = torch.randint(K, (n,), generator=generator) if classes else torch.randn(n, K, generator=generator)
    return X, y


def supervised(model: nn.Module, *, loss: Callable = cross_entropy, l2: float = 0.02, **given: Any) -> hg.Supervised:
    shape, classes = given.pop("shape", (P,)), loss is not mse_loss and not isinstance(loss, nn.MSELoss)
    given.setdefault("hyperparameters", {"l2": hg.L2(init=l2)})
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


def curvature(problem: hg.Supervised, hparams: hg.Tensors | None = None) -> Operator:
    """The operator of the Hessian at w₀."""
    hparams = problem.init_hparams() if hparams is None else hparams
    return Reverse().linearize(Oracle(problem, hparams, problem.inner_batch(0)), problem.init_params()).product


def layers_of(problem: hg.Supervised, hparams: hg.Tensors | None = None, **settings: Any) -> list[Layer]:
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
