"""`hg.hypergradient` for a module, against central differences through plain training of the module in place."""

import math
import random
import warnings
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import hypergrad as hg
from hypergrad import functional
from hypergrad.model.lost_gradient import Recording

F = nn.functional


@pytest.fixture(autouse=True)
def no_reason_was_reported(monkeypatch):
    monkeypatch.setattr(functional, "_REPORTED", set())


class Shared(nn.Module):
    """One layer under two names."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.again, self.head = self.body, nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.again(self.body(x)))


class Listed(nn.Module):
    """Reads its parameters from a list and a plain attribute."""

    def __init__(self):
        super().__init__()
        self.lin, self.head = nn.Linear(4, 4), nn.Linear(4, 1)
        self.ws = list(self.lin.parameters())
        self.__dict__["same"] = self.head.weight  # not registered a second time

    def forward(self, x):
        return F.linear(torch.tanh(F.linear(x, *self.ws)), self.__dict__["same"], self.head.bias)


class Recomputed(nn.Module):
    """Computes its middle again in backward."""

    def __init__(self, use_reentrant=False):
        super().__init__()
        self.first, self.block, self.head = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 1)
        self.use_reentrant = use_reentrant

    def forward(self, x):
        return self.head(checkpoint(self.block, self.first(x), use_reentrant=self.use_reentrant))


class Tied(nn.Module):
    """One weight in two layers, and a frozen bias."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.b.weight = self.a.weight
        self.b.bias.requires_grad_(False)

    def forward(self, x):
        return self.head(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Sequence(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(4, 1)

    def forward(self, x):
        found = self.layer(x[:, None].expand(-1, 3, -1) * torch.linspace(0.5, 1.5, 3)[:, None])
        return self.head((found[0] if isinstance(found, tuple) else found)[:, -1])


MODULES = {
    "linear": lambda: nn.Linear(4, 1),
    "shared": Shared,
    "listed": Listed,
    "recomputed": Recomputed,
    "recomputed, reentrant": lambda: Recomputed(use_reentrant=True),
    "tied and frozen": Tied,
    "weight norm": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 1)
    ),
    "batch norm": lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)),
    "dropout, off": lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(), nn.Linear(4, 1)).eval(),
    "recurrent": lambda: Sequence(nn.LSTM(4, 4, batch_first=True)),
    "attention": lambda: Sequence(nn.TransformerEncoderLayer(4, 2, 4, 0.0, batch_first=True, activation="gelu")),
}


class Task:
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.X, self.y = (torch.randn(30, k, generator=generator) for k in (4, 1))
        self.X_dev, self.y_dev = (torch.randn(20, k, generator=generator) for k in (4, 1))

    def inner(self, module, hp):
        penalty = sum(p.square().sum() for p in module.parameters() if p.requires_grad)
        return F.mse_loss(module(self.X), self.y) + hp["l2"] * penalty

    def outer(self, module, hp):
        return F.mse_loss(module(self.X_dev), self.y_dev)


def fit(module, loss):
    """Train in place to ‖∇g‖ ≈ 1e-10."""
    optimizer = torch.optim.LBFGS(
        [p for p in module.parameters() if p.requires_grad],
        max_iter=3000, max_eval=6000, tolerance_grad=1e-12, tolerance_change=0, history_size=50,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    optimizer.zero_grad()
    return module


def moved(make):
    """A module away from its initial weights, where it has not been called."""
    torch.manual_seed(1)
    module = make()
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(1.3).add_(0.1 * torch.randn_like(p))
    return module, Task()


def by_differences(module, task, l2, h=1e-5):
    """−(2 w)ᵀ H⁻¹ ∂f/∂w, where H are differences of gradients of a copy whose parameters change in place."""
    other = deepcopy(module)
    own = [p for p in other.parameters() if p.requires_grad]

    def gradient(loss):
        other.zero_grad()
        loss(other, {"l2": l2}).backward()
        return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in own])

    rows = []
    for p in own:
        entries = p.detach().view(-1)
        for k in range(len(entries)):
            at, ends = entries[k].item(), []
            for step in (h, -h):
                entries[k] = at + step
                ends.append(gradient(task.inner))
            entries[k] = at
            rows.append((ends[0] - ends[1]) / (2 * h))
    H, w = torch.stack(rows), torch.cat([p.detach().flatten() for p in own])
    return -2 * w @ torch.linalg.solve((H + H.T) / 2, gradient(task.outer))


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_the_hypergradient_is_that_of_a_module_that_changes_in_place(name):
    module, task = moved(MODULES[name])
    found = hg.hypergradient(
        task.inner, task.outer, module, {"l2": 0.5}, linsolve=hg.GMRES(tol=1e-12, max_iter=400), error_bar=False
    )
    assert isinstance(found.grad["l2"], float)
    assert found.grad["l2"] == pytest.approx(by_differences(module, task, 0.5).item(), rel=1e-6)
    assert found.params.keys() == {name for name, p in module.named_parameters() if p.requires_grad}
    assert all(torch.equal(p, module.get_parameter(name)) for name, p in found.params.items())


