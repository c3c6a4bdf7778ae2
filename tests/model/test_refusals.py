"""Modules that cannot be served, each refused before training with its layer, the reason and the remedy."""

import copy
import pickle
import random
import types
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.checkpoint as checkpoint_module
from torch import nn
from torch.nn.functional import linear, mse_loss
from torch.nn.utils import parametrizations, prune

import hypergrad as hg
from hypergrad.model.pure_module import PureModule


@pytest.fixture(scope="module", autouse=True)
def _float64_for_fixtures():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin, self.head = nn.Linear(4, 4), nn.Linear(4, 1)
        self.more()

    def more(self):
        pass

    def body(self, x):
        return torch.tanh(self.lin(x))

    def forward(self, x):
        return self.head(self.body(x))


class InNamespace(Network):
    def more(self):
        self.own = types.SimpleNamespace(weight=self.lin.weight)

    def body(self, x):
        return torch.tanh(x @ self.own.weight)


class InClosure(Network):
    def more(self):
        weight = self.lin.weight
        self.first = lambda x: torch.tanh(x @ weight)

    def body(self, x):
        return self.first(x)


class Inner(nn.Module):
    """A layer that reads its weight from an object of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.own = types.SimpleNamespace(weight=self.weight)

    def forward(self, x):
        return x @ self.own.weight


class ComputedBefore(Network):
    def more(self):
        self.transposed = self.lin.weight.t()

    def body(self, x):
        return torch.tanh(x @ self.transposed)


class SharesMemory(Network):
    def more(self):
        self.register_buffer("target", self.lin.weight.detach())

    def body(self, x):
        return torch.tanh(self.lin(x) + x @ self.target)


class TiedByData(Network):
    def more(self):
        self.tied = nn.Linear(4, 4)
        self.tied.weight.data = self.lin.weight.data


class Remembers(Network):
    """Keeps its first result."""

    def body(self, x):
        if not hasattr(self, "kept"):
            self.kept = super().body(x)
        return self.kept


class RemembersByShape(Network):
    def more(self):
        self.kept = {}

    def body(self, x):
        if len(x) not in self.kept:
            self.kept[len(x)] = self.lin.weight.t()
        return torch.tanh(x @ self.kept[len(x)])


class Counts(Network):
    """Other outputs from the hundredth call on."""

    calls = 0

    def body(self, x):
        self.calls += 1
        return super().body(x) * (1 if self.calls < 100 else 2)


class Collects(Network):
    def more(self):
        self.seen = []

    def body(self, x):
        self.seen.append(x.mean())
        return super().body(x)


class Averages(Network):
    """A running average in a plain attribute."""

    def more(self):
        self.mean = torch.zeros(4)

    def body(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return super().body(x)


class Alternates(Network):
    def more(self):
        self.state = iter(range(1000))

    def body(self, x):
        return super().body(x) * (1 + next(self.state) % 2)


class DrawsElsewhere(Network):
    def body(self, x):
        return super().body(x) * np.random.rand() * random.random()


class OwnGenerator(Network):
    def more(self):
        self.generator = torch.Generator().manual_seed(0)

    def body(self, x):
        return super().body(x) + torch.randn(4, generator=self.generator)


class FirstCallScales(Network):
    done = False

    def body(self, x):
        if not self.done:
            self.done = True
            self.lin.weight.data.div_(2)
        return super().body(x)


class MaxNorm(Network):
    def more(self):
        self.embed = nn.Embedding(3, 4, max_norm=0.1)

    def body(self, x):
        return super().body(x) + self.embed(torch.arange(len(x)) % 3)


class Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, layer, *params):
        ctx.layer = layer
        ctx.save_for_backward(x)
        with torch.no_grad():
            return torch.tanh(layer(x))

    @staticmethod
    def backward(ctx: Any, *grads: Any):
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            inputs = [x, *ctx.layer.parameters()]
            found = torch.autograd.grad(torch.tanh(ctx.layer(x)), inputs, grads, create_graph=True)
        return found[0], None, *found[1:]


class ComputesAgain(Network):
    """A checkpoint of somebody's own."""

    def body(self, x):
        return Again.apply(x, self.lin, *self.lin.parameters())


def spectral():
    return nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 1))


def spectral_hook():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 1))


class Uncopied(Network):
    def __deepcopy__(self, memo):
        raise RuntimeError("not this one")


