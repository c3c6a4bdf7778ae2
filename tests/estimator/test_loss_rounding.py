"""What float32 loses inside the losses is a part of the error bar, or the bar says that it is not."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, mse_loss

import hypergrad as hg
from hypergrad.core.in_double import in_double

X = torch.linspace(-1, 1, 30, dtype=torch.float32).reshape(10, 3).square()
Y = torch.linspace(0, 1, 10, dtype=torch.float32)


class Functions(hg.InnerProblem):
    """g = mean((X w − y)²)/2 + λ |w|²/2 and f = mean (1 − tanh²(X w + b)), with the data in float32 beside the problem.

    Args:
        b: how far the units are saturated.
        dtype: of all numbers.
    """

    def __init__(self, b: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.b, self.X, self.Y = b, X.to(dtype), (Y.to(dtype),)  # neither buffers nor parameters

    def init_params(self):
        return {"w": self.X.new_zeros(3)}

    def hyperparameters(self):
        return {"l2": hg.Hyperparameter(torch.tensor(0.25))}

    def inner_loss(self, params, hparams, batch):
        return (self.X @ params["w"] - self.Y[0]).square().mean() / 2 + hparams["l2"] * params["w"].square().sum() / 2

    def outer_loss(self, params, hparams, batch):
        return (1 - torch.tanh(self.X @ params["w"] + self.b).square()).mean()


def estimate(problem: hg.InnerProblem, **settings: Any) -> hg.Hypergradient:
    estimator = hg.Implicit(**{"solver": hg.Newton(), "inner_steps": 5, "linsolve": hg.Dense()} | settings)
    return estimator.estimate(problem, problem.init_hparams(), problem.init_params())


def test_the_bar_covers_what_the_losses_round():
    error, size = 0.0, 1.0
    for b in (0.0, 2.0, 4.0, 6.0, 7.5):
        found, exact = estimate(Functions(b)), estimate(Functions(b, torch.float64))
        size = exact.grad["l2"].abs().item()
        error = (found.grad["l2"].double() - exact.grad["l2"]).abs().item()
        assert error <= float(found.stats["error_estimate"]) <= 10 * max(error, 1e-7 * size), b
        assert str(found.stats.get("error_remark", "")).startswith("the outer loss is" if b > 5 else "")
    assert error > 1e-4 * size  # of saturated units


class _Single(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        if w.dtype != torch.float32:
            raise KeyError("a kernel for float32")
        return w.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0]


class OnlySingle(Functions):
    """With an operation that is there in float32 alone."""

    def outer_loss(self, params, hparams, batch):
        return super().outer_loss({"w": _Single.apply(params["w"])}, hparams, batch)


class Noisy(Functions):
    """With random numbers in the format of the parameters."""

    def outer_loss(self, params, hparams, batch):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return super().outer_loss({"w": params["w"] + 0.1 * torch.randn_like(params["w"])}, hparams, batch)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (OnlySingle, "in float64 the losses raise KeyError"),
        (Noisy, "randn_like draws other random numbers in float64"),
    ],
)
def test_a_bar_without_the_rounding_of_the_losses_says_so(kind, reason):
    found = estimate(kind(1.0))
    assert found.stats["error_status"] == "estimated"
    assert float(found.stats["error_estimate"]) > 0
    assert found.stats["error_remark"] == f"rounding inside the losses was not measured: {reason}"


def test_nothing_is_evaluated_in_double_without_a_bar_or_from_double():
    assert "error_remark" not in estimate(OnlySingle(1.0), error_bar=False).stats
    assert "error_remark" not in estimate(Noisy(1.0, torch.float64)).stats


def test_operations_in_double_are_those_of_the_same_numbers_in_double():
    module = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1)).float()
    before = {name: x.clone() for name, x in module.state_dict().items()}
    with in_double():
        found = mse_loss(module(X)[:, 0], Y) + torch.zeros(1, dtype=torch.float32) + X.float().sum(dtype=torch.float32)
    assert found.dtype == torch.float64
    assert all(torch.equal(x, before[name]) and x.dtype == torch.float32 for name, x in module.state_dict().items())
    wanted = mse_loss(module.double()(X.double())[:, 0], Y.double()) + X.double().sum()
    assert (found - wanted).abs() < 1e-14


def test_random_numbers_in_double_are_those_of_the_seed():
    def drawn():
        generator = torch.Generator().manual_seed(0)
        return torch.rand(5, generator=generator, dtype=torch.float32), dropout(X, 0.5)

    with torch.random.fork_rng(), in_double():
        torch.manual_seed(1)
        found = drawn()
    torch.manual_seed(1)
    assert all(torch.equal(x, y.double()) for x, y in zip(found, drawn(), strict=True))
