"""Modules from outside the repository: every estimator is right, or refuses and says why."""

import importlib
import sys
from functools import partial

import pytest
import torch
from tables import relative_error
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.core.autodiff import central_difference, flatten, leaves, unflatten

MODELS = '''
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x):
        return F.relu(x + self.bn2(self.second(F.relu(self.bn1(self.first(x)), inplace=True))))


class ResNet(nn.Module):
    """Convolutions, batch normalisation, residual connections, pooling."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(Block(2), nn.MaxPool2d(2), Block(2))
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1).flatten(1))


class CausalAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=0.1 if self.training else 0.0)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """Hand-written attention, torch's encoder layer and nn.MultiheadAttention, layer normalisation, dropout."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Embedding(6, 4), nn.LayerNorm(4)
        self.own = CausalAttention(4, 2)
        layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.pool, self.query = nn.MultiheadAttention(4, 2, batch_first=True), nn.Parameter(torch.ones(1, 1, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.embed(x)
        x = self.encoder(x + self.own(self.norm(x)))
        pooled, _ = self.pool(self.query.expand(len(x), -1, -1), x, x, need_weights=False)
        return self.head(pooled[:, 0])


class Recurrent(nn.Module):
    """A bidirectional LSTM of two layers with dropout between them, and a GRU."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 2, num_layers=2, bidirectional=True, dropout=0.2, batch_first=True)
        self.gru = nn.GRU(4, 2, batch_first=True)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head(self.gru(self.lstm(x)[0])[0][:, -1])


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0].cos()


class Wave(nn.Module):
    def forward(self, x):
        return Once.apply(x)


class Outside(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, grad):
        return grad * torch.from_numpy(ctx.saved_tensors[0].detach().numpy()).cos()


class Numpy(nn.Module):
    def forward(self, x):
        return Outside.apply(x)


class Distances(nn.Module):
    """Distances to some centres, for which torch has only the first derivative."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.randn(4, 5))

    def forward(self, x):
        return torch.cdist(x, self.centres, p=3)


def with_wave():
    return nn.Sequential(nn.Linear(5, 4), nn.Sequential(nn.Linear(4, 4), Wave()), nn.Linear(4, 3))


def with_numpy():
    return nn.Sequential(nn.Linear(5, 4), Numpy(), nn.Linear(4, 3))


def with_distances():
    return nn.Sequential(nn.Linear(5, 5), nn.Tanh(), Distances(), nn.Linear(4, 3))


def with_bags():
    return nn.Sequential(nn.EmbeddingBag(6, 4), nn.Tanh(), nn.Linear(4, 3))
'''


@pytest.fixture(scope="module", autouse=True)
def _float64_for_fixtures():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The models, in a file outside the package."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "my_models.py").write_text(MODELS)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("my_models")
    sys.path.remove(str(folder))
    del sys.modules["my_models"]


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def labels(seed, n=10, k=3):
    return torch.randint(0, k, (n,), generator=torch.Generator().manual_seed(seed))


INPUTS = {
    "ResNet": lambda seed: (drawn(seed, 10, 1, 4, 4), labels(seed)),
    "Transformer": lambda seed: (labels(10 + seed, 50, 6).view(10, 5), labels(seed)),
    "Recurrent": lambda seed: (drawn(seed, 10, 4, 2), labels(seed)),
    "with_wave": lambda seed: (drawn(seed, 10, 5), labels(seed)),
    "with_numpy": lambda seed: (drawn(seed, 10, 5), labels(seed)),
    "with_distances": lambda seed: (drawn(seed, 10, 5), labels(seed)),
    "with_bags": lambda seed: (labels(10 + seed, 50, 6).view(10, 5), labels(seed)),
}
SERVED = ["ResNet", "Transformer", "Recurrent"]


def problem_of(models, name, dtype=torch.float64, **settings):
    torch.manual_seed(0)
    data = INPUTS[name]
    usual = {
        "model": getattr(models, name)().to(dtype),
        "loss": cross_entropy,
        "train": data(1),
        "dev": data(2),
        "test": data(3),
        "hyperparameters": {"l2": hg.L2(init=0.05, per="tensor"), "smooth": hg.LabelSmoothing()},
        "batch_size": 6,
    }
    return hg.Supervised(**usual | settings)


SOLVER = hg.Momentum(lr=0.05)
THROUGH_TRAINING = {
    "graph": hg.Unrolled(solver=SOLVER, inner_steps=4),
    "store": hg.Unrolled(solver=SOLVER, inner_steps=4, tape=hg.Store()),
    "checkpoint": hg.Unrolled(solver=SOLVER, inner_steps=4, tape=hg.Checkpoint()),
    "reversible": hg.Unrolled(solver=SOLVER, inner_steps=4, tape=hg.Reversible()),
    "auto": hg.Unrolled(solver=SOLVER, inner_steps=4, tape=hg.AutoTape()),
    "forward": hg.Forward(solver=SOLVER, inner_steps=4),
}