def trained(make, l2=0.05):
    torch.manual_seed(1)
    module, task = make(), Task()
    return fit(module, lambda: task.inner(module, {"l2": l2})), task


@pytest.mark.parametrize("name", ["linear", "listed", "tied and frozen", "dropout, off"])
def test_at_a_solution_it_is_the_slope_of_the_dev_loss_after_training(name):
    module, task = trained(MODULES[name])
    ends, h = [], 1e-4
    for at in (0.05 + h, 0.05 - h):
        other = deepcopy(module)
        fit(other, lambda: task.inner(other, {"l2": at}))  # noqa: B023
        ends.append(task.outer(other, None).item())
    found = hg.hypergradient(task.inner, task.outer, module, {"l2": 0.05}, linsolve=hg.CG(tol=1e-10))
    assert found.grad["l2"] == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=2e-5)
    assert float(found.stats["error_estimate"]) < 1e-4 * abs(found.grad["l2"])


def state_of(module):
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    return {
        "objects": {name: id(x) for name, x in tensors.items()},
        "bytes": {name: x.detach().numpy().tobytes() for name, x in tensors.items()},
        "versions": {name: x._version for name, x in tensors.items()},
        "grads": {name: x.grad for name, x in tensors.items()},
        "flags": [(part.training, *part.__dict__) for part in module.modules()],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()],
        "random": (torch.get_rng_state().tolist(), random.getstate()),
    }


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad", "ignore::hypergrad.NotConvergedWarning")
def test_the_module_is_as_it_was(name, fails):
    torch.manual_seed(1)
    module, task = MODULES[name](), Task()
    module.register_forward_hook(lambda *_: None)
    calls = []

    def outer(m, hp):
        calls.append(m)
        if fails and len(calls) == 3:
            raise KeyError("mine")
        return task.outer(m, hp)

    before = state_of(module)
    if fails:
        with pytest.raises(KeyError, match="mine"):
            hg.hypergradient(task.inner, outer, module, {"l2": 0.05}, linsolve=hg.MINRES(), error_bar=False)
    else:
        hg.hypergradient(task.inner, outer, module, {"l2": 0.05}, linsolve=hg.MINRES(), error_bar=False)
    assert calls[0] is module
    assert state_of(module) == before


@pytest.mark.parametrize(
    "product",
    [hg.Reverse(), hg.CentredDifferences(), hg.ForwardOverReverse(), hg.Traced()],
    ids=lambda p: type(p).__name__,
)
def test_every_product_and_damping(product):
    module, task = trained(MODULES["tied and frozen"])
    at = {"l2": torch.tensor(0.05)}
    wanted = hg.hypergradient(task.inner, task.outer, module, at, damping=0.01, linsolve=hg.Dense(), error_bar=False)
    found = hg.hypergradient(
        task.inner, task.outer, module, at, product=product, damping=0.01,
        linsolve=hg.GMRES(tol=1e-9, max_iter=200), error_bar=False,
    )  # fmt: skip
    torch.testing.assert_close(found.grad["l2"], wanted.grad["l2"], rtol=1e-5, atol=0)
    with pytest.raises(ValueError, match=r"no outputs of a model, which GaussNewton needs; use product=Reverse\(\)"):
        hg.hypergradient(task.inner, task.outer, module, at, product=hg.GaussNewton())


