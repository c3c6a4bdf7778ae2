"""Losses and targets as users bring them: served as torch does, or refused before training starts."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import hypergrad as hg
from hypergrad.compile import inductor
from hypergrad.core.autodiff import central_difference
from hypergrad.training.training import Training

CLASS_WEIGHTS = torch.tensor([1.0, 5.0, 10.0], dtype=torch.float64)


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classes(seed, n=30, k=3, ignored=None, every=5):
    y = torch.randint(0, k, (n,), generator=torch.Generator().manual_seed(seed))
    if ignored is not None:
        y[1::every] = ignored
    return y


def linear(k=3, seed=0, *layers):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, k), *layers).double()


def supervised(loss, targets=None, model=None, **settings: Any) -> hg.Supervised:
    """With targets(seed) of train and dev, on 30 and 20 examples in 4 features."""
    make = targets or classes
    parts = {"train": (drawn(1, 30, 4), make(1)), "dev": (drawn(2, 20, 4), make(2)[:20])}
    usual: dict[str, Any] = {"hyperparameters": {"l2": hg.L2(init=0.1)}}
    return hg.Supervised(model=model or linear(), loss=loss, **parts, **usual | settings)


def by_hand(loss, z, y, params, hparams):
    """The weighted loss as its formula says, from the terms and the denominators of torch."""
    settings = loss.keywords if isinstance(loss, partial) else {}
    weight, ignored = settings.get("weight"), settings.get("ignore_index", -100)
    smoothing = hparams["s"].item() if "s" in hparams else 0.0
    counted = y != ignored
    weights = torch.ones(3, dtype=z.dtype) if weight is None else weight
    divisor = 1.0 if settings.get("reduction") == "sum" else weights[y[counted]].sum()
    terms = functional.cross_entropy(
        z, y, weight=weight, ignore_index=ignored, label_smoothing=smoothing, reduction="none"
    )
    if "c" in hparams:
        terms = terms * hparams["c"][y.clamp(0, 2)]
    if "e" in hparams:
        terms = terms * hparams["e"]
    return terms.sum() / divisor + hparams["l2"] * sum(p.square().sum() for p in params)


LOSSES = {
    "class weights": (partial(functional.cross_entropy, weight=CLASS_WEIGHTS), None),
    "ignored": (partial(functional.cross_entropy), -100),
    "255, class weights": (partial(functional.cross_entropy, weight=CLASS_WEIGHTS, ignore_index=255), 255),
    "a class": (partial(functional.cross_entropy, ignore_index=0), 0),
    "sum": (partial(functional.cross_entropy, reduction="sum"), None),
}
EFFECTS = {
    "example weights": {"e": hg.ExampleWeights(init=0.7)},
    "class weights": {"c": hg.ClassWeights(init=1.3)},
    "smoothing": {"s": hg.LabelSmoothing(init=0.2)},
    "all": {"e": hg.ExampleWeights(), "c": hg.ClassWeights(), "s": hg.LabelSmoothing(init=0.2)},
}
STEPS = {"solver": hg.GradientDescent(lr=0.05), "inner_steps": 8}
ESTIMATORS = {
    "store": hg.Unrolled(**STEPS, tape=hg.Store()),
    "checkpoint": hg.Unrolled(**STEPS, tape=hg.Checkpoint()),
    "reversible": hg.Unrolled(solver=hg.Momentum(lr=0.05, momentum=0.5), inner_steps=8, tape=hg.Reversible()),
    "compiled": hg.Unrolled(**STEPS, compile=True),
    "forward": hg.Forward(**STEPS),
}


def dev_loss_by_hand(loss, problem, hparams, momentum=0.0) -> float:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=momentum)
    for _ in range(8):
        optimizer.zero_grad()
        by_hand(loss, model(problem.X), problem.y, list(model.parameters()), hparams).backward()
        optimizer.step()
    with torch.no_grad():
        return loss(model(problem.X_dev), problem.y_dev).item()


@pytest.fixture
def traced(monkeypatch):
    """Leaves the compiler out, and with it its ten seconds: what is left is all that is ours."""
    monkeypatch.setattr(inductor, "compile_graph", lambda graph, _: lambda tensors: graph(*tensors))


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("which", "effects"),
    [*((which, "all") for which in LOSSES), *(("255, class weights", one) for one in EFFECTS if one != "all")],
)
def test_hypergradients_are_those_of_plain_training_in_torch(which, effects):
    (loss, ignored), effects = LOSSES[which], EFFECTS[effects]
    problem = supervised(loss, partial(classes, ignored=ignored), hyperparameters={"l2": hg.L2(init=0.1)} | effects)
    at, w = problem.init_hparams(), problem.init_params()
    direction = {name: drawn(9, *value.shape) for name, value in at.items()}
    slopes = {
        momentum: central_difference(
            lambda h, m=momentum: torch.tensor(dev_loss_by_hand(loss, problem, h, m)), at, direction, 1e-5
        ).item()
        for momentum in (0.0, 0.5)
    }
    for name, estimator in ESTIMATORS.items():
        found = estimator.estimate(problem, at, w)
        slope = sum((found.grad[k] * direction[k]).sum() for k in at)
        momentum = 0.5 if name == "reversible" else 0.0
        assert float(slope) == pytest.approx(slopes[momentum], rel=1e-6, abs=1e-9), name
        assert found.outer_loss == pytest.approx(dev_loss_by_hand(loss, problem, at, momentum), rel=1e-9), name
        remark = "compiled, 8 steps in a call" if name == "compiled" else ""
        assert found.stats["training_remark"] == remark, name


@pytest.mark.parametrize("product", [hg.Reverse(), hg.GaussNewton(), hg.Traced(), hg.CentredDifferences()])
@pytest.mark.parametrize(("loss", "ignored"), LOSSES.values(), ids=LOSSES)
def test_implicit_hypergradients_are_those_of_refits(loss, ignored, product):
    effects = {"l2": hg.L2(init=0.1), "e": hg.ExampleWeights(init=0.7), "s": hg.LabelSmoothing(init=0.2)}
    problem = supervised(loss, partial(classes, ignored=ignored), hyperparameters=effects)
    at, w = problem.init_hparams(), problem.init_params()
    training = Training(solver=hg.Newton(), steps=50, tol=1e-13)

    def refitted(hparams):
        return problem.outer_loss(training.run(problem, hparams, w).params, hparams, None)

    direction = {name: drawn(9, *value.shape) for name, value in at.items()}
    estimator = hg.Implicit(
        solver=hg.Newton(), inner_steps=50, inner_tol=1e-12, linsolve=hg.CG(tol=1e-10, max_iter=100), product=product
    )
    found = estimator.estimate(problem, at, w)
    slope = sum((found.grad[k] * direction[k]).sum() for k in at)
    assert float(slope) == pytest.approx(central_difference(refitted, at, direction, 1e-4).item(), rel=1e-6)


@pytest.mark.parametrize("weight", [None, CLASS_WEIGHTS], ids=["plain", "class weights"])
@pytest.mark.parametrize("ignored", [None, -100, 255, 1])
def test_label_smoothing_is_that_of_torch_and_ignored_examples_stay_ignored(weight, ignored):
    loss = nn.CrossEntropyLoss(weight=weight, ignore_index=-100 if ignored is None else ignored)
    by_torch = nn.CrossEntropyLoss(weight=weight, ignore_index=loss.ignore_index, label_smoothing=0.3)
    settings: dict[str, Any] = {"hyperparameters": {"s": hg.LabelSmoothing(init=0.3)}, "batch_size": 7}
    problem = supervised(loss, partial(classes, ignored=ignored), **settings)
    w, hparams = problem.init_params(), problem.init_hparams()
    for step in range(4):
        batch: Any = problem.inner_batch(step)
        z = problem.outputs(w, hparams, batch)
        found = problem.inner_loss(w, hparams, batch)
        assert torch.allclose(found, by_torch(z, problem.y[batch.rows]), rtol=1e-12, atol=0)
        weighted = problem.weighted("c").inner_loss(w, hparams | {"c": torch.ones(30)}, None)
        assert torch.allclose(weighted, problem.inner_loss(w, hparams, None), rtol=1e-12, atol=0)
    assert torch.allclose(problem.outer_loss(w, hparams, None), loss(linear()(problem.X_dev), problem.y_dev))


def test_label_smoothing_of_positions_in_sequences():
    model = linear(15, 0, nn.Unflatten(1, (3, 5)))

    def targets(seed):
        return torch.stack([classes(seed + i, ignored=-100, every=4 + i) for i in range(5)], 1)

    problem = supervised(functional.cross_entropy, targets, model, hyperparameters={"s": hg.LabelSmoothing(init=0.3)})
    w, hparams = problem.init_params(), problem.init_hparams()
    by_torch = functional.cross_entropy(model(problem.X), problem.y, label_smoothing=0.3)
    assert torch.allclose(problem.inner_loss(w, hparams, None), by_torch, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="ClassWeights needs one class for each example"):
        supervised(functional.cross_entropy, targets, model, hyperparameters={"c": hg.ClassWeights()})


def binary(seed, dtype=torch.int64):
    return classes(seed, k=2).to(dtype)


def masked(z, y, weights=()):
    terms = functional.cross_entropy(z, y.clamp(0), reduction="none")
    return (terms * (y >= 0)).sum() / (y >= 0).sum()


def of_positions(z, y):
    return functional.cross_entropy(z.flatten(0, 1), y.flatten(), ignore_index=9)


def binary_loss(z, y):
    return functional.binary_cross_entropy_with_logits(z.squeeze(1), y.to(z.dtype))


def sequences(seed):
    y = torch.randint(0, 5, (30, 3), generator=torch.Generator().manual_seed(seed))
    y[::4] = 9
    return y


SERVED: dict[str, tuple[Any, Any, Any, Any]] = {
    "the default of cross entropy": (functional.cross_entropy, partial(classes, ignored=-100), linear, None),
    "an own function that ignores 255": (
        lambda z, y: functional.cross_entropy(z, y, ignore_index=255),
        partial(classes, ignored=255),
        linear,
        None,
    ),
    "an own function that masks": (masked, partial(classes, ignored=-1), linear, None),
    "an own function on positions": (
        of_positions,
        sequences,
        lambda: linear(15, 0, nn.Unflatten(1, (3, 5))),
        None,
    ),
    "booleans": (nn.BCEWithLogitsLoss(), partial(binary, dtype=torch.bool), partial(linear, 1), binary_loss),
    "integers": (functional.binary_cross_entropy_with_logits, binary, partial(linear, 1), binary_loss),
    "small integers, own function": (
        lambda z, y: functional.binary_cross_entropy_with_logits(z, y),
        partial(binary, dtype=torch.uint8),
        partial(linear, 1),
        binary_loss,
    ),
    "booleans, own function": (
        lambda z, y: functional.softplus(-(2 * y - 1) * z),
        partial(binary, dtype=torch.bool),
        partial(linear, 1),
        binary_loss,
    ),
    "integers after a sigmoid": (
        nn.BCELoss(),
        binary,
        lambda: linear(1, 0, nn.Sigmoid()),
        lambda z, y: functional.binary_cross_entropy(z.squeeze(1), y.to(z.dtype)),
    ),
    "several columns of integers": (
        nn.BCEWithLogitsLoss(),
        lambda seed: classes(seed, 90, k=2).view(30, 3),
        linear,
        lambda z, y: functional.binary_cross_entropy_with_logits(z, y.to(z.dtype)),
    ),
    "small classes": (
        nn.CrossEntropyLoss(ignore_index=255),
        lambda seed: classes(seed, ignored=255).to(torch.uint8),
        linear,
        None,
    ),
    "16 bits": (
        functional.cross_entropy,
        lambda seed: classes(seed).to(torch.int16),
        linear,
        lambda z, y: functional.cross_entropy(z, y.long()),
    ),
    "counts": (
        nn.PoissonNLLLoss(),
        lambda seed: classes(seed, k=7),
        partial(linear, 1),
        lambda z, y: (z.squeeze(1).exp() - y * z.squeeze(1)).mean(),
    ),
    "two outputs for a number": (
        lambda z, y: functional.gaussian_nll_loss(z[:, 0], y, z[:, 1].exp()),
        lambda seed: drawn(seed, 30),
        partial(linear, 2),
        None,
    ),
    "a frozen parameter": (
        nn.CrossEntropyLoss(weight=nn.Parameter(CLASS_WEIGHTS, requires_grad=False)),
        classes,
        linear,
        partial(functional.cross_entropy, weight=CLASS_WEIGHTS),
    ),
}


@pytest.mark.parametrize(("loss", "targets", "model", "reference"), SERVED.values(), ids=SERVED)
def test_targets_are_served_as_torch_does(loss, targets, model, reference):
    problem = supervised(loss, targets, model())
    w, hparams = problem.init_params(), problem.init_hparams()
    plain, reference = model(), reference or loss

    def objective(hparams):
        fresh = model()
        optimizer = torch.optim.SGD(fresh.parameters(), lr=0.2)
        for _ in range(5):
            optimizer.zero_grad()
            penalty = sum(p.square().sum() for p in fresh.parameters())
            (reference(fresh(problem.X), problem.y) + hparams["l2"] * penalty).backward()
            optimizer.step()
        return reference(fresh(problem.X_dev), problem.y_dev).detach()

    assert torch.allclose(problem.outer_loss(w, hparams, None), reference(plain(problem.X_dev), problem.y_dev))
    found = hg.Unrolled(solver=hg.GradientDescent(lr=0.2), inner_steps=5).estimate(problem, hparams, w)
    slope = central_difference(objective, hparams, {"l2": torch.tensor(1.0)}, 1e-5)
    assert found.grad["l2"].item() == pytest.approx(slope.item(), rel=1e-6)
    assert found.outer_loss == pytest.approx(objective(hparams).item(), rel=1e-10)


class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def forward(self, z, y):
        return functional.cross_entropy(z / self.temperature, y)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, z, y):
        self.calls += 1
        return functional.cross_entropy(z, y)


def overwriting(z, y):
    y[y == 2] = 0
    return functional.cross_entropy(z, y)


FREE = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
flat = lambda: linear(1, 0, nn.Flatten(0))  # noqa: E731
column = lambda seed: drawn(seed, 30, 1)  # noqa: E731
REFUSED: dict[str, tuple[Any, Any, Any, str]] = {
    "a class": (nn.CrossEntropyLoss, classes, linear, "The loss must be a function .* it is <class"),
    "a name": ("mse", classes, linear, "The loss must be a function .* it is 'mse'"),
    "variances": (nn.GaussianNLLLoss(), column, partial(linear, 1), "GaussianNLLLoss is one of means, targets and"),
    "triplets": (functional.triplet_margin_loss, column, linear, "TripletMarginLoss is one of three embeddings"),
    "embeddings": (nn.CosineEmbeddingLoss(), column, linear, "CosineEmbeddingLoss is one of two embeddings and a sign"),
    "rankings": (nn.MarginRankingLoss(), column, linear, "MarginRankingLoss is one of two scores and a sign"),
    "sequences": (partial(functional.ctc_loss, blank=1), column, linear, "CTCLoss is one of sequences with"),
    "a parameter": (Learned(), classes, linear, "Only parameters of the model .* the loss has 'temperature'"),
    "a parameter in a partial": (
        partial(functional.cross_entropy, weight=CLASS_WEIGHTS.clone().requires_grad_()),
        classes,
        linear,
        "Only parameters of the model .* the loss has 'weight'",
    ),
    "a parameter in a closure": (
        lambda z, y: functional.cross_entropy(z / FREE, y),
        classes,
        linear,
        "the loss depends on another tensor that requires a gradient",
    ),
    "tensors in a list": (
        partial(masked, weights=[CLASS_WEIGHTS]),
        classes,
        linear,
        "a tensor among its positional arguments, or inside a list",
    ),
    "a counter": (Counting(), classes, linear, "The loss must change nothing, but it changes its buffer 'calls'"),
    "overwriting": (overwriting, classes, linear, "The loss must change nothing, but it changes the outputs or targe"),
    "draws": (
        lambda z, y: functional.cross_entropy(functional.dropout(z), y),
        classes,
        linear,
        "function of outputs and targets, but two calls differ: [0-9.]+ and",
    ),
    "no class": (functional.cross_entropy, partial(classes, k=5), linear, "train part must be classes from 0 to 2"),
    "no class of an own function": (
        lambda z, y: functional.cross_entropy(z, y),
        partial(classes, ignored=9),
        linear,
        "of the train part, .* 3 outputs, so classes are 0 to 2, but a target is 9: IndexError",
    ),
    "numbers for classes": (
        functional.cross_entropy,
        lambda seed: classes(seed).double(),
        linear,
        r"train part must be integers.* the outputs are \(30, 3\), and the targets are \(30,\) of torch.float64",
    ),
    "a column of classes": (
        functional.cross_entropy,
        lambda seed: classes(seed)[:, None],
        linear,
        r"must be \(n, …\) for outputs of shape \(n, K, …\), but the outputs are .* \(30, 1\) of torch.int64",
    ),
    "one output for classes": (
        functional.cross_entropy,
        lambda seed: drawn(seed, 30).abs(),
        partial(linear, 1),
        r"integers, .* the outputs are \(30, 1\), and the targets are \(30,\)",
    ),
    "a column for flat outputs": (functional.mse_loss, column, flat, r"\(30,\), and the targets are \(30, 1\)"),
    "a column for flat outputs, own": (
        lambda z, y: (z - y).square().mean(),
        column,
        flat,
        r"must be \(n,\) for outputs of shape \(n,\), but the outputs are \(30,\), and the targets are \(30, 1\)",
    ),
    "columns and a number": (
        nn.L1Loss(),
        lambda seed: drawn(seed, 30),
        linear,
        r"must be the shape of the outputs.* \(30, 3\), and the targets are \(30,\).*y.unsqueeze",
    ),
    "columns and a column": (functional.huber_loss, column, linear, r"\(30, 3\), and the targets are \(30, 1\)"),
    "columns and a column, own": (
        lambda z, y: functional.mse_loss(z, y),
        column,
        linear,
        "failed on outputs of shape .*Using a target size",
    ),
    "as many columns as examples": (
        lambda z, y: (z - y).square().mean(),
        lambda seed: drawn(seed, 30)[:30],
        partial(linear, 8),
        r"failed on outputs of shape \(7, 8\) and targets of shape \(7,\)",
    ),
}
if hasattr(nn, "LinearCrossEntropyLoss"):  # torch 2.11 has it not
    layers = nn.LinearCrossEntropyLoss(3, 3)
    REFUSED["layers"] = (layers, classes, linear, "Only parameters .* the loss has 'linear.weight'")


@pytest.mark.parametrize(("loss", "targets", "model", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_right_is_refused_before_training(loss, targets, model, message):
    state = torch.get_rng_state()
    made = model()
    torch.set_rng_state(state)
    with pytest.raises((TypeError, ValueError), match=message):
        supervised(loss, targets, made)
    assert torch.equal(torch.get_rng_state(), state)


OF_SMOOTHING = {
    "log-likelihood": (nn.NLLLoss(), classes, "which an effect such as hg.LabelSmoothing made of classes"),
    "margins": (nn.MultiMarginLoss(), classes, "which an effect such as hg.LabelSmoothing made of classes"),
    "an own function that ignores": (
        lambda z, y: functional.cross_entropy(z, y, ignore_index=255),
        partial(classes, ignored=255),
        "10 targets are others, such as 255. Use torch.nn.CrossEntropyLoss",
    ),
}


@pytest.mark.parametrize(("loss", "targets", "message"), OF_SMOOTHING.values(), ids=OF_SMOOTHING)
def test_label_smoothing_needs_probabilities_and_known_classes(loss, targets, message):
    with pytest.raises(ValueError, match=message):
        supervised(loss, targets, hyperparameters={"s": hg.LabelSmoothing()})


RANGES = {
    "L1": lambda init: hg.L1(init=init),
    "L2": lambda init: hg.L2(init=init, per="tensor"),
    "InitScale": lambda init: hg.InitScale(init=init),
    "InputScale": lambda init: hg.InputScale(init=init),
    "ClassWeights": lambda init: hg.ClassWeights(init=init),
    "ExampleWeights": lambda init: hg.ExampleWeights(init=init),
    "LabelSmoothing": lambda init: hg.LabelSmoothing(init=init),
}


@pytest.mark.parametrize("init", [0.0, -0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("effect", RANGES.values(), ids=RANGES)
def test_an_initial_value_out_of_its_range_is_refused_by_name(effect, init):
    name = next(known for known, made in RANGES.items() if made is effect)
    with pytest.raises(ValueError, match=f"{name}.*init"):
        supervised(nn.CrossEntropyLoss(), hyperparameters={"h": effect(init)})


def test_an_initial_value_above_its_range_is_refused_by_name():
    for init in (1.0, 1.5):
        with pytest.raises(ValueError, match=f"LabelSmoothing.init must be below 1, but it is {init:g}"):
            hg.LabelSmoothing(init=init)
    in_unit_interval = hg.ExampleWeights(init=1.0, constraint=hg.unit_interval)
    with pytest.raises(ValueError, match="ExampleWeights: init = 30 values from 1 to 1 lies on the boundary"):
        supervised(nn.CrossEntropyLoss(), hyperparameters={"h": in_unit_interval})


def as_partial(weight):
    return partial(functional.cross_entropy, weight=weight)


MOVABLE = {
    "module": lambda weight: nn.CrossEntropyLoss(weight=weight),
    "partial": as_partial,
    "partial of a module": lambda weight: partial(nn.CrossEntropyLoss(weight=weight)),
}


@pytest.mark.parametrize("make", MOVABLE.values(), ids=MOVABLE)
def test_a_loss_moves_with_the_problem_and_the_users_one_stays(make):
    weight = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float32)
    loss = make(weight)
    references = []
    for dtype in (torch.float64, torch.float32):
        problem = supervised(loss, model=linear().to(dtype))
        for moved in (torch.float32, torch.float64):
            problem = problem.to(moved)
            found = hg.Unrolled(solver=hg.GradientDescent(lr=0.2), inner_steps=5).estimate(
                problem, problem.init_hparams(), problem.init_params()
            )
            assert found.grad["l2"].dtype == moved
            references.append(found.grad["l2"].item())
    assert references == pytest.approx([references[-1]] * 4, rel=1e-5)
    assert weight.dtype == torch.float32
    assert (loss.keywords["weight"] if make is as_partial else weight) is weight
    on_meta = supervised(loss).to("meta")
    assert all(buffer.is_meta for buffer in on_meta.criterion.buffers())
    assert len(list(on_meta.criterion.buffers())) == 1


def test_accuracy_leaves_ignored_targets_out():
    X, y = drawn(3, 40, 4), classes(3, 40, ignored=-100)
    problem = supervised(functional.cross_entropy, partial(classes, ignored=-100), test=(X, y))
    found = problem.metrics(problem.init_params(), problem.init_hparams())["test_accuracy"]
    z, counted = linear()(X), y != -100
    assert float(found) == (z.argmax(1)[counted] == y[counted]).double().mean().item() > 0
    ignoring_a_class = supervised(nn.CrossEntropyLoss(ignore_index=2), test=(X, classes(3, 40)))
    found = ignoring_a_class.metrics(problem.init_params(), problem.init_hparams())["test_accuracy"]
    y, counted = classes(3, 40), classes(3, 40) != 2
    assert float(found) == (z.argmax(1)[counted] == y[counted]).double().mean().item()


def test_accuracy_of_one_logit_is_that_of_its_sign():
    X, y = drawn(3, 40, 4), classes(3, 40, k=2)
    for loss, has_accuracy in ((nn.BCEWithLogitsLoss(), True), (nn.MSELoss(), False)):
        problem = supervised(loss, binary, linear(1), test=(X, y))
        metrics = problem.metrics(problem.init_params(), problem.init_hparams())
        assert ("test_accuracy" in metrics) == has_accuracy
        if has_accuracy:
            right = (linear(1)(X).squeeze(1) > 0) == y.bool()
            assert float(metrics["test_accuracy"]) == right.double().mean().item()
    soft = supervised(nn.BCEWithLogitsLoss(), binary, linear(1), test=(X, drawn(4, 40).sigmoid()))
    assert "test_accuracy" not in soft.metrics(soft.init_params(), soft.init_hparams())


def test_a_user_loss_is_not_changed():
    loss = nn.CrossEntropyLoss(weight=CLASS_WEIGHTS.float())
    before: Tensor = loss.weight  # pyright: ignore[reportAssignmentType]
    problem = supervised(loss).weighted("c")
    problem.inner_loss(problem.init_params(), problem.init_hparams(), None)
    assert loss.reduction == "mean"
    assert loss.weight is before
    assert before.dtype == torch.float32