AT_CONSTRUCTION = {
    "in a namespace": (InNamespace, "The model, a InNamespace, gives other outputs .* Read registered parameters"),
    "in a closure": (InClosure, "The model, a InClosure, gives other outputs"),
    "inner": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Sequential(Inner(), nn.Tanh()), nn.Linear(4, 1)),
        "The layer '1.0' of the model, a Inner, gives other outputs",
    ),
    "computed before": (ComputedBefore, "an attribute 'transposed' that shares the memory of .*'lin.weight'"),
    "shares memory": (
        SharesMemory,
        "an attribute 'target' that shares the memory of .*'lin.weight'.* detach and clone",
    ),
    "tied by data": (TiedByData, "'lin.weight' and 'tied.weight' of the model share their memory.* Make them one"),
    "remembers": (Remembers, "a Remembers, gives other outputs .* keeps results of an earlier call"),
    "remembers by shape": (RemembersByShape, "a RemembersByShape, gives other outputs"),
    "counts": (Counts, "a Counts, keeps state in Python: each call changes its attribute 'calls'"),
    "collects": (Collects, "a Collects, keeps state in Python: each call changes its attribute 'seen'"),
    "averages": (Averages, "a Averages, keeps state in Python: each call changes its attribute 'mean'"),
    "alternates": (Alternates, "Alternates must return .*two calls differ"),
    "draws elsewhere": (DrawsElsewhere, "DrawsElsewhere must return .*two calls differ"),
    "own generator": (OwnGenerator, "OwnGenerator must return .*two calls differ"),
    "first call scales": (FirstCallScales, "changes the parameter 'lin.weight' of its Linear"),
    "max norm": (MaxNorm, "changes the parameter 'embed.weight' of its Embedding"),
    "computes again": (ComputesAgain, "The layer 'lin' .* another gradient .*lin.weight.* torch.utils.checkpoint"),
    "spectral": (spectral, r"the buffer '0.parametrizations.weight.0._u' of its _SpectralNorm.* call eval\(\) on"),
    "spectral hook": (spectral_hook, r"the buffer '0.weight_u' of its Linear.* call eval\(\) on"),
    "no parameters": (nn.Tanh, "no parameter that requires a gradient"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 1)), "The layer '0' .* 'weight'.*no shape yet. Call"),
    "meta": (lambda: Network().to("meta"), "'lin' .* no values, because it is on the device meta. Call to_empty"),
    "bfloat16": (lambda: Network().bfloat16(), r"'lin' .*torch.bfloat16.* expected torch.float32 .* Call float\(\)"),
    "float16": (lambda: Network().half(), r"'lin' .*torch.float16.* expected torch.float32 .* Call float\(\)"),
    "complex": (lambda: nn.Linear(4, 1, dtype=torch.complex128), "complex values .*Keep torch.view_as_real"),
    "parallel": (lambda: nn.DataParallel(Network()), "The model, a DataParallel, .* its `.module`"),
    "parallel inside": (
        lambda: nn.Sequential(nn.DataParallel(Network())),
        "The layer '0' of the model, a DataParallel",
    ),
    "compiled": (lambda: torch.compile(Network(), backend="eager"), "torch.compile made it.* its `_orig_mod`"),
    "scripted": (lambda: torch.jit.script(nn.Linear(4, 1)), "compiled by TorchScript. Pass the Python"),
    "not copied": (Uncopied, "copy.deepcopy copies.* RuntimeError: not this one. Leave out"),
    "not a module": (lambda: mse_loss, "must be a torch.nn.Module, but it is <function mse_loss"),
}


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def problem_of(module, **settings):
    usual = {"loss": mse_loss, "train": (drawn(1, 30, 4), drawn(2, 30, 1)), "dev": (drawn(3, 20, 4), drawn(4, 20, 1))}
    return hg.Supervised(model=module, hyperparameters={"l2": hg.L2(init=0.1)}, **usual | settings)


@pytest.mark.parametrize(("make", "message"), AT_CONSTRUCTION.values(), ids=AT_CONSTRUCTION)
def test_it_is_refused_at_construction(make, message):
    torch.manual_seed(0)
    with pytest.raises((ValueError, TypeError), match=message):
        problem_of(make())


class WeightNormOfTorch(Network):
    """Torch's operation, whose second derivative is wrong."""

    def more(self):
        self.size = nn.Parameter(torch.ones(4, 1))

    def body(self, x):
        return torch.tanh(linear(x, torch.ops.aten._weight_norm(self.lin.weight, self.size, 0)))


