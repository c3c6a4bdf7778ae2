"""Features for large trainings, two at a time: the numbers of the plain problem, or an error that says what to do."""

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import pytest
import torch
from slow_cases import mostly_slow
from tables import relative_error
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import Dataset

import hypergrad as hg
from hypergrad.compile import inductor
from hypergrad.core.cost import Spent
from hypergrad.estimator.linearization import Linearization
from hypergrad.estimator.point import Point
from hypergrad.influence.examples import influences
from hypergrad.problem.oracle import Oracle
from hypergrad.problem.precision import InPrecision

pytestmark = pytest.mark.filterwarnings("ignore::hypergrad.NotConvergedWarning")

TRAIN, STEPS = 24, 6
SETTINGS: dict[str, dict[str, Any]] = {
    "stream": {"stream": True},
    "micro_batch": {"micro_batch": 5},
    "dev_batch_size": {"dev_batch_size": 5},
    "recompute": {"recompute": True},
}
PAIRS = [*((name,) for name in SETTINGS), *combinations(SETTINGS, 2)]


class Examples(Dataset):
    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        return self.X[index], self.y[index]

    def __deepcopy__(self, memo):
        raise AssertionError("the user's data would be in memory twice")


class Blocks(nn.Module):
    """A residual network of two equal blocks."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(2))

    def forward(self, X):
        X = torch.tanh(self.first(X))
        for layer in self.layers:
            X = X + layer(X)
        return self.last(X)


class Attention(nn.Module):
    """Two layers of a transformer on two tokens."""

    def __init__(self, dropout: float):
        super().__init__()
        self.first, self.last = nn.Linear(2, 8), nn.Linear(8, 3)
        layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=dropout, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, X):
        return self.last(self.body(self.first(X.view(-1, 2, 2))).mean(1))


class Casting(nn.Module):
    """Blocks that run in bfloat16, as the user has written them; what they are given and return is not."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, X):
            with torch.autocast("cpu", torch.bfloat16):
                return X + torch.tanh(self.linear(X)).to(X.dtype)

    def __init__(self):
        super().__init__()
        self.layers, self.last = nn.Sequential(self.Block(), self.Block()), nn.Linear(4, 3)

    def forward(self, X):
        return self.last(self.layers(X))


def made(
    *names: str, model: Callable[[], nn.Module] = Blocks, tuned: bool = False, dtype=torch.float64, **more: Any
) -> hg.Supervised:
    """The problem with some settings; with `tuned`, the learning rate is a hyperparameter too."""
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(1)
    X, y = torch.randn(38, 4, generator=g).to(dtype), torch.randint(0, 3, (38,), generator=g)
    effects: dict[str, Any] = {"weights": hg.ExampleWeights(), "l2": hg.L2(init=0.05)}
    settings: dict[str, Any] = {"batch_size": 12}
    for name in names:
        settings |= SETTINGS[name]
    return hg.Supervised(
        model=model().to(dtype),
        loss=cross_entropy,
        train=Examples(X[:TRAIN], y[:TRAIN]),
        dev=Examples(X[TRAIN:], y[TRAIN:]),
        hyperparameters=effects | ({"lr": hg.Hyperparameter(0.1)} if tuned else {}),
        probe=False,
        **(settings | more),
    )


UNROLLED = hg.Unrolled(solver=hg.Momentum(lr="lr", momentum=0.5), inner_steps=STEPS)
IMPLICIT = hg.Implicit(
    solver=hg.Momentum(lr=0.1), inner_steps=STEPS, inner_tol=0.0, damping=1.0, linsolve=hg.CG(tol=1e-13)
)
ESTIMATORS: dict[str, Any] = {
    "graph": UNROLLED,
    "store": replace(UNROLLED, tape=hg.Store(offload="disk", budget=1000)),
    "checkpoint": replace(UNROLLED, tape=hg.Checkpoint(slots=2, offload="disk")),
    "reversible": replace(UNROLLED, tape=hg.Reversible()),
    "horizon": replace(UNROLLED, horizon=3),
    "forward": hg.Forward(solver=UNROLLED.solver, inner_steps=STEPS),
    "cg": IMPLICIT,
    "gauss-newton": replace(IMPLICIT, product=hg.GaussNewton()),
    # A longer step than the default one, whose rounding, ε / h, is above what is compared.
    "differences": replace(IMPLICIT, product=hg.CentredDifferences(step=1e-3), error_bar=False),
    "forward over reverse": replace(IMPLICIT, product=hg.ForwardOverReverse()),
    "traced": replace(IMPLICIT, product=hg.Traced()),
    "dense": replace(IMPLICIT, linsolve=hg.Dense()),
}
CYCLED = [(pair, list(ESTIMATORS)[(k + shift) % len(ESTIMATORS)]) for k, pair in enumerate(PAIRS) for shift in (0, 5)]


