"""Losses in a precision of their own: what comes back, in which dtype, and how accurate it is."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from precisions import MODELS, Regression, apart, classifier, double
from torch import nn
from torch.nn.functional import cross_entropy

import hypergrad as hg
from hypergrad.core.autodiff import flatten, leaves
from hypergrad.core.formats import coarsest
from hypergrad.influence.examples import influences
from hypergrad.problem import precision as module
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.precision import InPrecision, epsilon_of, matrix_products
from hypergrad.training.compile_steps import is_near

pytestmark = pytest.mark.filterwarnings("ignore::hypergrad.NotConvergedWarning")
IMPLICIT = hg.Implicit(inner_steps=0, damping=1.0, linsolve=hg.CG(tol=1e-3), error_bar=False)
UNROLLED = hg.Unrolled(solver=hg.Momentum(lr=0.1), inner_steps=8)
TAPES = {"graph": hg.Graph(), "store": hg.Store(), "checkpoint": hg.Checkpoint(), "reversible": hg.Reversible()}


@pytest.mark.parametrize("name", MODELS)
def test_a_mixed_hypergradient_is_within_two_percent_of_float32(name):
    problem = classifier(name)
    mixed, hp = InPrecision(problem, "bf16-mixed"), problem.init_hparams()
    w = hg.Training(solver=hg.Momentum(lr=0.1), steps=300, tol=0.0).run(problem, hp, problem.init_params()).params
    for estimator in (IMPLICIT, replace(IMPLICIT, product=hg.GaussNewton()), UNROLLED):
        wanted, found = (estimator.estimate(one, hp, w) for one in (problem, mixed))
        assert 1e-6 < apart(found.grad, wanted.grad) < 0.02
        assert {x.dtype for x in [*found.grad.values(), *found.params.values()]} == {torch.float32}


@pytest.mark.parametrize("tape", TAPES.values(), ids=TAPES)
def test_every_tape_has_the_same_mixed_hypergradient(tape):
    problem = InPrecision(classifier("MLP"), "bf16-mixed")
    start = problem.init_hparams(), problem.init_params()
    wanted, found = (replace(UNROLLED, tape=one).estimate(problem, *start) for one in (hg.Graph(), tape))
    # Reversing rounds the parameters of a step otherwise.
    assert apart(found.grad, wanted.grad) < (2e-3 if isinstance(tape, hg.Reversible) else 1e-5)


def test_mixed_is_autocast_of_the_forward_pass_to_the_bit():
    problem, batch = classifier("CNN"), None
    w, hp = leaves(problem.init_params()), problem.init_hparams()
    with torch.autocast("cpu", torch.bfloat16):
        loss = problem.inner_loss(w, hp, batch)
    grads = torch.autograd.grad(loss, list(w.values()))
    value, found = InPrecision(problem, "bf16-mixed").inner_loss_and_gradient(w, hp, batch)
    assert value == loss
    assert all(torch.equal(x, y) for x, y in zip(found.values(), grads, strict=True))
    assert found["last.weight"].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_true_is_the_problem_in_bfloat16_to_the_bit(dtype):
    problem = classifier("MLP", dtype)
    low, hp, w = classifier("MLP").bfloat16(), problem.init_hparams(), problem.init_params()
    value, found = InPrecision(problem, "bf16-true").inner_loss_and_gradient(w, hp, None)
    cast_w, cast_hp = ({name: x.bfloat16() for name, x in tensors.items()} for tensors in (w, hp))
    wanted, grads = low.inner_loss_and_gradient(cast_w, cast_hp, None)
    assert value.dtype == dtype
    assert value == wanted
    assert all(x.dtype == dtype and torch.equal(x, grads[name].to(dtype)) for name, x in found.items())


def test_vectors_in_float64_around_losses_in_float32():
    problem = classifier("MLP", torch.float64)
    start = problem.init_hparams(), problem.init_params()
    found = IMPLICIT.estimate(InPrecision(problem, "float32"), *start)
    wanted = IMPLICIT.estimate(problem, *start)
    assert found.grad["l2"].dtype == torch.float64
    assert found.carry.dtype == torch.float64
    assert 1e-10 < apart(found.grad, wanted.grad) < 1e-4


class Partly(nn.Module):
    """A product in float32 inside a model in bfloat16."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 5)

    def forward(self, X):
        z = torch.tanh(self.first(X.flatten(1)))
        with torch.autocast("cpu", enabled=False):
            return self.last(z.float())


def test_the_backward_pass_has_the_formats_of_the_forward_pass():
    problem = classifier("MLP", wrap=lambda _: Partly())
    w, hp = leaves(problem.init_params()), problem.init_hparams()
    with torch.autocast("cpu", torch.bfloat16):
        loss = problem.inner_loss(w, hp, None)
    grads = torch.autograd.grad(loss, list(w.values()))
    _, found = InPrecision(problem, "bf16-mixed").inner_loss_and_gradient(w, hp, None)
    assert all(torch.equal(x, y) for x, y in zip(found.values(), grads, strict=True))


