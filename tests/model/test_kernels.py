"""Fused attention and recurrences run wherever nothing is differentiated twice, and formulas everywhere else."""

import pytest
import torch
from tables import relative_error
from torch import nn
from torch.nn.functional import (
    cross_entropy,
    mse_loss,
    multi_head_attention_forward,
    scaled_dot_product_attention,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import hypergrad as hg
from benchmarks.networks import GPT
from benchmarks.overhead import saved_bytes
from hypergrad.core import order
from hypergrad.core.autodiff import flatten, leaves
from hypergrad.model.calling import Kernels
from hypergrad.problem.oracle import Oracle
from hypergrad.training.dynamics import Dynamics

ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"
FUSED = {ATTENTION, "mkldnn_rnn_layer"}
SOLVER = hg.Momentum(lr=0.05)


class Attention(nn.Module):
    def __init__(self, dropout=0.0, after=0.0):
        super().__init__()
        self.qkv, self.head, self.after = nn.Linear(4, 12), nn.Linear(4, 3), nn.Dropout(after)
        self.dropout = dropout

    def forward(self, x):
        q, k, v = (z.unflatten(-1, (2, 2)).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        mixed = scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.head(self.after(mixed.transpose(1, 2).flatten(2)).mean(1))


class Encoder(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=dropout, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


class Recurrent(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 3, num_layers=2, dropout=dropout, batch_first=True), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


MODELS = {"attention": Attention, "encoder": Encoder, "recurrent": Recurrent}


def problem_of(model, dtype=torch.float32, **hyperparameters):
    torch.manual_seed(0)
    X, y = torch.randn(12, 3, 4, dtype=dtype), torch.arange(12) % 3
    return hg.Supervised(
        model=model.to(dtype),
        loss=cross_entropy,
        train=(X[:6], y[:6]),
        dev=(X[6:], y[6:]),
        hyperparameters=hyperparameters or {"l2": hg.L2(init=1e-2)},
    )


class Operations(TorchDispatchMode):
    """Counts the fused operations."""

    def __init__(self):
        super().__init__()
        self.fused = self.fast_paths = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.fused += name in FUSED
        self.fast_paths += name in ("_transformer_encoder_layer_fwd", "_native_multi_head_attention")
        return func(*args, **(kwargs or {}))


def fused(evaluate):
    with Operations() as met:
        evaluate()
    assert met.fast_paths == 0
    return met.fused


def phases(problem):
    """What is evaluated, and whether it is differentiated once at most."""
    w, hp = problem.init_params(), problem.init_hparams()
    oracle, dynamics = Oracle(problem, hp), Dynamics(problem, SOLVER, leaves(hp))
    state = SOLVER.init(w)
    oracle(leaves(w))  # the check of second derivatives is made once

    def no_grad(evaluate):
        return lambda: torch.no_grad()(evaluate)()

    once = {
        "training": lambda: hg.Training(solver=SOLVER, steps=2).run(problem, hp, w),
        "a step of a tape": lambda: dynamics.step(state, 0),
        "dev loss": no_grad(lambda: problem.outer_loss(w, hp, None)),
        "metrics": no_grad(lambda: problem.metrics(w, hp)),
        "differences": lambda: hg.CentredDifferences().linearize(oracle, w),
    }
    twice = {
        "the gradient with a graph": lambda: oracle(leaves(w)),
        "a linearized step": lambda: dynamics.linearize(state, 0),
        "products": lambda: hg.Reverse().linearize(oracle, w).product(flatten(w)),
        "forward over reverse": lambda: torch.func.jvp(
            lambda x: problem.inner_loss({**w, "head.bias": x}, hp, None), (w["head.bias"],), (w["head.bias"],)
        ),
        "a loss in grad mode": lambda: problem.inner_loss(leaves(w), hp, None),
    }
    return once, twice


@pytest.mark.parametrize("name", MODELS)
def test_fused_kernels_run_where_one_derivative_is_enough(name):
    once, twice = phases(problem_of(MODELS[name]()))
    assert {phase: fused(evaluate) > 0 for phase, evaluate in once.items()} == dict.fromkeys(once, True)
    assert {phase: fused(evaluate) for phase, evaluate in twice.items()} == dict.fromkeys(twice, 0)


@pytest.mark.parametrize("name", MODELS)
def test_every_tape_trains_on_fused_kernels_and_goes_back_on_formulas(name):
    problem = problem_of(MODELS[name]())
    layers = fused(lambda: torch.no_grad()(problem.outer_loss)(problem.init_params(), problem.init_hparams(), None))

    def evaluations(tape):
        estimator = hg.Unrolled(solver=SOLVER, inner_steps=4, tape=tape)
        at = problem, problem.init_hparams(), problem.init_params()
        estimator.estimate(*at)
        return fused(lambda: estimator.estimate(*at)) / layers

    others = evaluations(hg.Graph())  # inner loss at the start and at the end, and the dev loss
    assert others == 3
    assert evaluations(hg.Store()) - others == 4
    assert evaluations(hg.Checkpoint(slots=1)) - others == 3 + 2 + 1
    assert evaluations(hg.Reversible()) - others == 0  # the same kernels in both directions


@pytest.mark.parametrize("tape", [hg.Graph(), hg.Store(), hg.Checkpoint(), None])
@pytest.mark.parametrize("name", ["attention", "encoder"])
def test_hypergradients_are_the_same_to_rounding(name, tape, monkeypatch):
    problem = problem_of(MODELS[name](), torch.float64)
    estimator = hg.Implicit(solver=SOLVER, inner_steps=5, damping=5.0)
    if tape is not None:
        estimator = hg.Unrolled(solver=SOLVER, inner_steps=5, tape=tape)
    at = problem, problem.init_hparams(), problem.init_params()
    found = estimator.estimate(*at)
    monkeypatch.setattr("hypergrad.model.pure_module.is_first_order", lambda like: False)
    wanted = estimator.estimate(*at)
    assert fused(lambda: estimator.estimate(*at)) == 0
    assert found.outer_loss == pytest.approx(wanted.outer_loss, rel=1e-13)
    assert relative_error(found.grad, wanted.grad) <= 1e-11


class Chosen(TorchFunctionMode):
    """Records whether attention may be fused, on a device whose fused kernels have dropout."""

    def __init__(self):
        super().__init__()
        self.allowed = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        # torch shows a mode the outermost of its own functions
        if func in (scaled_dot_product_attention, multi_head_attention_forward):
            self.allowed.append(torch.backends.cuda.flash_sdp_enabled())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("model", "in_training"),
    [
        (Attention(dropout=0.2), False),
        (Encoder(dropout=0.2), False),
        (Attention(after=0.2), True),
        (Attention(), True),
        (Attention(dropout=0.2).eval(), True),
    ],
)
def test_dropout_inside_attention_draws_the_same_mask_in_both_sweeps(model, in_training):
    problem = problem_of(model)
    w, hp = problem.init_params(), problem.init_hparams()
    with torch.no_grad(), Chosen() as met:
        problem.inner_loss_and_gradient(w, hp, problem.inner_batch(0))
        problem.outer_loss(w, hp, None)
    assert met.allowed == [in_training, True]


@pytest.mark.parametrize(("dropout", "allowed"), [(0.2, False), (0.0, True)])
def test_dropout_between_recurrent_layers_does_so_too(dropout, allowed):
    problem = problem_of(Recurrent(dropout))
    with torch.no_grad():
        step = lambda: problem.inner_loss_and_gradient(  # noqa: E731
            problem.init_params(), problem.init_hparams(), problem.inner_batch(0)
        )
        assert (fused(step) > 0) == allowed


class Penalised(hg.Supervised):
    """Adds ‖∂z/∂x‖² to the loss: a derivative within, so that a gradient is a second derivative."""

    def inner_loss(self, params, hparams, batch):
        X = self.X.detach().requires_grad_()
        (slopes,) = torch.autograd.grad(self.model(params, X, 0).sum(), X, create_graph=True)
        return super().inner_loss(params, hparams, batch) + slopes.square().mean()


def test_a_loss_that_differentiates_within_is_served():
    torch.manual_seed(0)
    X, y = torch.randn(12, 3, 4), torch.randn(12, 3)
    problem = Penalised(
        model=Attention(),
        loss=mse_loss,
        train=(X[:6], y[:6]),
        dev=(X[6:], y[6:]),
        hyperparameters={"l2": hg.L2()},
        probe=False,
    )
    w, hp = problem.init_params(), problem.init_hparams()
    with torch.no_grad():
        _, found = problem.inner_loss_and_gradient(w, hp, None)
    at = leaves(w)
    wanted = torch.autograd.grad(problem.inner_loss(at, hp, None), list(at.values()))
    assert all(torch.equal(g, x) for g, x in zip(found.values(), wanted, strict=True))


def test_other_errors_are_raised():
    with pytest.raises(RuntimeError, match="mine"):
        order.first_order(lambda: (_ for _ in ()).throw(RuntimeError("mine")))


def test_settings_are_put_back_after_an_error():
    class Fails(Attention):
        def forward(self, x):
            if x.sum() == 0:
                raise ValueError("mine")
            return super().forward(x)

    problem = problem_of(Fails())
    before = torch.backends.cuda.flash_sdp_enabled(), torch.backends.mha.get_fastpath_enabled()
    own = problem.model.module.get_parameter("head.bias")
    with pytest.raises(ValueError, match="mine"):
        problem.model(leaves(problem.init_params()), torch.zeros(2, 3, 4), 0)
    assert (
        (torch.backends.cuda.flash_sdp_enabled(), torch.backends.mha.get_fastpath_enabled()) == before == (True, True)
    )
    assert problem.model.module.get_parameter("head.bias") is own


def test_a_module_given_to_hypergradient_runs_fused_kernels_in_the_outer_loss():
    torch.manual_seed(0)
    model, X, y = Attention(), torch.randn(6, 3, 4), torch.arange(6) % 3

    def inner(model, l2):
        return cross_entropy(model(X), y) + l2 * sum(p.square().sum() for p in model.parameters())

    found = []
    with Operations() as met:

        def outer(model, l2):
            before = met.fused
            loss = cross_entropy(model(X + 1), y)
            found.append(met.fused > before)
            return loss

        hg.hypergradient(inner, outer, model, 0.1, damping=1.0, error_bar=False)
    assert any(found)


def test_a_gradient_saves_no_more_than_bare_pytorch():
    model = GPT(vocabulary=16, length=32, width=8, heads=2, layers=3)
    problem = hg.Supervised(
        model=model,
        loss=cross_entropy,
        train=(torch.arange(64).view(2, 32) % 16, torch.arange(1, 65).view(2, 32) % 16),
        dev=(torch.arange(64).view(2, 32) % 5, torch.arange(1, 65).view(2, 32) % 5),
        hyperparameters={"lr": hg.Hyperparameter(0.1)},
    )
    (X, y), w, hp = problem.part("train"), problem.init_params(), problem.init_hparams()
    own = list(model.parameters())
    bare = saved_bytes(lambda: torch.autograd.grad(cross_entropy(model(X), y), own))
    with torch.no_grad():
        ours = saved_bytes(lambda: problem.inner_loss_and_gradient(w, hp, None))
    formula = saved_bytes(lambda: problem.inner_loss_and_gradient(leaves(w), hp, None))
    assert ours == bare < formula / 1.5


@pytest.mark.parametrize(
    ("training", "graph", "twice", "fused"),
    [
        (True, True, False, True),
        (True, True, True, False),
        (False, False, False, True),
        (False, True, False, False),
    ],
)
def test_cudnn_runs_recurrences_that_it_can_differentiate(training, graph, twice, fused):
    """Its kernels have one derivative in training, and none in evaluation."""
    kernels = Kernels(nn.Sequential(nn.GRU(2, 3), nn.Linear(3, 2)).train(training))
    before = torch._C._get_cudnn_enabled()
    with torch.set_grad_enabled(graph), kernels.around(torch.device("cuda"), twice=twice):
        assert torch._C._get_cudnn_enabled() is fused
    assert torch._C._get_cudnn_enabled() is before