def estimate(problem: hg.InnerProblem, estimator: hg.HypergradEstimator) -> hg.Hypergradient:
    return estimator.estimate(problem, problem.init_hparams(), problem.init_params(), outer_step=1, inner_step=2)


def require_same(found: hg.Hypergradient, wanted: hg.Hypergradient, tol: float = 1e-10) -> None:
    assert relative_error(found.grad, wanted.grad) <= tol
    assert found.outer_loss == pytest.approx(wanted.outer_loss, rel=tol)
    for key in ("error_status", "inner_status", "adjoint_status"):
        assert found.stats.get(key) == wanted.stats.get(key)


def is_tuned(estimator: hg.HypergradEstimator) -> bool:
    return not isinstance(estimator, hg.Implicit)


@pytest.mark.parametrize(("names", "estimator"), CYCLED, ids=lambda x: x if isinstance(x, str) else "-".join(x))
def test_pairs_of_settings_are_the_plain_problem(names, estimator):
    how = ESTIMATORS[estimator]
    found, wanted = (estimate(made(*which, tuned=is_tuned(how)), how) for which in (names, ()))
    require_same(found, wanted)


@pytest.mark.parametrize(
    "model",
    [pytest.param(Blocks, id="blocks"), pytest.param(partial(Attention, 0.0), id="attention", marks=pytest.mark.slow)],
)
def test_differences_of_parts_agree_to_their_rounding(model):
    """With the default step h it is ε / h = 4e-11 in each product; a longer one leaves less."""
    for step, tol in ((None, 1e-9), (1e-3, 1e-11)):
        how = replace(IMPLICIT, product=hg.CentredDifferences(step=step), error_bar=False)
        found, wanted = (estimate(made(*names, model=model), how) for names in (("micro_batch",), ()))
        require_same(found, wanted, tol)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_all_pairs_of_settings_with_every_estimator(estimator):
    how = ESTIMATORS[estimator]
    for model in (Blocks, partial(Attention, 0.0)):
        wanted = estimate(made(tuned=is_tuned(how), model=model), how)
        for names in [*PAIRS, tuple(SETTINGS)]:
            require_same(estimate(made(*names, tuned=is_tuned(how), model=model), how), wanted)


@pytest.mark.parametrize("estimator", mostly_slow(["graph", "store", "checkpoint", "cg"], ["store", "cg"]))
@pytest.mark.parametrize(
    "names", [("recompute",), ("stream", "recompute"), ("recompute", "dev_batch_size")], ids="-".join
)
def test_dropout_in_attention_draws_as_in_the_plain_problem(names, estimator):
    how, model = ESTIMATORS[estimator], partial(Attention, 0.3)
    found, wanted = (estimate(made(*which, tuned=is_tuned(how), model=model), how) for which in (names, ()))
    require_same(found, wanted)


@pytest.mark.parametrize(
    ("names", "estimator"),
    [
        (("micro_batch",), "store"),
        (("micro_batch", "recompute"), "store"),
        pytest.param(("micro_batch",), "cg", marks=pytest.mark.slow),
        pytest.param(("micro_batch", "stream"), "store", marks=pytest.mark.slow),
        pytest.param(("micro_batch", "recompute"), "cg", marks=pytest.mark.slow),
        pytest.param(("micro_batch", "stream"), "cg", marks=pytest.mark.slow),
    ],
    ids=lambda x: x if isinstance(x, str) else "-".join(x),
)
def test_dropout_in_parts_is_the_same_with_every_tape_and_product(names, estimator):
    """Parts draw other numbers than the whole batch, but the same ones wherever they are evaluated."""
    how, model = ESTIMATORS[estimator], partial(Attention, 0.3)
    other = (
        replace(how, tape=hg.Graph()) if isinstance(how, hg.Unrolled) else replace(how, linsolve=hg.MINRES(tol=1e-13))
    )
    problem = made(*names, tuned=is_tuned(how), model=model)
    plain = made("micro_batch", tuned=is_tuned(how), model=model)
    require_same(estimate(problem, how), estimate(plain, other))


PRECISIONS = {
    "float32": (torch.float64, 1e-4),
    "bf16-mixed": (torch.float32, 2e-2),
    "bf16-mixed of float64": (torch.float64, 2e-2),
}


@pytest.mark.parametrize("precision", mostly_slow(list(PRECISIONS), ["bf16-mixed"]))
@pytest.mark.parametrize(
    "names", [*((name,) for name in SETTINGS), ("stream", "micro_batch"), tuple(SETTINGS)], ids="-".join
)
def test_settings_in_a_precision(names, precision):
    dtype, tol = PRECISIONS[precision]
    for how in (UNROLLED, replace(IMPLICIT, linsolve=hg.CG(tol=1e-2))):
        found, wanted = (
            estimate(InPrecision(made(*which, tuned=is_tuned(how), dtype=dtype), precision.split()[0]), how)
            for which in (names, ())
        )
        require_same(found, wanted, tol)