@pytest.mark.parametrize("estimator", [IMPLICIT, UNROLLED], ids=["implicit", "unrolled"])
def test_the_cache_of_casts_of_an_outer_autocast_changes_nothing(estimator):
    problem = classifier("MLP")
    hp, w, mixed = problem.init_hparams(), problem.init_params(), InPrecision(problem, "bf16-mixed")
    wanted = estimator.estimate(mixed, hp, w)
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            problem.inner_loss(leaves(w), hp, None)  # fills the cache, without a graph
        found = [estimator.estimate(one, hp, w) for one in (mixed, problem)]
    for one in found:
        assert apart(one.grad, wanted.grad) < 1e-2


def test_integers_stay_and_coarse_data_is_read_in_the_dtype_of_the_model():
    problem = InPrecision(classifier("transformer"), "bf16-true")
    assert problem._evaluated[0].X.dtype == torch.int64
    assert apart(problem.init_params(), classifier("transformer").init_params()) == 0
    coarse = classifier("MLP")
    X = coarse.X.bfloat16()
    parts: dict[str, Any] = {"train": (X, coarse.y), "dev": (coarse.X_dev.half(), coarse.y_dev)}
    read = hg.Supervised(
        model=MODELS["MLP"]().float(), loss=cross_entropy, **parts, hyperparameters={"l2": hg.L2()}, probe=False
    )
    assert read.X.dtype == read.X_dev.dtype == torch.float32
    assert torch.equal(read.X, X.float())


FORMATS = {
    "float32": (torch.float32, lambda w: (w**2).sum(), 2.0**-23),
    "a cast": (torch.float32, lambda w: (w.bfloat16() ** 2).sum().float(), 2.0**-7),
    "autocast": (torch.float32, lambda w: nn.functional.linear(w, w).float().sum(), 2.0**-7),
    "coarse data": (torch.float32, lambda w: (w * torch.ones(3, dtype=torch.bfloat16).float()).sum(), 2.0**-23),
    "float64 through float32": (torch.float64, lambda w: w.float().sum().double(), 2.0**-23),
}


@pytest.mark.parametrize(("dtype", "function", "eps"), FORMATS.values(), ids=FORMATS)
def test_the_coarsest_format_of_a_graph(dtype, function, eps):
    with torch.autocast("cpu", torch.bfloat16):
        value = function(torch.ones(1, 3, dtype=dtype, requires_grad=True))
    assert coarsest(value, "It") == eps


def test_float16_is_refused_wherever_it_is_met():
    w = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match=r"It is computed in float16, in which gradients below 6e-8 are 0.*bf16-mixed"):
        coarsest(w.half().sum().float(), "It")

    class Autocast(nn.Sequential):
        def forward(self, input):
            with torch.autocast("cpu", torch.float16):
                return super().forward(input)

    with pytest.raises(ValueError, match="The output of Autocast is computed in float16"):
        classifier("MLP", wrap=lambda model: Autocast(*model))
    with pytest.raises(ValueError, match="The inner loss of FunctionProblem is computed in float16"):
        hg.hypergradient(
            lambda w, lam: ((w - lam) ** 2).half().sum().float(), lambda w, lam: w.sum() ** 2, torch.ones(3), 1.0
        )
    with pytest.raises(ValueError, match=r"precision must be one of .*'16-mixed'; float16 is not served"):
        InPrecision(classifier("MLP"), "16-mixed")
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(ValueError, match=f"must have parameters in torch.float32 or .* {dtype}.*bf16-true"):
            hg.hypergradient(lambda w, lam: w.sum() * lam, lambda w, lam: w.sum(), torch.ones(3, dtype=dtype), 1.0)


def test_what_no_precision_can_serve_is_refused_by_name():
    problem = classifier("MLP")
    start = problem.init_hparams(), problem.init_params()
    with pytest.raises(ValueError, match=r"precision must be one of float32, tf32, .* but it is 'bf16'"):
        hg.Trainer(problem=problem, estimator=UNROLLED, optimizer=partial(torch.optim.Adam, lr=0.1), precision="bf16")
    with pytest.raises(
        ValueError, match="CentredDifferences needs gradients of more digits than precision='bf16-true'"
    ):
        replace(IMPLICIT, product=hg.CentredDifferences()).estimate(InPrecision(problem, "bf16-true"), *start)
    with pytest.raises(TypeError, match="evaluated in bf16-mixed; leave out precision"):
        influences(InPrecision(problem, "bf16-mixed"), *start[::-1])
    square = (lambda w, lam: (w - lam).square().sum(), lambda w, lam: w.sum() ** 2)
    with pytest.raises(ValueError, match="cannot cast the data inside the losses, as precision='bf16-true'"):
        hg.hypergradient(*square, torch.ones(3), 1.0, precision="bf16-true")

    class Outside(Regression):
        def outputs_of(self, params, X):
            return data @ params["w"]

    data = Outside(0).X[:24].clone()
    outside = InPrecision(Outside(0).float(), "bf16-true")
    with pytest.raises(ValueError, match=r"Outside.inner_loss must compute with .* casts to torch.bfloat16.*buffers"):
        outside.inner_loss(outside.init_params(), outside.init_hparams(), None)