def test_losses_may_use_the_module_by_another_name():
    module, task = trained(MODULES["linear"])
    weight = [0.05, 2]

    def inner(_, hp):
        return F.mse_loss(module(task.X), task.y) + hp[0] * sum(p.square().sum() for p in module.parameters())

    def outer(_, hp):
        return hp[1] * F.mse_loss(F.linear(task.X_dev, module.weight, module.bias), task.y_dev)

    found = hg.hypergradient(inner, outer, module, weight, linsolve=hg.Dense())
    same = hg.hypergradient(task.inner, task.outer, module, {"l2": 0.05}, linsolve=hg.Dense())
    assert type(found.grad) is list
    assert [type(x) for x in found.grad] == [float, float]
    assert found.grad == pytest.approx([2 * same.grad["l2"], same.outer_loss], rel=1e-10)
    assert hg.hypergradient(
        lambda m, l2: task.inner(m, {"l2": l2}), task.outer, module, 0.05, linsolve=hg.Dense()
    ).grad == pytest.approx(same.grad["l2"], rel=1e-12)


class Stale(nn.Module):
    """Holds the memory of its weight by another tensor, which changes with it in place."""

    def __init__(self):
        super().__init__()
        self.lin, self.head = nn.Linear(4, 4), nn.Linear(4, 1)
        self.memory = self.lin.weight.data

    def forward(self, x):
        return self.head(torch.tanh(self.lin(x) + F.linear(x, self.memory)))