@pytest.mark.parametrize("product", [hg.Reverse(), hg.CentredDifferences()])
@pytest.mark.parametrize("names", [(), *PAIRS], ids=lambda names: "-".join(names) or "plain")
def test_autocast_in_the_model_is_found_wherever_its_graph_is(names, product):
    problem = made(*names, model=Casting, dtype=torch.float32)
    hp, spent = problem.init_hparams(), Spent()
    with spent.counting():
        here = Linearization.at(
            Point(Oracle(problem, hp, problem.inner_batch(0)), problem.init_params(), None, product)
        )
    assert here.outer_rounding == torch.finfo(torch.bfloat16).eps
    assert here.inner.product.inaccuracy is not None
    assert spent.gradients == isinstance(product, hg.Reverse)  # no gradient is counted that was not asked for
    found = estimate(problem, replace(IMPLICIT, linsolve=hg.CG(tol=1e-2), product=product))
    assert found.stats["error_status"] == "unknown: a loss is computed in a coarser format than that of the parameters"


@pytest.mark.parametrize("name", ["micro_batch", "recompute"])
def test_float16_in_the_model_is_refused_wherever_its_graph_is(name):
    class Half(nn.Module):
        def forward(self, X):
            return X + X.half().tanh().to(X.dtype)

    def model():
        halves = nn.Sequential(nn.Sequential(Half()), nn.Sequential(Half()))
        return nn.Sequential(nn.Linear(4, 4), halves, nn.Linear(4, 3))

    with pytest.raises(ValueError, match="is computed in float16.*Use bfloat16"):
        estimate(made(name, model=model, dtype=torch.float32), IMPLICIT)


class Formats(TorchDispatchMode):
    """Notes the dtypes of matrix products."""

    def __init__(self):
        super().__init__()
        self.met = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default):
            self.met.add(args[-1].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("estimator", ["store", "cg"])
def test_folds_in_parts_are_in_bfloat16_in_the_backward_pass_too(estimator):
    """A fold makes its parts inside autocast, and a backward pass evaluates them again outside."""
    how = ESTIMATORS[estimator]
    if isinstance(how, hg.Implicit):
        how = replace(how, linsolve=hg.CG(tol=1e-2), error_bar=False)
    grads = {}
    for names in ((), ("micro_batch", "dev_batch_size")):
        folds = InPrecision(hg.k_fold(made(*names, tuned=is_tuned(how), dtype=torch.float32), 2), "bf16-mixed")
        with Formats() as formats:
            grads[names] = estimate(folds, how).grad
        assert formats.met == {torch.bfloat16}
    assert relative_error(*grads.values()) <= 2e-2


@pytest.fixture
def traced(monkeypatch):
    """Leaves the compiler out."""
    monkeypatch.setattr(inductor, "compile_graph", lambda graph, _: lambda tensors: graph(*tensors))


FEW = replace(UNROLLED, inner_steps=2)
COMPILED: dict[tuple[str, ...], hg.Tape] = {
    ("micro_batch",): hg.Graph(),
    ("recompute",): hg.Store(offload="disk", budget=1000),
    ("stream", "micro_batch"): hg.Checkpoint(slots=1),
    ("micro_batch", "recompute"): hg.Store(),
}


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("names", mostly_slow(list(COMPILED), [("recompute",)]), ids="-".join)
def test_compiled_steps_are_the_plain_ones(names):
    how = replace(FEW, tape=COMPILED[names])
    found = estimate(made(*names, tuned=True), replace(how, compile=True))
    require_same(found, estimate(made(tuned=True), how))
    assert found.stats["training_remark"] == "compiled, 2 steps in a call"


@pytest.mark.slow
@pytest.mark.parametrize("names", COMPILED, ids="-".join)
def test_compiled_for_good(names):
    found = estimate(made(*names, tuned=True), replace(FEW, tape=COMPILED[names], compile=True))
    require_same(found, estimate(made(tuned=True), FEW))
    assert found.stats["training_remark"] == "compiled, 2 steps in a call"


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    "names",
    [("micro_batch", "stream"), pytest.param(("micro_batch", "recompute"), marks=pytest.mark.slow)],
    ids="-".join,
)
def test_compiled_training_for_the_implicit_function_theorem(names):
    found = estimate(made(*names), replace(IMPLICIT, inner_steps=2, compile=True))
    require_same(found, estimate(made(), replace(IMPLICIT, inner_steps=2)))
    assert str(found.stats["training_remark"]).startswith("compiled")


