"""Models that nobody here wrote: hypergradients equal to differences of plain training, or a refusal by name.

`python tests/model/test_real_models.py` prints the table of docs/models.md.
"""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from real_models import REAL_MODELS, RealModel
from torch import Tensor, nn

import hypergrad as hg
from hypergrad.compile import inductor
from hypergrad.core.autodiff import Tensors
from hypergrad.core.seed import seed_of
from hypergrad.effect.base import Site

_LR, _STEPS, _SEED = 0.05, 3, 0
_PULL = 200.0
"""It makes the inner loss strongly convex around the initial parameters, so that plain steps reach its minimum."""
_CONVERGED = 60
_EXACT = 1e-6
_IN_CI = {"transformers BERT, dropout", "nn.LSTM, packed"}
_PAGE = Path(__file__).parents[2] / "docs/models.md"


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
def _all_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    _widen(monkeypatch)


def _widen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of transformers compute in float32 whatever the dtype of the model; 1e-6 needs them in float64."""
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(Tensor, "float", Tensor.double)


def _made(name: str) -> RealModel:
    """The model at weights that are not small, as those of a network in training."""
    torch.manual_seed(0)
    real = REAL_MODELS[name]()
    with torch.no_grad():
        for p in real.module.parameters():
            p.add_(torch.randn_like(p), alpha=0.2)
    return real


def _without_dropout(real: RealModel) -> RealModel:
    return RealModel(real.module.eval(), real.loss, real.train, real.dev) if real.draws else real


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _loss(module: nn.Module, real: RealModel, part: Any) -> Tensor:
    if real.loss is None:
        return module(**part).loss
    X, y = part
    outputs = module(**X) if isinstance(X, dict) else module(X)
    return real.loss(getattr(outputs, "logits", outputs), y)


def _plainly(real: RealModel, penalty: Callable[[nn.Module, Tensors], Tensor], lr: float, steps: int) -> float:
    """The dev loss after plain training in place."""
    module = deepcopy(real.module)
    trained = _trained(module)
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


def _unrolled_slope(real: RealModel) -> float:
    """dF/dλ of an L2 penalty through a few steps, by differences."""

    def penalised(l2: float) -> float:
        return _plainly(real, lambda module, _: l2 * _squares(_trained(module)), _LR, _STEPS)

    return _slope(penalised, 0.3)


def _implicit_slope(real: RealModel) -> float:
    """dF/dλ of a proximal penalty at the optimum, by differences."""

    def penalised(pull: float) -> float:
        def penalty(module: nn.Module, start: Tensors) -> Tensor:
            return pull / 2 * _squares({name: p - start[name] for name, p in _trained(module).items()})

        return _plainly(real, penalty, 1 / _PULL, _CONVERGED)

    return _slope(penalised, _PULL)


def _squares(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([p.square().sum() for p in tensors.values()]).sum()


def _estimated(real: RealModel, effect: hg.Effect, estimator: hg.HypergradEstimator) -> hg.Hypergradient:
    problem = hg.Supervised(
        model=real.module,
        loss=real.loss,
        train=real.train,
        dev=real.dev,
        hyperparameters={"hp": effect},
        seed=_SEED,
    )
    return estimator.estimate(problem, problem.init_hparams(), problem.init_params())


def _unrolled(real: RealModel, **settings: Any) -> hg.Hypergradient:
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=_LR), inner_steps=_STEPS, **settings)
    return _estimated(real, hg.L2(init=0.3), estimator)


def _implicit(real: RealModel) -> hg.Hypergradient:
    start = {name: p.detach().clone() for name, p in _trained(real.module).items()}
    estimator = hg.Implicit(
        solver=hg.GradientDescent(lr=1 / _PULL), inner_steps=_CONVERGED, inner_tol=1e-12, linsolve=hg.CG(tol=1e-10)
    )
    return _estimated(real, Proximity(init=_PULL, start=start), estimator)


def _error(found: hg.Hypergradient, truth: float) -> float:
    return abs(found.grad["hp"].item() - truth) / abs(truth)


def _checked(name: str) -> tuple[int, str | tuple[float, float]]:
    """The number of trained parameters, and the two relative errors or the message of the refusal."""
    real = _made(name)
    size = sum(p.numel() for p in _trained(real.module).values())
    if real.refused:
        with pytest.raises(ValueError, match=re.escape(real.refused)) as refusal:
            _unrolled(real)
        return size, str(refusal.value)
    unrolled = _error(_unrolled(real), _unrolled_slope(real))
    real = _without_dropout(real)
    return size, (unrolled, _error(_implicit(real), _implicit_slope(real)))


def _row(name: str) -> str:
    size, found = _checked(name)
    if isinstance(found, str):
        return f"| {name} | {size} | refused: {REAL_MODELS[name]().refused} | the same |"
    return f"| {name} | {size} | {found[0]:.0e} | {found[1]:.0e} |"


def _table() -> Iterator[list[str]]:
    """The cells of the table of docs/models.md."""
    section = _PAGE.read_text().split("## Models from packages")[1].split("\n## ")[0]
    for line in re.findall(r"^\| (.*) \|$", section, flags=re.MULTILINE)[1:]:
        yield line.split(" | ")


@pytest.mark.parametrize(
    "name", [name if name in _IN_CI else pytest.param(name, marks=pytest.mark.slow) for name in REAL_MODELS]
)
def test_hypergradients_equal_differences_of_plain_training(name: str) -> None:
    _, found = _checked(name)
    assert isinstance(found, str) or max(found) <= _EXACT


def test_the_table_of_the_page_names_the_models_and_their_errors() -> None:
    rows = {name: cells for name, *cells in _table()}
    assert list(rows) == list(REAL_MODELS)
    for name, (size, unrolled, implicit) in rows.items():
        real = REAL_MODELS[name]()
        assert int(size) == sum(p.numel() for p in _trained(real.module).values())
        if real.refused:
            assert unrolled == f"refused: {real.refused}"
        else:
            assert max(float(unrolled), float(implicit)) <= _EXACT


@pytest.mark.parametrize(
    ("name", "remark", "tape"),
    [
        pytest.param(
            *("transformers ResNet, batch norm", "compiled, 3 steps in a call", hg.Store()), marks=pytest.mark.slow
        ),
        ("nn.LSTM, packed", "not compiled: ", hg.Store()),
        ("nn.LSTM, packed", "not compiled: ", hg.Checkpoint()),
        pytest.param(
            *("transformers ResNet, batch norm", "compiled, 3 steps in a call", hg.Checkpoint()), marks=pytest.mark.slow
        ),
    ],
)
def test_other_tapes_and_traced_steps_agree(
    name: str, remark: str, tape: hg.Tape, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the compiler and its ten seconds; what is left is all that is ours.
    importlib.import_module("torch._inductor.lowering")  # which loads with the compiler, and torch asks for
    monkeypatch.setattr(inductor, "compile_graph", lambda graph, _: lambda tensors: graph(*tensors))
    real = _made(name)
    truth = _unrolled(real).grad["hp"].item()
    for compiled in (False, True):
        found = _unrolled(real, tape=tape, compile=compiled)
        assert _error(found, truth) <= 1e-10
        assert str(found.stats["training_remark"]).startswith(remark if compiled else "")


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    with pytest.MonkeyPatch.context() as patched:
        _widen(patched)
        for row in map(_row, REAL_MODELS):
            print(row, flush=True)
