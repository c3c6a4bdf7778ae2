"""Models that nobody here wrote: hypergradients equal to differences of plain training, or a refusal by name."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from real_models import REAL_MODELS, RealModel
from torch import Tensor, nn

import hypergrad as hg
from hypergrad.core.autodiff import Tensors
from hypergrad.core.seed import seed_of
from hypergrad.effect.base import Site

_LR, _STEPS, _SEED = 0.05, 3, 0
_PULL = 40.0
"""It makes the inner loss strongly convex around the initial parameters, so that plain steps reach its minimum."""
_CONVERGED = 60


@dataclass(frozen=True, kw_only=True)
class Proximity(hg.Effect):
    """The penalty λ/2 ‖w − w₀‖² of the distance from the initial parameters."""

    init: float
    start: Mapping[str, Tensor]

    def space(self, site: Site) -> hg.Hyperparameter:
        return hg.Hyperparameter(self.init, constraint=hg.positive)

    def penalty(self, value: Tensor, params: Tensors) -> Tensor:
        return value / 2 * sum((p - self.start[name]).square().sum() for name, p in params.items())


@pytest.fixture(autouse=True)
def all_in_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Parts of transformers compute in float32 whatever the dtype of the model; 1e-6 needs them in float64."""
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    yield


def _loss(module: nn.Module, real: RealModel, part: Any) -> Tensor:
    if real.loss is None:
        return module(**part).loss
    X, y = part
    outputs = module(**X) if isinstance(X, dict) else module(X)
    return real.loss(getattr(outputs, "logits", outputs), y)


def _plainly(real: RealModel, penalty: Callable[[nn.Module, Tensors], Tensor], lr: float, steps: int) -> float:
    """The dev loss after plain training in place."""
    module = deepcopy(real.module)
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    start = {name: p.detach().clone() for name, p in trained.items()}
    for step in range(steps):
        with torch.random.fork_rng():
            torch.manual_seed(seed_of("draws", _SEED, step))
            loss = _loss(module, real, real.train) + penalty(module, start)
        grads = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        with torch.no_grad():
            for p, g in zip(trained.values(), grads, strict=True):
                if g is not None:
                    p.sub_(lr * g)
    for part in module.modules():  # batch normalisation goes on with the statistics of the batch
        if not isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.training = False
    return _loss(module, real, real.dev).item()


def _slope(value: Callable[[float], float], at: float) -> float:
    """The derivative by differences of fourth order."""
    h = 1e-3 * at
    near, far = (value(at + k * h) - value(at - k * h) for k in (1, 2))
    return (8 * near - far) / (12 * h)


def _estimated(real: RealModel, effect: hg.Effect, estimator: hg.HypergradEstimator) -> Tensor:
    train, dev = real.train, real.dev
    problem = hg.Supervised(
        model=real.module, loss=real.loss, train=train, dev=dev, hyperparameters={"hp": effect}, seed=_SEED
    )
    return estimator.estimate(problem, problem.init_hparams(), problem.init_params()).grad["hp"]


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _made(name: str) -> RealModel:
    """The model at weights that are not small, as those of a network in training."""
    torch.manual_seed(0)
    real = REAL_MODELS[name]()
    with torch.no_grad():
        for p in real.module.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
    return real


def _unrolled(real: RealModel) -> tuple[float, float]:
    """dF/dλ of an L2 penalty through three steps, and the same by differences."""
    found = _estimated(
        real, hg.L2(init=0.3), hg.Unrolled(solver=hg.GradientDescent(lr=_LR), inner_steps=_STEPS)
    ).item()

    def penalised(l2: float) -> float:
        def penalty(module: nn.Module, _: Tensors) -> Tensor:
            return l2 * sum(p.square().sum() for p in _trained(module).values())  # pyright: ignore[reportReturnType]

        return _plainly(real, penalty, _LR, _STEPS)

    return found, _slope(penalised, 0.3)


def _implicit(real: RealModel) -> tuple[float, float]:
    """dF/dλ of a proximal penalty at the optimum, and the same by differences."""
    start = {name: p.detach().clone() for name, p in _trained(real.module).items()}
    estimator = hg.Implicit(
        solver=hg.GradientDescent(lr=1 / _PULL), inner_steps=_CONVERGED, inner_tol=1e-12, linsolve=hg.CG(tol=1e-10)
    )
    found = _estimated(real, Proximity(init=_PULL, start=start), estimator).item()

    def penalised(pull: float) -> float:
        def penalty(module: nn.Module, start: Tensors) -> Tensor:
            return pull / 2 * sum((p - start[name]).square().sum() for name, p in _trained(module).items())

        return _plainly(real, penalty, 1 / _PULL, _CONVERGED)

    return found, _slope(penalised, _PULL)


@pytest.mark.parametrize("name", REAL_MODELS)
def test_hypergradients_equal_differences_of_plain_training(name: str) -> None:
    real = _made(name)
    if real.refused:
        with pytest.raises(ValueError, match=real.refused):
            _unrolled(real)
        return
    for found, truth in (_unrolled(real), *([] if "dropout" in name else [_implicit(real)])):
        assert abs(found - truth) <= 1e-6 * abs(truth)