class Cube(torch.autograd.Function):
    """x³ with a second derivative that is wrong."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x.detach())
        return x**3

    @staticmethod
    def backward(ctx, *grads):
        (x,) = ctx.saved_tensors
        return 3 * x.detach() ** 2 * grads[0]


class Wrong(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 1)

    def forward(self, x):
        return Cube.apply(self.lin(x))


class Constant(nn.Module):
    """Reads a parameter without its gradient."""

    def __init__(self):
        super().__init__()
        self.lin, self.scale = nn.Linear(4, 1), nn.Parameter(torch.tensor(1.3))

    def forward(self, x):
        return self.lin(x) * self.scale.detach()


def test_what_is_no_function_of_the_registered_parameters_is_refused():
    for make, said in (
        (Stale, "inner_loss of Stale has a gradient with respect to 'lin.weight' that is not the derivative"),
        (Wrong, "parameters of Wrong, has .* elsewhere than where the module"),
        (Constant, "inner_loss of Constant has a gradient with respect to 'scale' that is not the derivative"),
    ):
        torch.manual_seed(0)
        module, task = make(), Task()
        with pytest.raises(ValueError, match=said):
            hg.hypergradient(task.inner, task.outer, module, {"l2": 0.05})


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        (lambda: nn.Tanh(), ValueError, "none of the 0 parameters of this Tanh does; call requires_grad_"),
        (lambda: nn.Linear(4, 1).requires_grad_(False), ValueError, "none of the 2 parameters of this Linear does"),
        (lambda: nn.LazyLinear(1), ValueError, "has no shape yet. Call the model once"),
        (lambda: nn.Linear(4, 1).half(), ValueError, "of dtype torch.float16, which is too coarse"),
        (lambda: nn.DataParallel(nn.Linear(4, 1)), TypeError, "Pass the module inside it, its `.module`"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_what_cannot_be_served_is_refused(module, error, message):
    with pytest.raises(error, match=message):
        hg.hypergradient(Task().inner, Task().outer, module(), {"l2": 0.05})


def test_a_loss_that_draws_is_refused():
    task, generator = Task(), torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 1))
    before = state_of(module)
    with pytest.raises(ValueError, match=r"inner_loss must give the same value .* two calls gave .* give batches="):
        hg.hypergradient(task.inner, task.outer, module, {"l2": 0.05})
    assert state_of(module) == before

    def on_a_batch(m, hp):
        rows = torch.randint(20, (5,), generator=generator)
        return F.mse_loss(m(task.X_dev[rows]), task.y_dev[rows])

    with pytest.raises(ValueError, match="outer_loss must give the same value .* another mini-batch"):
        hg.hypergradient(task.inner, on_a_batch, module.eval(), {"l2": 0.05})
    with pytest.raises(ValueError, match="inner_loss must give .* Draw from torch's generator, which is seeded"):
        hg.hypergradient(
            lambda m, hp, b: task.inner(m, hp) * (1 + random.random()), lambda m, hp, b: task.outer(m, hp),
            module, {"l2": 0.05}, batches=[0, 1],
        )  # fmt: skip
    with pytest.raises(ValueError, match="batches must hold at least 1 batch, but it holds 0"):
        hg.hypergradient(task.inner, task.outer, module, {"l2": 0.05}, batches=iter([]))


def test_kinks_within_single_precision_are_served(monkeypatch):
    """Rectifiers have kinks between points that are as close as single precision allows, more over a longer way."""
    module = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)).float()
    with torch.no_grad():
        for p, value in zip(module.parameters(), (1.0, 0.0, 0.7, 0.1), strict=True):
            p.fill_(value)
    X = torch.cat([torch.linspace(0.0, 0.05, 401), torch.tensor([1.0, 2.0])]).float()[:, None]
    y = torch.cat([torch.full((401,), 3.0), torch.tensor([0.5, 1.5])]).float()[:, None]

    def inner(net, hparams):
        return F.mse_loss(net(X), y) + hparams["l2"] * sum(p.square().sum() for p in net.parameters())

    def estimate():
        return hg.hypergradient(
            inner, lambda net, _: F.mse_loss(net(X[-2:]), y[-2:]), module, {"l2": 0.3}, damping=30.0
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hg.NotConvergedWarning)  # the point is no optimum
        assert isinstance(estimate().grad["l2"], float)
        monkeypatch.setattr(Recording, "crosses_a_kink", lambda self, wrong: False)
        with pytest.raises(ValueError, match="product with the Hessian that is off"):
            estimate()


@pytest.mark.parametrize("size", [0.0, 1e-12])
def test_dead_units_at_zero_are_no_wrong_second_derivative(size):
    """Weight decay shrinks a unit that no example activates; one side of its kink stays close at every width."""
    torch.manual_seed(0)
    first, last = nn.Linear(6, 8), nn.Linear(8, 3)
    module = nn.Sequential(first, nn.ReLU(), last)
    with torch.no_grad():
        first.weight[0], first.bias[0], last.weight[:, 0] = size, -size, size
    X, y = torch.rand(50, 6), torch.arange(50) % 3

    def inner(net, hparams):
        return F.cross_entropy(net(X), y) + hparams["l2"] * sum(p.square().sum() for p in net.parameters())

    found = hg.hypergradient(
        inner, lambda net, _: F.cross_entropy(net(X), y), module, {"l2": 0.1}, damping=1.0, error_bar=False
    )
    assert math.isfinite(found.grad["l2"])


class OnceDifferentiable(torch.autograd.Function):
    """x³, whose slope has a wrong slope of its own."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, *grad_outputs):
        (x,) = ctx.saved_tensors
        return grad_outputs[0] * (3 * x**2).detach()


class Cubes(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, X):
        return OnceDifferentiable.apply(self.scale) * self.last(self.first(X).relu())


def test_dead_units_do_not_hide_a_wrong_second_derivative():
    torch.manual_seed(0)
    module = Cubes()
    with torch.no_grad():
        module.first.weight[0], module.first.bias[0], module.last.weight[:, 0] = 0.0, 0.0, 0.0
    X, y = torch.rand(50, 6), torch.arange(50) % 3

    def loss(net, hparams):
        return F.cross_entropy(net(X), y) + hparams["l2"] * sum(p.square().sum() for p in net.parameters())

    with pytest.raises(ValueError, match="product with the Hessian that is off"):
        hg.hypergradient(loss, lambda net, _: F.cross_entropy(net(X), y), module, {"l2": 0.1}, damping=1.0)