def test_tf32_is_set_for_the_run_only_and_said_once_on_a_cpu(monkeypatch):
    monkeypatch.setattr(module, "_TOLD", set())

    def allowed():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    def inside(precision, device="cuda"):
        with matrix_products(precision, torch.device(device)):
            return allowed()

    before = allowed()
    with pytest.warns(UserWarning, match="precision='tf32' is float32 on the device 'cpu'"):
        inside("tf32", "cpu")
    assert inside("tf32", "cpu") == (True, True)  # and no warning, which would be an error
    assert (inside("tf32"), inside("float32"), inside("bf16-mixed")) == ((True, True), (False, False), before)
    with pytest.raises(KeyError), matrix_products("tf32", torch.device("cuda")):
        raise KeyError
    assert allowed() == before
    problem = classifier("MLP")
    start = problem.init_hparams(), problem.init_params()
    wanted, found = (UNROLLED.estimate(one, *start).grad for one in (problem, InPrecision(problem, "tf32")))
    assert all(torch.equal(found[name], x) for name, x in wanted.items())


def test_forward_over_reverse_is_served_where_torch_can():
    problem = InPrecision(classifier("MLP"), "bf16-mixed")
    start = problem.init_hparams(), problem.init_params()
    wanted = IMPLICIT.estimate(problem, *start)
    found = replace(IMPLICIT, product=hg.ForwardOverReverse()).estimate(problem, *start)
    assert apart(found.grad, wanted.grad) < 0.02


