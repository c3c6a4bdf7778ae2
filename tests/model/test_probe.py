"""Modules that read or keep things in other ways: the hypergradient of plain in-place training, or a refusal."""

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from slow_cases import mostly_slow
from torch import nn
from torch.nn.functional import linear, mse_loss
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import hypergrad as hg
from hypergrad.compile import inductor

LAM, STEPS, LR, DAMPING = 0.1, 3, 0.1, 3.0


@pytest.fixture(scope="module", autouse=True)
def _float64_for_fixtures():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


class Network(nn.Module):
    """Two layers and an output; the second one is replaced by each kind."""

    def __init__(self):
        super().__init__()
        self.lin, self.mid, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.more()

    def more(self):
        pass

    def body(self, x):
        return torch.tanh(self.mid(x))

    def forward(self, x):
        return self.head(self.body(torch.tanh(self.lin(x))))


class SharedModule(Network):
    def more(self):
        self.again = self.mid

    def body(self, x):
        return torch.tanh(self.again(torch.tanh(self.mid(x))))


class SharedBlock(Network):
    def more(self):
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.Tanh())] * 3)

    def body(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class TiedInSharedModule(Network):
    """One parameter in two layers, of which one is reached by two names."""

    def more(self):
        self.again = self.mid
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.mid.weight

    def body(self, x):
        return torch.tanh(self.tied(torch.tanh(self.again(x))))


class ParametersInList(Network):
    def more(self):
        self.own = list(self.mid.parameters())

    def body(self, x):
        return torch.tanh(linear(x, *self.own))


class ParameterInPlainAttribute(Network):
    def more(self):
        self.__dict__["kernel"] = self.mid.weight

    def body(self, x):
        return torch.tanh(x @ self.kernel + self.mid.bias)


class ParametersInDict(Network):
    def more(self):
        self.own = {"weights": (self.mid.weight, [self.mid.bias])}

    def body(self, x):
        return torch.tanh(linear(x, self.own["weights"][0], self.own["weights"][1][0]))


class LayerInList(Network):
    """A layer that a list holds too, with its parameters registered elsewhere."""

    def more(self):
        self.hidden = [nn.Linear(4, 4)]
        self.registered = nn.ParameterList(self.hidden[0].parameters())

    def body(self, x):
        return torch.tanh(self.hidden[0](x))


class Recomputed(Network):
    def body(self, x):
        return checkpoint(super().body, x, use_reentrant=False)


class RecomputedReentrantly(Network):
    def body(self, x):
        return checkpoint(super().body, x, use_reentrant=True)


class RecomputedInSegments(Network):
    def more(self):
        self.parts = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh())

    def body(self, x):
        return checkpoint_sequential(self.parts, 2, x, use_reentrant=False)


class RecomputedAttention(Network):
    """Kernels of attention differ between the call and recomputation, if they are chosen outside of it."""

    def more(self):
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def _attend(self, x):
        x = x.unflatten(0, (-1, 2))
        return self.attention(x, x, x, need_weights=False)[0].flatten(0, 1)

    def body(self, x):
        return checkpoint(self._attend, x, use_reentrant=False)


class WeightNorm(Network):
    def more(self):
        parametrizations.weight_norm(self.mid)


class WeightNormOfAll(Network):
    def more(self):
        parametrizations.weight_norm(self.mid, dim=-1)


class WeightNormOfColumns(Network):
    def more(self):
        parametrizations.weight_norm(self.mid, dim=1)


class WeightNormByHook(Network):
    def more(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            nn.utils.weight_norm(self.mid)


class WeightNormOfConvolution(Network):
    def more(self):
        self.conv = parametrizations.weight_norm(nn.Conv1d(1, 2, 3, padding=1))

    def body(self, x):
        return torch.tanh(self.mid(self.conv(x[:, None]).mean(1)))


class Pruned(Network):
    def more(self):
        prune.l1_unstructured(self.mid, "weight", amount=6)


class SpectralNormInEvaluation(Network):
    def more(self):
        parametrizations.spectral_norm(self.mid).eval()


class Orthogonal(Network):
    def more(self):
        parametrizations.orthogonal(self.mid)


class ClampsInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.first(x.clamp_(-1, 1))))


class ScalesInputs(ClampsInputs):
    def forward(self, x):
        return self.head(torch.tanh(self.first(x.mul_(0.9))))


class WritesColumn(ClampsInputs):
    def forward(self, x):
        x[:, 0] = 0.5
        return self.head(torch.tanh(self.first(x)))


class FillsClosure(Network):
    """A hook that collects outputs in a variable of its closure, and a forward of the instance."""

    def more(self):
        seen: list[Any] = []
        self.mid.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
        self.seen = lambda: seen


class ConstantComputedBefore(Network):
    def more(self):
        self.shift = self.mid.weight.detach().clone()

    def body(self, x):
        return torch.tanh(self.mid(x) + x @ self.shift)