@pytest.mark.parametrize("names", [("micro_batch", "recompute")], ids="-".join)
def test_compile_auto_takes_eager_steps_of_a_short_run(names):
    found = estimate(made(*names, tuned=True), replace(UNROLLED, compile="auto"))
    require_same(found, estimate(made(tuned=True), UNROLLED))
    assert str(found.stats["training_remark"]).startswith("not compiled yet")


FITS: dict[str, dict[str, Any]] = {
    "warm": {},
    "cold": {"warm_start": False},
    "retrain": {"retrain": True},
    "patience": {"patience": 1},
}


def fitted(problem: hg.InnerProblem, estimator: hg.HypergradEstimator, steps: int = 3, **settings: Any) -> hg.Result:
    optimizer = partial(torch.optim.Adam, lr=0.05)
    return hg.fit(problem, estimator, optimizer, steps, progress=False, **settings)


def require_same_runs(found: hg.Result, wanted: hg.Result, tol: float = 1e-10) -> None:
    assert found.stopped == wanted.stopped
    assert relative_error(found.hparams, wanted.hparams) <= tol
    assert relative_error(found.params, wanted.params) <= tol
    assert [row["loss/inner"] for row in found.history] == pytest.approx([row["loss/inner"] for row in wanted.history])
    if wanted.final_model is not None:
        assert found.final_model is not None
        assert relative_error(found.final_model.params, wanted.final_model.params) <= tol


RUNS = [
    ("warm", ("stream", "micro_batch"), {"dev_sample": 6}),
    ("cold", ("micro_batch", "recompute"), {}),
    ("retrain", ("stream", "micro_batch"), {}),
    ("retrain", ("recompute", "dev_batch_size"), {"dev_sample": 6}),
    ("patience", ("stream", "dev_batch_size"), {"dev_sample": 6}),
]


@pytest.mark.parametrize(("fit", "names", "more"), RUNS)
def test_runs_are_those_of_the_plain_problem(fit, names, more):
    found, wanted = (fitted(made(*which, tuned=True, **more), UNROLLED, **FITS[fit]) for which in (names, ()))
    require_same_runs(found, wanted)


@pytest.mark.parametrize(
    "names", [("stream", "micro_batch"), ("micro_batch", "recompute"), ("stream", "recompute")], ids="-".join
)
def test_folds_are_those_of_the_plain_problem(names):
    for how, sample in ((UNROLLED, None), (replace(IMPLICIT, damping=5.0), 6)):
        found, wanted = (hg.k_fold(made(*which, tuned=is_tuned(how), dev_sample=sample), 3) for which in (names, ()))
        require_same(estimate(found, how), estimate(wanted, how))


@pytest.mark.parametrize(
    ("num_workers", "precision"),
    [
        (1, None),
        (0, "float32"),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((0, None), (1, "float32"))),
    ],
)
def test_a_run_in_a_folder_goes_on_to_the_same_bits(tmp_path, num_workers, precision):
    def problem():
        return made(
            "micro_batch", "dev_batch_size", "recompute", stream=True, tuned=True, num_workers=num_workers, dev_sample=6
        )

    how = replace(UNROLLED, tape=hg.Store(offload="disk", budget=1000))
    wanted = fitted(problem(), how, precision=precision, retrain=True)
    for steps in (1, 3):
        found = fitted(problem(), how, steps, precision=precision, retrain=True, folder=tmp_path / "run")
    require_same_runs(found, wanted, tol=0.0)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("names", [("micro_batch", "dev_batch_size"), ("micro_batch", "recompute")], ids="-".join)
def test_influences_are_those_of_the_plain_problem(names):
    jackknife = hg.InfinitesimalJackknife(tol=1e3, linsolve=hg.MINRES(tol=1e-13))
    changes = []
    for which in (names, ()):
        problem = made(*which, batch_size=None)
        convex = problem.init_hparams() | {"l2": torch.tensor(2.0)}
        changes.append(influences(problem, problem.init_params(), convex, jackknife=jackknife).change)
    assert relative_error(*({"change": change} for change in changes)) <= 1e-10


def test_an_interrupted_run_on_samples_has_what_was_reached(tmp_path):
    """Its last record need not have a loss on all of dev."""

    class Interrupt(hg.Callback):
        def on_step(self, record):
            if record.step == 2:
                raise KeyboardInterrupt

    def run(**more):
        problem = made("stream", "dev_batch_size", tuned=True, dev_sample=6)
        return fitted(problem, UNROLLED, 4, exact_every=3, folder=tmp_path / "run", **more)

    found = run(callbacks=[Interrupt()])
    assert (found.stopped, found.last.step, found.best.step) == ("interrupted", 2, 0)
    assert found.last.dev_loss is None
    assert [row["step"] for row in run().history if "loss/dev" in row] == [0, 3, 4]