def test_differences_take_the_step_of_the_forward_pass():
    problem = classifier("MLP")
    w, hp = problem.init_params(), problem.init_hparams()
    v = torch.randn(flatten(w).shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    wanted = hg.Reverse().linearize(Oracle(problem, hp), w)
    mixed = Oracle(InPrecision(problem, "bf16-mixed"), hp)
    errors = {}
    for step in (None, 2.0 ** (-23 / 3), 2.0 ** (-7 / 3)):
        found = hg.CentredDifferences(step=step).linearize(mixed, w)
        errors[step] = (found.product(v) - wanted.product(v)).norm() / wanted.product(v).norm()
    assert errors[None] == errors[2.0 ** (-7 / 3)] < 0.08 < errors[2.0 ** (-23 / 3)] / 3


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("seeds", [range(8), pytest.param(range(8, 50), marks=pytest.mark.slow)], ids=["8", "42"])
def test_a_stated_error_is_at_least_the_true_one(precision, seeds):
    known = 0
    for seed in seeds:
        problem, exact = Regression(seed), Regression(seed).double()
        hp = problem.init_hparams()
        tight = hg.Implicit(solver=hg.Newton(), inner_steps=50, inner_tol=1e-12, linsolve=hg.Dense(), error_bar=False)
        truth = tight.estimate(exact, double(hp), exact.init_params())
        w = {name: x.float() for name, x in truth.params.items()}
        found = hg.Implicit(solver=hg.GradientDescent(lr=1e-3), inner_steps=3, linsolve=hg.CG(tol=1e-3)).estimate(
            InPrecision(problem, precision), hp, w
        )
        error = (flatten(found.grad).double() - flatten(truth.grad)).norm().item()
        bar = found.error_bar
        assert bar is not None
        assert not bar.estimate < error, seed
        known += bar.estimate < torch.inf
        assert bar.status == "estimated" or bar.status.startswith("unknown: ")
    assert known > 0.8 * len(seeds)


@pytest.mark.parametrize("micro_batch", [None, 16])
def test_a_loss_that_lowers_its_own_precision_has_no_known_error(micro_batch):
    class Autocast(nn.Sequential):
        def forward(self, input):
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(input)

    problem = classifier("MLP", wrap=lambda model: Autocast(*model), micro_batch=micro_batch)
    found = replace(IMPLICIT, error_bar=True, damping=0.0, solver=hg.Momentum(lr=0.1), inner_steps=100).estimate(
        problem, problem.init_hparams(), problem.init_params()
    )
    assert found.error_bar is not None
    assert found.adjoint_system is not None
    assert found.error_bar.status == "unknown: a loss is computed in a coarser format than that of the parameters"
    assert 1e-6 < found.adjoint_system.residual < 1
    assert flatten(found.grad).isfinite().all()


def test_a_module_of_ones_own_loop():
    torch.manual_seed(0)
    model, X, y = MODELS["MLP"]().float(), torch.randn(40, 64, dtype=torch.float32), torch.randint(0, 5, (40,))

    def inner(model, weights):
        return (cross_entropy(model(X[:20]), y[:20], reduction="none") * weights).mean() + 0.1 * sum(
            p.square().sum() for p in model.parameters()
        )

    ask = partial(
        hg.hypergradient,
        inner,
        lambda model, _: cross_entropy(model(X[20:]), y[20:]),
        model,
        torch.ones(20, dtype=torch.float32),
    )
    wanted, found = (ask(precision=one, damping=2.0, linsolve=hg.CG(tol=1e-3)) for one in (None, "bf16-mixed"))
    assert 1e-6 < apart({"": found.grad}, {"": wanted.grad}) < 0.02
    assert found.grad.dtype == torch.float32


def test_a_run_records_its_precision_and_gives_a_model_in_float32(tmp_path):
    problem = classifier("MLP", batch_size=16)
    fit = partial(
        hg.fit, problem, UNROLLED, partial(torch.optim.Adam, lr=0.05), folder=tmp_path, progress=False, warm_start=False
    )
    first = fit(2, precision="bf16-mixed")
    assert first.last.params["1.weight"].dtype == torch.float32
    assert {p.dtype for p in first.best.module().parameters()} == {torch.float32}
    assert fit(3, precision="bf16-mixed").last.step == 3
    for other in (None, "bf16-true"):
        with pytest.raises(hg.CheckpointError, match="its precision was bf16-mixed, and here it is"):
            fit(4, precision=other)


def test_folds_and_a_last_training_keep_the_precision():
    settings = {"estimator": UNROLLED, "optimizer": partial(torch.optim.Adam, lr=0.05), "warm_start": False}
    for problem in (hg.k_fold(classifier("MLP"), 2), classifier("MLP")):
        runs = [
            hg.Trainer(problem=problem, outer_steps=1, retrain=True, precision=precision, **settings).fit()
            for precision in (None, "bf16-mixed")
        ]
        plain, mixed = (run.model.params for run in runs)
        assert 1e-7 < apart(mixed, plain) < 0.02


def test_compiled_steps_may_differ_by_the_rounding_of_the_precision():
    start, eager = [torch.zeros(4)], [torch.ones(4)]
    compiled = [torch.ones(4) * 1.01]
    assert not is_near(compiled, eager, start)
    assert is_near(compiled, eager, start, epsilon=2.0**-7)
    assert not is_near([torch.ones(4) * 1.1], eager, start, epsilon=2.0**-7)
    problem = classifier("MLP")
    assert epsilon_of(problem) == 0.0
    assert epsilon_of(InPrecision(problem, "bf16-mixed")) == 2.0**-7


class Rectified(nn.Sequential):
    """Kinks, at which second derivatives in bfloat16 are far from differences of first ones."""

    def __init__(self, seed: int, lower: bool) -> None:
        torch.manual_seed(seed)
        layers = nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten()
        super().__init__(*layers, nn.Linear(576, 5))
        self.lower = lower

    def forward(self, input):
        with torch.autocast("cpu", torch.bfloat16) if self.lower else nullcontext():
            return super().forward(input)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("lower", [False, True], ids=["precision", "its own autocast"])
def test_a_network_with_kinks_is_not_taken_for_one_without_second_derivatives(seed, lower):
    X, y = torch.rand(32, 1, 28, 28, dtype=torch.float32), torch.arange(32) % 5
    part: Any = {"train": (X[:16], y[:16]), "dev": (X[16:], y[16:])}
    model, l2 = Rectified(seed, lower).float(), {"l2": hg.L2(init=0.05)}
    problem: hg.InnerProblem = hg.Supervised(model=model, loss=cross_entropy, **part, hyperparameters=l2)
    problem = problem if lower else InPrecision(problem, "bf16-mixed")
    found = UNROLLED.estimate(problem, problem.init_hparams(), problem.init_params())
    assert flatten(found.grad).isfinite().all()


@pytest.mark.slow
def test_a_compiled_run_in_bfloat16():
    problem = InPrecision(classifier("MLP"), "bf16-mixed")
    start = problem.init_hparams(), problem.init_params()
    wanted, found = (
        replace(UNROLLED, tape=hg.Store(), compile=compiled).estimate(problem, *start) for compiled in (False, True)
    )
    assert str(found.stats["training_remark"]).startswith("compiled")
    assert apart(found.grad, wanted.grad) < 0.02