@pytest.fixture(scope="module")
def slopes(models):
    """Central differences through the same training, and their directions."""
    found = {}
    for name in SERVED:
        problem = problem_of(models, name)
        at = problem.init_hparams()
        directions = {k: {j: drawn(7, *x.shape) * (j == k) for j, x in at.items()} for k in at}

        def dev_loss(hparams, problem=problem):
            return torch.tensor(THROUGH_TRAINING["graph"].estimate(problem, hparams, problem.init_params()).outer_loss)

        slopes = {k: central_difference(dev_loss, at, d, 1e-5).item() for k, d in directions.items()}
        found[name] = directions, slopes
    return found


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("estimator", THROUGH_TRAINING.values(), ids=THROUGH_TRAINING)
def test_through_training_it_is_the_slope_of_retraining(models, slopes, name, estimator):
    problem = problem_of(models, name)
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    directions, along = slopes[name]
    for k, direction in directions.items():
        assert (found.grad[k] * direction[k]).sum().item() == pytest.approx(along[k], rel=1e-5, abs=1e-9), k


DAMPING = 20.0
implicit = partial(hg.Implicit, solver=SOLVER, inner_steps=4, damping=DAMPING, error_bar=False)
IMPLICIT = {
    "cg": implicit(linsolve=hg.CG(tol=1e-10, max_iter=500)),
    "neumann": implicit(linsolve=hg.Neumann(num_terms=400, scale=0.04)),
    "dense": implicit(linsolve=hg.Dense()),
    "minres": implicit(linsolve=hg.MINRES(tol=1e-10, max_iter=500)),
    "gmres": implicit(linsolve=hg.GMRES(tol=1e-10, max_iter=500)),
    "auto": implicit(linsolve=hg.Auto(tol=1e-10)),
    "differences": implicit(linsolve=hg.CG(tol=1e-8, max_iter=500), product=hg.CentredDifferences()),
    "forward over reverse": implicit(linsolve=hg.CG(tol=1e-10, max_iter=500), product=hg.ForwardOverReverse()),
    "traced": implicit(linsolve=hg.CG(tol=1e-10, max_iter=500), product=hg.Traced()),
}


def require_right(problem, found, estimator):
    """(H + δI) v = ∂f/∂w and dF/dλ = −(∂φ/∂λ)ᵀ v, by central differences of first-order gradients along v."""
    at, batch = problem.init_hparams(), problem.inner_batch(estimator.inner_steps)

    def gradients(t):
        w, lam = leaves(unflatten(flatten(found.params) + t * found.carry, found.params)), leaves(at)
        loss = problem.inner_loss(w, lam, batch)
        grads = torch.autograd.grad(loss, [*w.values(), *lam.values()], allow_unused=True, materialize_grads=True)
        return torch.cat([grad.reshape(-1) for grad in grads])

    h = 1e-5 / found.carry.norm()
    along = (gradients(h) - gradients(-h)) / (2 * h)
    n = found.carry.numel()
    point = leaves(found.params)
    loss = problem.outer_loss(point, at, problem.outer_batch(0))
    df_dw = flatten(dict(zip(point, torch.autograd.grad(loss, list(point.values())), strict=True)))
    assert (along[:n] + estimator.damping * found.carry - df_dw).norm() <= 1e-6 * df_dw.norm()
    assert relative_error(found.grad, unflatten(-along[n:], at)) <= 1e-5


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("estimator", IMPLICIT.values(), ids=IMPLICIT)
def test_implicitly_it_is_what_differences_of_gradients_give(models, name, estimator):
    problem = problem_of(models, name)
    at = problem.init_hparams(), problem.init_params()
    if estimator is IMPLICIT["forward over reverse"] and name == "Transformer":
        with pytest.raises(ValueError, match="ForwardOverReverse is off by .* Use Reverse"):
            estimator.estimate(problem, *at)
        return
    require_right(problem, estimator.estimate(problem, *at), estimator)


GAUSS_NEWTON = partial(implicit, product=hg.GaussNewton(), damping=0.1)


@pytest.mark.parametrize("name", SERVED)
def test_gauss_newton_serves_them_with_little_damping(models, name):
    problem = problem_of(models, name)
    at = problem.init_hparams(), problem.init_params()
    found = [
        GAUSS_NEWTON(linsolve=linsolve).estimate(problem, *at).grad
        for linsolve in (hg.CG(tol=1e-10, max_iter=500), hg.MINRES(tol=1e-10, max_iter=500))
    ]
    assert relative_error(*found) <= 1e-6


