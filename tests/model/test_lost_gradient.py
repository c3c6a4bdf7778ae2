"""Parameters that a model reads without their gradient, or whose gradient is changed on its way, are refused."""

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import hypergrad as hg
from hypergrad.core.autodiff import Tensors


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last, self.scale = nn.Linear(4, 4), nn.Linear(4, 1), nn.Parameter(torch.tensor(1.3))


class Item(Model):
    def forward(self, x):
        return self.last(self.first(x)) * self.scale.item()


class Data(Model):
    def forward(self, x):
        return self.last(self.first(x)) * self.scale.data


class Detached(Model):
    def forward(self, x):
        return self.last(self.first(x)) + x.sum(1, keepdim=True) * self.scale.detach()


class NoGrad(Model):
    def forward(self, x):
        with torch.no_grad():
            h = self.first(x)
        return self.last(h) * self.scale


class Rounded(Model):
    """Straight through: the gradient of a rounded number is that of the number."""

    def forward(self, x):
        h = self.first(x)
        return self.last(h + (h.round() - h).detach()) * self.scale


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, *grads):
        return -grads[0]


class Reversed(Model):
    def forward(self, x):
        return self.last(Reverse.apply(self.first(x))) * self.scale


class Kinked(Model):
    def forward(self, x):
        return self.last(torch.relu(self.first(x))) * self.scale.abs()


class Constant(Model):
    """The remedy: a parameter that is meant to be a constant."""

    def __init__(self):
        super().__init__()
        self.scale.requires_grad_(False)

    def forward(self, x):
        return self.last(self.first(x)) * self.scale.detach()


def problem_of(module: nn.Module) -> hg.Supervised:
    generator = torch.Generator().manual_seed(1)
    parts = [(torch.randn(n, 4, generator=generator), torch.randn(n, 1, generator=generator)) for n in (20, 15)]
    return hg.Supervised(
        model=module, loss=mse_loss, train=parts[0], dev=parts[1], hyperparameters={"l2": hg.L2(init=0.1)}
    )


def through_training(problem: hg.Supervised, l2: float = 0.1) -> hg.Hypergradient[Tensors, Tensors]:
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.1), inner_steps=3)
    return estimator.estimate(problem, {"l2": torch.tensor(l2, dtype=problem.X.dtype)}, problem.init_params())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Item, "'scale'"),
        (Data, "'scale'"),
        (Detached, "'scale'"),
        (NoGrad, "'first.weight', 'first.bias'"),
        (Rounded, "'first.weight', 'first.bias'"),
        (Reversed, "'first.weight', 'first.bias'"),
    ],
)
def test_a_gradient_that_is_not_the_derivative_is_refused_by_name(kind, names, dtype):
    torch.manual_seed(0)
    problem = problem_of(kind().to(dtype))
    with pytest.raises(ValueError, match=f"gradient with respect to {names} that is not the derivative of the loss"):
        through_training(problem)


@pytest.mark.parametrize("kind", [Item, NoGrad])
def test_without_the_refusal_it_would_be_wrong(kind):
    torch.manual_seed(0)
    problem = problem_of(kind())
    problem._twice.require = lambda X, y: None
    truth = (through_training(problem, 0.1001).outer_loss - through_training(problem, 0.0999).outer_loss) / 2e-4
    assert abs(through_training(problem).grad["l2"].item() / truth - 1) > 0.1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("kind", [Kinked, Constant])
def test_kinks_and_constants_are_served(kind, dtype):
    torch.manual_seed(0)
    through_training(problem_of(kind().to(dtype)))


def test_nothing_is_lost_at_an_optimum():
    """There, changes of the loss are of the third order, which gradients at two points do not give."""
    torch.manual_seed(0)
    module, generator = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)), torch.Generator().manual_seed(1)
    X, y = (torch.randn(20, k, generator=generator) for k in (4, 1))

    def inner(net: nn.Module, hparams: Tensors) -> torch.Tensor:
        return mse_loss(net(X), y) + hparams["l2"] * sum(p.square().sum() for p in net.parameters())

    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=500, tolerance_grad=1e-13, tolerance_change=0)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = inner(module, {"l2": torch.tensor(0.05)})
        loss.backward()
        return loss

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    found = hg.hypergradient(inner, lambda net, _: mse_loss(net(X[:5]), y[:5]), module, {"l2": 0.05})
    assert float(found.stats["inner_grad_norm"]) < 1e-7


def test_a_hook_on_a_gradient_is_refused():
    module = nn.Linear(4, 1)
    module.weight.register_hook(lambda grad: 2 * grad)
    with pytest.raises(ValueError, match="has 'weight', whose gradient goes through 1 hook, which .* Remove them"):
        problem_of(module)
    module = nn.Linear(4, 1)
    module.bias.register_post_accumulate_grad_hook(lambda p: None)
    with pytest.raises(ValueError, match="has 'bias', whose gradient goes through 1 hook"):
        problem_of(module)