class HalfCube(torch.autograd.Function):
    """x³ / 2 whose backward has a wrong derivative of its own."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3 / 2

    @staticmethod
    def backward(ctx: Any, *grads: Any):
        return grads[0] * 1.5 * ctx.saved_tensors[0].detach() ** 2


class Detaches(nn.Module):
    def forward(self, x):
        return HalfCube.apply(x)


WRONG = {
    "weight norm of torch": (WeightNormOfTorch, "The model, a WeightNormOfTorch, .* One of torch's operations"),
    "detaches": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Tanh(), Detaches()), nn.Linear(4, 1)),
        "The layer '1.1' of the model, a Detaches, .* The backward of HalfCubeBackward",
    ),
    "one small layer of many": (
        lambda: nn.Sequential(
            *(x for _ in range(4) for x in (nn.Linear(4, 4), nn.Tanh())), nn.Linear(4, 1), Detaches(), nn.Linear(1, 1)
        ),
        "The layer '9' of the model, a Detaches",
    ),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_wrong_second_derivatives_are_found(make, message, dtype):
    torch.manual_seed(0)
    problem = problem_of(make().to(dtype))
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.01), inner_steps=3)
    with pytest.raises(ValueError, match=message) as caught:
        estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert "product=differences" in str(caught.value)


def test_a_loss_with_a_wrong_second_derivative_is_named():
    problem = problem_of(Network(), loss=lambda z, y: HalfCube.apply(z - y))
    with pytest.raises(ValueError, match="The loss cannot be differentiated twice: its second derivatives are off"):
        hg.Unrolled(solver=hg.GradientDescent(lr=0.01), inner_steps=3).estimate(
            problem, problem.init_hparams(), problem.init_params()
        )


RIGHT = {
    "relu": nn.ReLU,
    "hardtanh": nn.Hardtanh,
    "max": lambda: nn.Sequential(nn.Unflatten(1, (1, 4)), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(2, 4)),
    "elu": nn.ELU,
    "zero": lambda: nn.Linear(4, 4).requires_grad_(False),
    "batch norm": partial(nn.BatchNorm1d, 4),
    "dropout": partial(nn.Dropout, 0.4),
    "constant": lambda: nn.Threshold(1e9, 0.0),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("layer", RIGHT.values(), ids=RIGHT)
def test_kinks_and_rounding_are_no_errors(layer, dtype):
    for seed in range(5):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 32), layer() if layer is nn.ReLU else nn.Tanh(), nn.Linear(32, 4), layer())
        problem = problem_of(nn.Sequential(model, nn.Linear(4, 1)).to(dtype))
        hg.Unrolled(solver=hg.GradientDescent(lr=0.01), inner_steps=1).estimate(
            problem, problem.init_hparams(), problem.init_params()
        )


def test_a_gradient_that_leaves_out_padding_is_served():
    """The derivative of such a gradient is not symmetric, so a product with its transpose is no difference."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 4, padding_idx=0), nn.Flatten(), nn.Linear(12, 4), nn.Tanh(), nn.Linear(4, 1))
    train, dev = ((torch.arange(3 * n).view(n, 3) ** 2 % 5, drawn(n, n, 1)) for n in (30, 20))
    losses = []
    for lam in (0.1, 0.1 + 1e-5, 0.1 - 1e-5):
        net, (X, y) = copy.deepcopy(model), train
        params = list(net.parameters())
        for _ in range(3):
            loss = mse_loss(net(X), y) + lam * sum(p.square().sum() for p in params)
            grads = torch.autograd.grad(loss, params)
            with torch.no_grad():
                for p, g in zip(params, grads, strict=True):
                    p -= 0.1 * g
        losses.append(mse_loss(net(dev[0]), dev[1]).item())
    problem = problem_of(model, train=train, dev=dev)
    found = hg.Unrolled(solver=hg.GradientDescent(lr=0.1), inner_steps=3).estimate(
        problem, problem.init_hparams(), problem.init_params()
    )
    assert found.grad["l2"].item() == pytest.approx((losses[1] - losses[2]) / 2e-5, rel=1e-6)


def test_what_is_skipped_without_the_probe():
    problem = problem_of(InNamespace(), probe=False)
    problem_of(Counts(), probe=False)
    hg.Unrolled(solver=hg.GradientDescent(lr=0.01), inner_steps=1).estimate(
        problem, problem.init_hparams(), problem.init_params()
    )
    with pytest.raises(ValueError, match="two calls differ"):
        problem_of(Alternates(), probe=False)


def test_the_last_batch_of_one_example_is_known_at_construction():
    def network():
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    with pytest.raises(ValueError, match="The last of 30 examples in batches of 29 is 1 example, and Sequential"):
        problem_of(network(), batch_size=29)
    with pytest.raises(ValueError, match="Each batch has 1 example.* Choose a batch_size"):
        problem_of(network(), batch_size=1)
    problem_of(network(), batch_size=28)
    problem_of(network().eval(), batch_size=29)
    problem_of(Network(), batch_size=29)


class Counted(Network):
    """Counts calls and backward passes in a list that copies share, because it is an attribute of the class."""

    counts = {"forward": 0, "backward": 0}

    def forward(self, x):
        self.counts["forward"] += 1
        z = super().forward(x)
        return Tally.apply(z, self.counts) if z.requires_grad else z


class Tally(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, counts):
        ctx.counts = counts
        counts["rows"] = max(counts.get("rows", 0), len(x))
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any):
        ctx.counts["backward"] += 1
        return grads[0].clone(), None