LAYERS = {
    "linear": nn.Identity,
    "layer norm": partial(nn.LayerNorm, 4),
    "batch norm": partial(nn.BatchNorm1d, 4),
    "group norm": partial(nn.GroupNorm, 1, 4),
    "rms norm": partial(nn.RMSNorm, 4),
    "instance norm": lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2), nn.Flatten()),
    "dropout": partial(nn.Dropout, 0.3),
    "attention": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 2)), nn.TransformerEncoderLayer(2, 1, 4, batch_first=True), nn.Flatten()
    ),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_forward_over_reverse_and_forward_are_right_or_refuse(models, layer):
    """Forward mode of torch 2.13 draws other dropout in attention; nested twice it is wrong for layer normalisation."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), layer(), nn.Linear(4, 3))
    problem = problem_of(models, "with_wave", model=model)
    at = problem.init_hparams(), problem.init_params()
    refusal = ""
    try:
        found = IMPLICIT["forward over reverse"].estimate(problem, *at).grad
    except ValueError as error:
        refusal = str(error)
    else:
        assert relative_error(found, IMPLICIT["cg"].estimate(problem, *at).grad) <= 1e-8
    assert refusal == "" or refusal.startswith("ForwardOverReverse is off by")
    through = [THROUGH_TRAINING[way].estimate(problem, *at).grad for way in ("forward", "graph")]
    assert relative_error(*through) <= 1e-10


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("estimator", [THROUGH_TRAINING["graph"], IMPLICIT["cg"]], ids=["unrolled", "implicit"])
def test_single_precision_is_double_precision_rounded(models, name, estimator):
    """float32 uses other kernels: fused attention and oneDNN's LSTM have no second derivatives."""
    double, single = problem_of(models, name), problem_of(models, name, torch.float32)
    truth = estimator.estimate(double, double.init_hparams(), double.init_params())
    found = estimator.estimate(single, single.init_hparams(), single.init_params())
    assert relative_error({k: x.double() for k, x in found.grad.items()}, truth.grad) <= 1e-2


@pytest.mark.parametrize("name", SERVED)
def test_judging_is_the_same_with_and_without_a_graph(models, name):
    problem = problem_of(models, name)
    w, hparams = problem.init_params(), problem.init_hparams()
    with torch.no_grad():
        bare = problem.outer_loss(w, hparams, None)
    assert torch.equal(problem.outer_loss(leaves(w), hparams, None).detach(), bare)


REFUSALS = {
    "with_wave": "The layer '1.1' of the model, a Wave, cannot be differentiated twice: .*once_differentiable",
    "with_distances": "The layer '2' of the model, a Distances, cannot be differentiated twice: .*_cdist_backward",
    "with_bags": "The layer '0' of the model, a EmbeddingBag, cannot be differentiated twice: .*_embedding_bag_backw",
    "with_numpy": "The layer '1' of the model, a Numpy, .* off by [0-9]+% .*The backward of OutsideBackward",
}
NEEDS_SECOND = {
    "unrolled": THROUGH_TRAINING["graph"],
    "reversible": THROUGH_TRAINING["reversible"],
    "forward": THROUGH_TRAINING["forward"],
    "cg": IMPLICIT["cg"],
    "forward over reverse": IMPLICIT["forward over reverse"],
    "traced": IMPLICIT["traced"],
    "gauss-newton": GAUSS_NEWTON(),
}


@pytest.mark.parametrize(("name", "message"), REFUSALS.items(), ids=REFUSALS)
@pytest.mark.parametrize("estimator", NEEDS_SECOND.values(), ids=NEEDS_SECOND)
def test_a_layer_without_second_derivatives_is_named(models, name, message, estimator):
    problem = problem_of(models, name)
    with pytest.raises(ValueError, match=message) as caught:
        estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    assert "product=differences" in str(caught.value)


@pytest.mark.parametrize("name", REFUSALS)
def test_such_a_layer_is_served_by_differences(models, name):
    problem = problem_of(models, name)
    estimator = IMPLICIT["differences"]
    found = estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    require_right(problem, found, estimator)


def test_a_loss_without_second_derivatives_is_named(models):
    def loss(z, y):
        return models.Once.apply(cross_entropy(z, y))

    problem = problem_of(models, "Recurrent", loss=loss)
    with pytest.raises(ValueError, match="The loss cannot be differentiated twice"):
        THROUGH_TRAINING["graph"].estimate(problem, problem.init_hparams(), problem.init_params())