SERVED = [
    SharedModule,
    TiedInSharedModule,
    ParametersInList,
    ParameterInPlainAttribute,
    Recomputed,
    RecomputedReentrantly,
    RecomputedAttention,
    WeightNorm,
    WeightNormByHook,
    Pruned,
    ClampsInputs,
    ScalesInputs,
    FillsClosure,
]
MORE = [
    SharedBlock,
    ParametersInDict,
    LayerInList,
    RecomputedInSegments,
    WeightNormOfAll,
    WeightNormOfColumns,
    WeightNormOfConvolution,
    SpectralNormInEvaluation,
    Orthogonal,
    WritesColumn,
    ConstantComputedBefore,
]


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def data():
    return (drawn(1, 30, 4), drawn(2, 30, 1)), (drawn(3, 20, 4), drawn(4, 20, 1))


def made(kind):
    torch.manual_seed(0)
    return kind()


def problem_of(module, **settings):
    train, dev = data()
    hyperparameters = {"l2": hg.L2(init=LAM)}
    return hg.Supervised(model=module, loss=mse_loss, train=train, dev=dev, hyperparameters=hyperparameters, **settings)


class Plain:
    """Training of a module by torch alone, in place."""

    def __init__(self, kind):
        self.module = made(kind)
        self.params = [p for p in self.module.parameters() if p.requires_grad]
        self.train, self.dev = data()

    def gradient(self, part, lam):
        X, y = part
        loss = mse_loss(self.module(X.clone()), y) + lam * sum(p.square().sum() for p in self.params)
        loss.backward()
        found = [p.grad.clone() for p in self.params]
        for p in self.params:
            p.grad = None
        return torch.cat([g.flatten() for g in found])

    @torch.no_grad()
    def add(self, step):
        for p, s in zip(self.params, step.split([p.numel() for p in self.params]), strict=True):
            p += s.view_as(p)

    def trained(self, lam):
        for _ in range(STEPS):
            self.add(-LR * self.gradient(self.train, lam))
        return self

    def dev_loss(self):
        X, y = self.dev
        return mse_loss(self.module(X.clone()), y).item()

    def implicit(self):
        """−(∂φ/∂λ)ᵀ (H + δI)⁻¹ ∂f/∂w, with H from differences of the gradient."""
        w = torch.cat([p.detach().flatten() for p in self.params])
        h, rows = 1e-5, []
        for e in torch.eye(len(w)):
            self.add(h * e)
            ahead = self.gradient(self.train, LAM)
            self.add(-2 * h * e)
            rows.append((ahead - self.gradient(self.train, LAM)) / (2 * h))
            self.add(h * e)
        v = torch.linalg.solve(torch.stack(rows) + DAMPING * torch.eye(len(w)), self.gradient(self.dev, 0.0))
        return -2 * (w @ v).item()


SOLVER = hg.GradientDescent(lr=LR)
unrolled = partial(hg.Unrolled, solver=SOLVER, inner_steps=STEPS)
implicit = partial(hg.Implicit, solver=SOLVER, inner_steps=STEPS, damping=DAMPING, error_bar=False)
THROUGH_TRAINING = {
    "graph": unrolled(),
    "store": unrolled(tape=hg.Store()),
    "checkpoint": unrolled(tape=hg.Checkpoint()),
    "forward": hg.Forward(solver=SOLVER, inner_steps=STEPS),
    "compiled": unrolled(compile=True),
    "compiled, checkpoint": unrolled(compile=True, tape=hg.Checkpoint()),
}
IMPLICIT = {
    "cg": (implicit(linsolve=hg.CG(tol=1e-10, max_iter=500)), 1e-6),
    "differences": (implicit(linsolve=hg.CG(tol=1e-8, max_iter=500), product=hg.CentredDifferences()), 1e-5),
}


@pytest.fixture
def _eager_backend(monkeypatch):
    monkeypatch.setattr(inductor, "compile_graph", lambda graph, _: lambda tensors: graph(*tensors))


@pytest.mark.usefixtures("_eager_backend")
@pytest.mark.parametrize("kind", mostly_slow([*SERVED, *MORE], SERVED[::2]))
def test_it_is_the_slope_of_plain_training(kind):
    h = 1e-5
    loss, ahead, behind = (Plain(kind).trained(LAM + t).dev_loss() for t in (0, h, -h))
    slope, indirect = (ahead - behind) / (2 * h), Plain(kind).trained(LAM).implicit()
    problem = problem_of(made(kind))
    at = problem.init_hparams(), problem.init_params()
    for name, estimator in THROUGH_TRAINING.items():
        found = estimator.estimate(problem, *at)
        assert found.outer_loss == pytest.approx(loss, rel=1e-10), name
        assert found.grad["l2"].item() == pytest.approx(slope, rel=1e-6, abs=1e-9), name
        if name.startswith("compiled"):
            assert str(found.stats["training_remark"]).startswith("compiled"), found.stats
    for name, (estimator, tol) in IMPLICIT.items():
        found = estimator.estimate(problem, *at)
        assert found.grad["l2"].item() == pytest.approx(indirect, rel=tol, abs=1e-9), name
    both = [
        unrolled(solver=hg.Momentum(lr=LR), tape=tape).estimate(problem, *at).grad["l2"].item()
        for tape in (hg.Reversible(), hg.Graph())
    ]
    assert both[0] == pytest.approx(both[1], rel=1e-9)
