"""A user's own model: what each effect does, what a step sees, and what is refused."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from tables import relative_error, synthetic
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

import hypergrad as hg
from hypergrad.cli.explain import explain
from hypergrad.core.autodiff import central_difference, flatten
from hypergrad.data.minibatch import rows_of_step


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def classes(seed, n=24, p=5, k=3):
    return drawn(seed, n, p), torch.randint(0, k, (n,), generator=torch.Generator().manual_seed(seed))


def network(*layers, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(*(layer() for layer in layers)).double()


def perceptron():
    return network(partial(nn.Linear, 5, 4), nn.Tanh, partial(nn.Linear, 4, 3))


def supervised(model: nn.Module | None = None, **settings: Any) -> hg.Supervised:
    usual: dict[str, Any] = {
        "model": model or perceptron(),
        "loss": cross_entropy,
        "train": classes(1),
        "dev": classes(2),
        "test": classes(3),
        "hyperparameters": {"l2": hg.L2(init=0.05)},
    }
    return hg.Supervised(**usual | settings)


EFFECTS = {
    "l2": {"l2": hg.L2(init=0.05)},
    "l2 per tensor": {"l2": hg.L2(init=0.05, per="tensor", on="*weight")},
    "l2 per feature": {"l2": hg.L2(init=0.05, per="feature", on="0.weight"), "rest": hg.L2(on="2.*")},
    "l2 per output": {"l2": hg.L2(init=0.05, per="output", on=("2.weight", "2.bias")), "rest": hg.L2(on="0.*")},
    "l2 per weight": {"l2": hg.L2(init=0.05, per="weight")},
    "elastic": {"l1": hg.L1(init=0.02, smoothing=0.1, per="tensor"), "l2": hg.L2(init=0.05)},
    "example weights": {"weights": hg.ExampleWeights(init=0.7), "l2": hg.L2(init=0.05)},
    "class weights": {"weights": hg.ClassWeights(init=0.7), "l2": hg.L2(init=0.05)},
    "label smoothing": {"smoothing": hg.LabelSmoothing(), "l2": hg.L2(init=0.05)},
    "input scale": {"scale": hg.InputScale(init=1.3), "l2": hg.L2(init=0.05)},
    "one input scale": {"scale": hg.InputScale(per_feature=False), "l2": hg.L2(init=0.05)},
    "initial scale": {"init": hg.InitScale(init=1.2, per="tensor", on="*weight"), "l2": hg.L2(init=0.05)},
    "learning rate": {"rate": hg.Hyperparameter(0.2, constraint=hg.positive), "l2": hg.L2(init=0.05)},
}


@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("hyperparameters", EFFECTS.values(), ids=EFFECTS)
def test_the_hypergradient_through_training_is_that_of_differences(hyperparameters, batch_size):
    problem = supervised(hyperparameters=hyperparameters, batch_size=batch_size)
    solver = hg.Momentum(lr="rate" if "rate" in hyperparameters else 0.2)
    estimator = hg.Unrolled(solver=solver, inner_steps=9)
    at = problem.init_hparams()
    found = estimator.estimate(problem, at, problem.init_params())

    def dev_loss(hparams):
        return torch.tensor(estimator.estimate(problem, hparams, problem.init_params()).outer_loss)

    for name, value in at.items():
        direction = {k: drawn(0, *v.shape) if k == name else torch.zeros_like(v) for k, v in at.items()}
        slope = central_difference(dev_loss, at, direction, 1e-5)
        assert (found.grad[name] * direction[name]).sum() == pytest.approx(slope.item(), rel=1e-6, abs=1e-10), name
        assert value.shape == problem.hyperparameters()[name].value(torch.float64).shape


def test_effects_are_what_their_formulas_say():
    model = perceptron()
    problem = supervised(model, hyperparameters=EFFECTS["label smoothing"] | EFFECTS["example weights"])
    X, y = classes(1)
    w, h = problem.init_params(), problem.init_hparams()
    h["weights"] = drawn(5, 24).exp()
    losses = cross_entropy(model(X), y, label_smoothing=0.1, reduction="none")
    by_hand = (h["weights"] * losses).mean() + 0.05 * sum(p.square().sum() for p in model.parameters())
    assert torch.allclose(problem.inner_loss(w, h, None), by_hand, rtol=1e-12)
    assert torch.allclose(problem.outer_loss(w, h, None), cross_entropy(model(classes(2)[0]), classes(2)[1]))
    of_classes = supervised(model, hyperparameters=EFFECTS["class weights"] | {"smooth": hg.LabelSmoothing()})
    h = of_classes.init_hparams() | {"weights": torch.tensor([0.5, 1.0, 3.0])}
    by_hand = (h["weights"][y] * losses).mean() + 0.05 * sum(p.square().sum() for p in model.parameters())
    assert torch.allclose(of_classes.inner_loss(w, h, None), by_hand, rtol=1e-12)
    test_X, test_y = classes(3)
    found = problem.metrics(w, h)
    assert found["test_loss"] == pytest.approx(cross_entropy(model(test_X), test_y).item(), rel=1e-12)
    assert found["test_accuracy"] == (model(test_X).argmax(1) == test_y).double().mean()
    per_class = supervised(model, hyperparameters={"l2": hg.L2(per="output", on="2.*")})
    by_class, (X, y) = torch.tensor([0.1, 0.2, 0.4]), classes(1)
    by_hand = cross_entropy(model(X), y) + by_class @ (w["2.weight"].square().sum(1) + w["2.bias"].square())
    assert torch.allclose(per_class.inner_loss(w, {"l2": by_class}, None), by_hand, rtol=1e-12)
    elastic = supervised(model, hyperparameters={"l1": hg.L1(init=0.3, smoothing=0.1)})
    eps, (X, y) = 0.1, classes(1)
    penalty = sum(((p**2 + eps**2).sqrt() - eps).sum() for p in model.parameters())
    found = elastic.inner_loss(w, elastic.init_hparams(), None)
    assert torch.allclose(found, cross_entropy(model(X), y) + 0.3 * penalty, rtol=1e-12)


def test_a_scale_of_the_initial_weights_is_training_from_scaled_weights():
    model, scaled = perceptron(), perceptron()
    with torch.no_grad():
        for p in scaled.parameters():
            p *= 1.5
    both = [
        supervised(m, hyperparameters={"l2": hg.L2(init=0.05)} | extra)
        for m, extra in ((model, {"s": hg.InitScale(init=1.5)}), (scaled, {}))
    ]
    estimator = hg.Unrolled(solver=hg.Momentum(lr=0.2), inner_steps=12)
    losses = [estimator.estimate(p, p.init_hparams(), p.init_params()).outer_loss for p in both]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_it_is_ridge_where_that_is_what_it_is():
    data = synthetic(0)
    model = nn.Linear(5, 1, bias=False)
    nn.init.zeros_(model.weight)
    ours = hg.Supervised(
        model=model,
        loss=mse_loss,
        train=data.train,
        dev=data.dev,
        hyperparameters={"l2": hg.L2(init=0.3, per="feature")},
    )
    ridge = hg.Ridge(data, l2=0.3, per_feature=True)
    truth = ridge.hypergradient(ridge.init_hparams())
    for product in (hg.Reverse(), hg.GaussNewton(), hg.Traced()):
        estimator = hg.Implicit(solver=hg.LBFGS(), linsolve=hg.CG(tol=1e-12), product=product, inner_tol=1e-12)
        found = estimator.estimate(ours, ours.init_hparams(), ours.init_params())
        assert relative_error(found.grad, truth) <= 1e-8
    assert ours.metrics(ours.init_params(), ours.init_hparams()) == {}


def rows_of(problem, step) -> Any:
    return problem.inner_batch(step).rows


@pytest.mark.parametrize(("size", "batch_size"), [(10, 3), (12, 4), (5, 1), (7, 6)])
def test_every_example_is_seen_exactly_once_in_each_epoch(size, batch_size):
    per_epoch = -(-size // batch_size)
    epochs = [
        torch.cat([rows_of_step(e * per_epoch + s, size=size, batch_size=batch_size, seed=3) for s in range(per_epoch)])
        for e in range(4)
    ]
    for order in epochs:
        assert sorted(order.tolist()) == list(range(size))
    assert not torch.equal(epochs[0], epochs[1])
    problem = supervised(batch_size=7)
    assert [len(rows_of(problem, step)) for step in range(4)] == [7, 7, 7, 3]
    assert torch.equal(rows_of(problem, 5), rows_of(supervised(batch_size=7), 5))
    assert supervised(batch_size=24).inner_batch(0) is None


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.qkv = nn.Linear(4, 12)
        self.block = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
        self.out = nn.Linear(4, 3)

    def forward(self, X):
        q, k, v = self.qkv(self.embed(X)).chunk(3, dim=-1)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(self.block(mixed).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 4, batch_first=True)
        self.out = nn.Linear(4, 3)

    def forward(self, X):
        return self.out(self.lstm(X)[0][:, -1])


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.out = nn.Linear(4, 3)

    def forward(self, X):
        Z = self.first(X)
        Z = Z + self.second(torch.nn.functional.silu(self.norm(Z)))
        return self.out(Z.mean((2, 3)))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.decode, self.out = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.decode.weight = self.encode.weight

    def forward(self, X):
        return self.out(self.decode(torch.tanh(self.encode(X))))


def images(seed):
    return drawn(seed, 24, 1, 4, 4), classes(seed)[1]


def sequences(seed):
    return drawn(seed, 24, 4, 5), classes(seed)[1]


def tokens(seed):
    return torch.randint(0, 6, (24, 5), generator=torch.Generator().manual_seed(seed)), classes(seed)[1]


MODELS = {
    "attention": (Attention, tokens),
    "recurrent": (Recurrent, sequences),
    "residual": (Residual, images),
    "tied": (Tied, classes),
    "dropout": (lambda: network(partial(nn.Linear, 5, 4), nn.Tanh, nn.Dropout, partial(nn.Linear, 4, 3)), classes),
}
SOLVER = hg.Momentum(lr=0.05)
ESTIMATORS = {
    "unrolled": hg.Unrolled(solver=SOLVER, inner_steps=6),
    "gauss-newton": hg.Implicit(
        solver=SOLVER, inner_steps=6, product=hg.GaussNewton(), linsolve=hg.CG(max_iter=500, tol=1e-10), damping=1e-3
    ),
    "implicit": hg.Implicit(solver=SOLVER, inner_steps=6, linsolve=hg.MINRES(max_iter=500, tol=1e-10)),
    "neumann": hg.Implicit(solver=SOLVER, inner_steps=6, linsolve=hg.Neumann(num_terms=5, scale=0.02), damping=20.0),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_models_from_outside_run_with_every_estimator(name, estimator):
    torch.manual_seed(0)
    make, data = MODELS[name]
    model = make().double()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    problem = supervised(model, train=data(1), dev=data(2), test=data(3), batch_size=8)
    at = problem.init_hparams(), problem.init_params()
    found, again = (estimator.estimate(problem, *at) for _ in range(2))
    assert torch.equal(found.grad["l2"], again.grad["l2"])
    assert found.outer_loss == again.outer_loss
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    if isinstance(estimator, hg.Unrolled):

        def dev_loss(hparams):
            return torch.tensor(estimator.estimate(problem, hparams, at[1]).outer_loss)

        slope = central_difference(dev_loss, at[0], {"l2": torch.tensor(1.0)}, 1e-5)
        assert found.grad["l2"].item() == pytest.approx(slope.item(), rel=1e-6)


def test_dropout_is_a_function_of_the_step_and_off_when_judged():
    problem = supervised(MODELS["dropout"][0]())
    w, h = problem.init_params(), problem.init_hparams()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    losses = [problem.inner_loss(w, h, problem.inner_batch(step)).item() for step in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]
    assert torch.equal(torch.get_rng_state(), state)
    assert problem.outer_loss(w, h, None) == problem.outer_loss(w, h, problem.outer_batch(7))
    still = MODELS["dropout"][0]()
    still[2].eval()
    assert supervised(still).inner_batch(0) is None
    with pytest.raises(ValueError, match="needs the same inner loss at every step"):
        hg.Implicit(solver=hg.LBFGS()).estimate(problem, h, w)


def test_frozen_parameters_and_batch_statistics_stay():
    model = Residual().double()
    model.first.requires_grad_(False)
    nn.init.ones_(model.norm.running_mean)  # pyright: ignore
    by_batch = supervised(model, train=images(1), dev=images(2), test=None)
    assert by_batch.init_params().keys() == {"norm.weight", "norm.bias", *(n for n, _ in model.named_parameters())} - {
        "first.weight",
        "first.bias",
    }
    assert "decode.weight" not in supervised(Tied().double()).init_params()
    model.norm.eval()
    frozen = supervised(model, train=images(1), dev=images(2), test=None)
    X, y = images(2)
    w, h = frozen.init_params(), frozen.init_hparams()
    assert torch.allclose(frozen.outer_loss(w, h, None), cross_entropy(model.eval()(X), y))
    model.norm.train()
    assert torch.allclose(by_batch.outer_loss(w, h, None), cross_entropy(model(X), y))


@pytest.mark.parametrize(
    "source",
    [
        lambda X, y: (X, y),
        lambda X, y: (X.numpy(), y.numpy()),
        lambda X, y: TensorDataset(X, y),
        lambda X, y: DataLoader(TensorDataset(X, y), batch_size=5, shuffle=True, drop_last=True),
        lambda X, y: [(X[:10], y[:10]), (X[10:], y[10:])],
    ],
    ids=["tensors", "arrays", "dataset", "loader", "batches"],
)
def test_data_comes_in_many_forms(source):
    problem = supervised(train=source(*classes(1)))
    X, y = classes(1)
    assert torch.equal(problem.X, X)
    assert torch.equal(problem.y, y)


def with_value(value):
    X, y = classes(1)
    X[3, 2] = value
    return X, y


class Noisy(TensorDataset):
    """Draws from a generator of its own, which nobody can seed."""

    def __getitem__(self, index):
        X, y = super().__getitem__(index)
        return X + torch.from_numpy(self.numbers.random(5)), y

    numbers = np.random.default_rng(0)


class Counting(nn.Linear):
    def __init__(self):
        super().__init__(5, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, input):
        self.calls += 1
        return super().forward(input)


MISTAKES = {
    "NaN": ({"train": with_value(float("nan"))}, "X of the train part holds 1 of 120 values that are NaN"),
    "label": ({"dev": classes(2, k=5)}, "targets of the dev part must be classes from 0 to 2, .* 3 outputs, but"),
    "empty": ({"dev": classes(2, n=0)}, "The dev part holds 0 examples"),
    "no batch": ({"dev": []}, "The dev part holds 0 examples"),
    "lengths": ({"test": (classes(1)[0], classes(1)[1][:9])}, r"test part needs as many inputs .*\(24, 5\).*\(9,\)"),
    "string": ({"train": "mnist"}, "The train part must be a pair .* but it is a str"),
    "noise": ({"train": Noisy(*classes(1))}, "Reading example 0 of the train part twice"),
    "effect": ({"hyperparameters": {"l2": 0.1}}, r"hyperparameters\['l2'\] must be an effect, .* it is a float"),
    "pattern": ({"hyperparameters": {"l2": hg.L2(on="1.*")}}, r"L2.on = '1.\*' matches none .* 0.weight, 0.bias"),
    "feature": ({"hyperparameters": {"l2": hg.L2(per="feature")}}, r"L2.per = 'feature' needs weights of shape"),
    "output": ({"hyperparameters": {"l2": hg.L2(per="output")}}, r"L2.per = 'output' needs tensors of shape \(q, …\)"),
    "constraint": ({"hyperparameters": {"l2": hg.L2(init=-1.0)}}, "init = -1 violates the constraint"),
    "batch size": ({"batch_size": 0}, "Supervised.batch_size must be at least 1, but it is 0"),
    "frozen": ({"model": nn.Linear(5, 3).requires_grad_(False)}, "no parameter that requires a gradient"),
    "impure": ({"model": Counting()}, "changes the buffer 'calls' of its Counting"),
    "tuple": ({"model": nn.LSTM(5, 3)}, "LSTM must return a tensor or .* but it returned a tuple"),
}


@pytest.mark.parametrize(("settings", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named(settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        supervised(**settings)


class Torn(TensorDataset):
    """A file that cannot be read."""

    def __getitem__(self, index):
        if index == 17:
            raise OSError("image-17.png is truncated")
        return super().__getitem__(index)


def torn_batches():
    yield classes(1)
    raise OSError("shard-2.tar is truncated")


UNREADABLE = {
    "example": (lambda: Torn(*classes(1)), OSError, "image-17", "reading example 17 of 24 of the train part"),
    "loader": (
        lambda: DataLoader(Torn(*classes(1)), batch_size=5),
        OSError,
        "image-17",
        "reading example 17 of 24",
    ),
    "batches": (torn_batches, OSError, "shard-2", "reading the batches of the train part"),
    "objects": (
        lambda: (np.array([[1.0, None]] * 3), np.zeros(3)),
        TypeError,
        "object",
        "making a tensor of X of the train part",
    ),
}


@pytest.mark.parametrize(("source", "kind", "message", "note"), UNREADABLE.values(), ids=UNREADABLE)
def test_data_that_cannot_be_read_is_located(source, kind, message, note):
    with pytest.raises(kind, match=message) as caught:
        supervised(train=source())
    assert f"This happened while {note}" in explain(caught.value)


def test_overlapping_parts_are_counted():
    X, y = classes(2)
    X[:5], y[:5] = classes(1)[0][:5], classes(1)[1][:5]
    with pytest.warns(UserWarning, match="5 of the 24 dev examples are in the train part too"):
        supervised(dev=(X, y))


def test_weights_of_examples_need_a_loss_of_each():
    def total(z, y):
        return cross_entropy(z, y)

    with pytest.raises(ValueError, match="need a loss for each of the examples"):
        supervised(loss=total, hyperparameters={"weights": hg.ExampleWeights()})
    for loss in (nn.CrossEntropyLoss(), partial(cross_entropy, reduction="none")):
        problem = supervised(loss=loss, hyperparameters={"weights": hg.ExampleWeights()})
        found = problem.inner_loss(problem.init_params(), problem.init_hparams(), None)
        z = problem.outputs(problem.init_params(), problem.init_hparams(), None)
        assert torch.allclose(found, cross_entropy(z, problem.y))


def test_a_final_training_gives_the_examples_of_dev_the_mean_weight():
    problem = supervised(hyperparameters=EFFECTS["example weights"], batch_size=7)
    hparams = problem.init_hparams() | {"weights": drawn(0, 24).exp()}
    both, wider = problem.joined(hparams)
    assert isinstance(both, hg.Supervised)
    assert torch.equal(both.X, torch.cat([problem.X, problem.X_dev]))
    assert torch.equal(wider["weights"][24:], hparams["weights"].mean().expand(24))
    assert torch.isfinite(both.inner_loss(both.init_params(), wider, both.inner_batch(5)))
    assert len(problem.X) == 24


def test_weights_of_classes_need_one_class_for_each_example_and_leave_ignored_ones_out():
    of_classes = {"weights": hg.ClassWeights()}
    real, other = ((drawn(seed, 24, 5), drawn(seed, 24, 3)) for seed in (1, 2))
    with pytest.raises(ValueError, match="needs targets that are classes"):
        supervised(loss=mse_loss, train=real, dev=other, test=None, hyperparameters=of_classes)
    X, y = classes(1)
    y[:4] = -100
    problem = supervised(train=(X, y), loss=nn.CrossEntropyLoss(), hyperparameters=of_classes)
    found = problem.inner_loss(problem.init_params(), problem.init_hparams(), None)
    z = problem.outputs(problem.init_params(), problem.init_hparams(), None)
    assert torch.allclose(found, cross_entropy(z, y), rtol=1e-12)


def test_it_moves_with_the_module():
    problem = supervised().float()
    assert flatten(problem.init_params()).dtype == problem.X.dtype == torch.float32
    assert problem.y.dtype == torch.int64