def test_it_costs_at_most_ten_gradients_on_eight_examples():
    """A gradient is one forward pass and a backward pass, which costs about two."""
    Counted.counts.clear()
    Counted.counts.update(forward=0, backward=0)
    problem = problem_of(Counted())
    w, hparams = problem.init_params(), problem.init_hparams()
    assert Counted.counts["rows"] <= 8
    problem._twice.require(problem.X[:8], problem.y[:8])
    assert Counted.counts["forward"] + 2 * Counted.counts["backward"] <= 30
    before = dict(Counted.counts)
    problem.inner_loss_and_gradient(w, hparams, None)
    assert Counted.counts["forward"] == before["forward"] + 1


class Everything(Network):
    """Buffers, dropout, a hook with state, a list of parameters, and inputs changed in place."""

    def more(self):
        self.norm, self.drop = nn.BatchNorm1d(4), nn.Dropout(0.3)
        self.shared, self.own = self.lin, [self.lin.weight]
        self.register_buffer("scale", torch.ones(4))
        seen = []
        self.lin.register_forward_hook(lambda module, args, output: seen.append(output))
        self.seen = lambda: seen

    def body(self, x):
        return torch.tanh(self.drop(self.norm(self.shared(self.lin(x.mul_(self.scale))))) @ self.own[0])


def test_nothing_of_the_user_changes():
    torch.manual_seed(0)
    model = Everything()
    model.drop.eval()
    train, dev = (drawn(1, 30, 4), drawn(2, 30, 1)), (drawn(3, 20, 4), drawn(4, 20, 1))
    tensors = {**model.state_dict(keep_vars=True), "X": train[0], "y": train[1], "X_dev": dev[0], "y_dev": dev[1]}

    def state():
        return [
            {
                name: (id(x), x._version, x.detach().numpy().tobytes(), x.requires_grad, x.grad)
                for name, x in tensors.items()
            },
            {
                name: (id(part), part.training, len(part._forward_hooks), sorted(vars(part)))
                for name, part in model.named_modules()
            },
            {name: id(x) for name, x in model.state_dict(keep_vars=True).items()},
            (len(model.seen()), model.shared is model.lin, model.own[0] is model.lin.weight),
            (torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())),
            (torch.backends.mha.get_fastpath_enabled(), checkpoint_module.CheckpointFunction),
        ]

    before = state()
    problem = problem_of(model, train=train, dev=dev)
    at = problem.init_hparams(), problem.init_params()
    for estimator in (
        hg.Unrolled(solver=hg.GradientDescent(lr=0.1), inner_steps=3),
        hg.Implicit(solver=hg.GradientDescent(lr=0.1), inner_steps=3, damping=5.0, error_bar=False),
    ):
        estimator.estimate(problem, *at)
    assert state() == before
    for make in (DrawsElsewhere, MaxNorm, FirstCallScales, Averages):
        with pytest.raises(ValueError, match="two calls differ|changes"):
            problem_of(make(), train=train, dev=dev)
        assert state()[0] == before[0]
        assert state()[4][1:] == before[4][1:]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_problem_can_be_copied_and_gives_the_same(copied):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    prune.random_unstructured(model[0], "weight", amount=3)
    problem = problem_of(model)
    at = problem.init_hparams(), problem.init_params()
    estimator = hg.Unrolled(solver=hg.GradientDescent(lr=0.1), inner_steps=3)
    found = estimator.estimate(problem, *at).grad["l2"]
    assert torch.equal(estimator.estimate(copied(problem), *at).grad["l2"], found)


def test_a_change_of_dtype_is_tried_again():
    torch.manual_seed(0)
    problem = problem_of(nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 1)))
    problem = problem.float()
    at = problem.init_hparams(), problem.init_params()
    found = hg.Unrolled(solver=hg.GradientDescent(lr=0.1), inner_steps=3).estimate(problem, *at)
    assert found.grad["l2"].dtype == torch.float32


def test_the_wrong_number_of_inputs_is_an_error_of_the_module():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        PureModule(nn.Linear(3, 1), torch.ones(5, 4), 0)


def test_tensors_made_in_inference_mode_are_served():
    torch.manual_seed(0)
    with torch.inference_mode():
        model = Network()
    problem = problem_of(model)
    found = hg.Unrolled(solver=hg.GradientDescent(lr=0.1), inner_steps=3).estimate(
        problem, problem.init_hparams(), problem.init_params()
    )
    torch.manual_seed(0)
    other = problem_of(Network())
    wanted = hg.Unrolled(solver=hg.GradientDescent(lr=0.1), inner_steps=3).estimate(
        other, other.init_hparams(), other.init_params()
    )
    assert torch.equal(found.grad["l2"], wanted.grad["l2"])
