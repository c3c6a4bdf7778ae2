"""A trained module at home: `eval()` gives what the metrics reported, and its values load into a fresh module."""

import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.optim.swa_utils import update_bn

import hypergrad as hg

ADAM = partial(torch.optim.Adam, lr=0.3)
ESTIMATOR = hg.Unrolled(solver=hg.Momentum(lr=0.05), inner_steps=8)


class Shared(nn.Module):
    """One block that two attributes reach."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh())
        self.again, self.head = self.body, nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.again(self.body(x)))


class Tied(nn.Module):
    """One matrix under two names, and normalisation between its uses."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.norm = nn.BatchNorm1d(6, momentum=0.3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(self.second(torch.tanh(self.norm(self.first(x)))))


class Tempered(nn.Module):
    """A buffer that is tuned, beside a frozen normalisation that keeps its averages."""

    def __init__(self):
        super().__init__()
        self.register_buffer("temperature", torch.tensor(1.5))
        self.first, self.norm, self.frozen = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 3)
        self.frozen.running_mean.fill_(0.2)  # pyright: ignore
        self.frozen.eval()

    def forward(self, x):
        return self.head(self.frozen(torch.tanh(self.norm(self.first(x))))) / self.temperature


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


def cnn():
    return nn.Sequential(
        *(nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Conv2d(4, 4, 2), nn.BatchNorm2d(4, affine=False), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3)),
    )


def tracked():
    """Instance normalisation, which torch normalises in training by the example and in `eval()` by averages."""
    norm = nn.InstanceNorm1d(2, affine=True, track_running_stats=True)
    return nn.Sequential(nn.Linear(6, 8), nn.Unflatten(1, (2, 4)), norm, nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))


def decomposed():
    """A parametrised layer, whose state_dict has names of its own."""
    layer = nn.utils.parametrizations.orthogonal(nn.Linear(6, 6), orthogonal_map="cayley", use_trivialization=False)
    return nn.Sequential(layer, nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))


def normed():
    """Weights by length and direction, which training computes by plain operations."""
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
    return nn.Sequential(layer, nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))


class Clamps(nn.Module):
    """It changes its inputs in place."""

    def __init__(self):
        super().__init__()
        self.body = mlp()

    def forward(self, x):
        return self.body(x.clamp_(-2, 2))


MODELS = {
    "mlp": mlp,
    "cnn": cnn,
    "shared": Shared,
    "tied": Tied,
    "tuned buffer": Tempered,
    "tracked instance norm": tracked,
    "parametrised": decomposed,
    "weight norm": normed,
    "in place": Clamps,
}


def parts():
    generator = torch.Generator().manual_seed(0)
    shift = torch.randn(3, 6, generator=generator)
    for size in (53, 41, 37):
        y = torch.randint(3, (size,), generator=generator)
        yield (2 * shift[y] + torch.randn(size, 6, generator=generator)).to(torch.get_default_dtype()) + 1, y


def problem_of(model, more=(), shape=(6,), batch_size: int | None = 20):
    train, dev, test = ((X.unflatten(1, shape), y) for X, y in parts())
    hyperparameters = {"l2": hg.L2(init=1e-3, per="tensor")} | dict(more)
    return hg.Supervised(
        model=model,
        loss=cross_entropy,
        train=train,
        dev=dev,
        test=test,
        hyperparameters=hyperparameters,
        batch_size=batch_size,
    )


def more_of(name):
    return {"temperature": hg.Buffer(name="temperature")} if name == "tuned buffer" else {}


def reported(model, problem):
    """The metrics of a module in `eval()`, by hand."""
    with torch.no_grad():
        dev, test = model(problem.X_dev.clone()), model(problem.X_test.clone())
    return {
        "test_loss": cross_entropy(test, problem.y_test).item(),
        "test_accuracy": (test.argmax(1) == problem.y_test).double().mean().item(),
        "dev_accuracy": (dev.argmax(1) == problem.y_dev).double().mean().item(),
        "dev_loss_in_eval": cross_entropy(dev, problem.y_dev).item(),
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_eval_gives_what_was_reported_and_the_file_loads(name, dtype, tmp_path):
    torch.manual_seed(1)
    model = MODELS[name]()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    problem = problem_of(model, more_of(name)).to(dtype)
    data = problem.X.clone()
    result = hg.fit(problem, ESTIMATOR, ADAM, 2, progress=False, warm_start=False)
    module: Any = result.best.module()
    assert type(module) is type(model)
    assert module.state_dict().keys() == model.state_dict().keys()
    assert not any(part.training for part in module.modules())
    assert reported(module, problem) == pytest.approx(result.best.metrics, abs=1e-6)
    result.save(tmp_path)
    torch.manual_seed(2)
    fresh = MODELS[name]().to(dtype)
    fresh.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True), strict=True)
    assert reported(fresh.eval(), problem) == pytest.approx(result.best.metrics, abs=1e-6)
    if name == "tied":
        assert module.first.weight is module.second.weight
        assert module.norm.momentum == 0.3
    if name == "tuned buffer":
        assert fresh.temperature == result.best.hparams["temperature"] != 1.5
        assert torch.equal(fresh.frozen.running_mean, torch.full((6,), 0.2, dtype=dtype))
    assert torch.equal(problem.X, data)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_without_averages_of_its_own_it_would_be_another_model():
    """The case A7: the trained parameters alone, in `eval()`, are not what was tuned."""
    torch.manual_seed(1)
    model: Any = mlp()
    nn.init.constant_(model[0].bias, -8.0)
    problem = problem_of(model)
    result = hg.fit(problem, ESTIMATOR, ADAM, 2, progress=False, warm_start=False)
    alone = mlp().eval()
    alone.load_state_dict(result.params, strict=False)
    theirs, ours = reported(alone, problem), result.best.metrics
    assert theirs["dev_loss_in_eval"] > ours["dev_loss_in_eval"] + 0.3
    assert theirs["dev_accuracy"] < ours["dev_accuracy"] - 0.1


@pytest.mark.parametrize("batch_size", [None, 20, 18])
def test_the_averages_are_those_of_torch(batch_size):
    """`update_bn` on the same batches; 53 examples are batches of 18, 18 and 17 examples."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 3))
    problem = problem_of(model, batch_size=batch_size)
    params = {name: w + 0.3 for name, w in problem.init_params().items()}
    ours = problem.trained_module(params, problem.init_hparams())
    model.load_state_dict(params, strict=False)
    batches = list(problem.train_inputs(problem.init_hparams()))
    assert [len(X) for X in batches] == ([53] if batch_size is None else [18, 18, 17])
    assert torch.equal(torch.cat(batches).sort(0).values, problem.X.sort(0).values)
    update_bn(batches, model)
    for name, value in model.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    if batch_size is None:
        z = problem.X @ params["0.weight"].T + params["0.bias"]
        assert torch.allclose(ours.get_buffer("1.running_mean"), z.mean(0), rtol=1e-12)
        assert torch.allclose(ours.get_buffer("1.running_var"), z.var(0), rtol=1e-12)


def test_augmentation_and_draws_do_not_touch_the_averages_or_the_generator():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), mlp())
    still = problem_of(model, shape=(1, 2, 3))
    moved = problem_of(model, {"moves": hg.RandomAffine(init=1.0)}, shape=(1, 2, 3))
    before = torch.get_rng_state()
    both = [p.trained_module(p.init_params(), p.init_hparams()).state_dict() for p in (still, moved)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, both[1][name]) for name, value in both[0].items())


def test_without_running_averages_metrics_are_those_of_a_call():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 3))
    problem = problem_of(model)
    at = problem.init_params(), problem.init_hparams()
    found = problem.metrics(*at)
    outputs = problem.model(at[0], problem.X_test, None)
    assert found.keys() == {"test_loss", "test_accuracy", "dev_accuracy"}
    assert float(found["test_loss"]) == cross_entropy(outputs, problem.y_test).item()
    assert torch.equal(problem.trained_module(*at)(problem.X_test), outputs)


def test_the_outer_loss_uses_the_statistics_of_dev():
    torch.manual_seed(1)
    model = mlp()
    problem = problem_of(model)
    at = problem.init_params(), problem.init_hparams()
    model[3].eval()
    with torch.no_grad():
        by_hand = cross_entropy(model(problem.X_dev), problem.y_dev).item()
        ours, in_eval = problem.outer_loss(*at, None).item(), float(problem.metrics(*at)["dev_loss_in_eval"])
    assert ours == pytest.approx(by_hand, rel=1e-12)
    assert in_eval != pytest.approx(ours, rel=1e-3)


def test_a_regression_with_averages_reports_its_dev_loss_in_eval():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
    train, dev, _ = ((X, X.sum(1, keepdim=True)) for X, _ in parts())
    problem = hg.Supervised(model=model, loss=mse_loss, train=train, dev=dev, hyperparameters={"l2": hg.L2()})
    at = problem.init_params(), problem.init_hparams()
    found = problem.metrics(*at)
    assert found.keys() == {"dev_loss_in_eval"}
    with torch.no_grad():
        assert float(found["dev_loss_in_eval"]) == mse_loss(problem.trained_module(*at)(dev[0]), dev[1]).item()


class Named(nn.Module):
    """It is called with inputs by name, and returns its loss beside its outputs, as in the transformers library."""

    def __init__(self):
        super().__init__()
        self.body = mlp()

    def forward(self, left, right, labels=None):
        logits = self.body(torch.cat([left, right], 1))
        return {"logits": logits} | ({} if labels is None else {"loss": cross_entropy(logits, labels)})


def test_inputs_by_name_and_a_loss_of_the_model():
    torch.manual_seed(1)
    model = Named()
    train, dev, test = ({"left": X[:, :2], "right": X[:, 2:], "labels": y} for X, y in parts())
    problem = hg.Supervised(
        model=model, train=train, dev=dev, test=test, hyperparameters={"l2": hg.L2()}, batch_size=20
    )
    result = hg.fit(problem, ESTIMATOR, ADAM, 1, progress=False, warm_start=False)
    module, metrics = result.module(), result.best.metrics
    with torch.no_grad():
        found, judged = module(**test), module(**dev)
    assert found["loss"].item() == pytest.approx(metrics["test_loss"], abs=1e-12)
    assert judged["loss"].item() == pytest.approx(metrics["dev_loss_in_eval"], abs=1e-12)
    accuracy = (judged["logits"].argmax(1) == dev["labels"]).double().mean().item()
    assert accuracy == pytest.approx(metrics["dev_accuracy"])


def test_losses_of_test_examples_are_those_of_the_module():
    torch.manual_seed(1)
    problem = problem_of(mlp())
    at = problem.init_params(), problem.init_hparams()
    losses = problem.test_losses(*at)
    assert losses is not None
    assert losses.mean().item() == pytest.approx(float(problem.metrics(*at)["test_loss"]), rel=1e-12)


class Averaging(nn.Module):
    """A user's own running average, which a training step would change."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)
        self.register_buffer("centre", torch.zeros(6))

    def forward(self, x):
        if self.training:
            self.centre = 0.9 * self.centre + 0.1 * x.detach().mean(0)
        return self.head(x - self.centre)


def test_a_running_average_of_the_users_own_is_refused_by_name():
    with pytest.raises(ValueError, match="Averaging"):
        problem_of(Averaging())
    problem_of(Averaging().eval())


def test_a_scale_of_the_inputs_is_not_in_the_module(tmp_path):
    torch.manual_seed(1)
    problem = problem_of(mlp(), {"scale": hg.InputScale(init=2.0)})
    result = hg.fit(problem, ESTIMATOR, ADAM, 1, progress=False, warm_start=False)
    with pytest.raises(ValueError, match="'scale' changes the inputs of the model.*problem.model_inputs"):
        result.module()
    result.save(tmp_path)
    assert "changed by scale" in (tmp_path / "hparams.yaml").read_text()
    fresh = mlp().eval()
    fresh.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    with torch.no_grad():
        outputs = fresh(problem.model_inputs(problem.X_test, hg.load_hparams(tmp_path)))
    assert cross_entropy(outputs, problem.y_test).item() == pytest.approx(result.best.metrics["test_loss"], abs=1e-12)


def test_folds_leave_a_model_each_and_a_final_training_one(tmp_path):
    torch.manual_seed(1)
    problem = hg.k_fold(problem_of(mlp()), 3)
    result = hg.fit(problem, ESTIMATOR, ADAM, 1, progress=False, warm_start=False)
    with pytest.raises(ValueError, match="3 folds have trained 3 models.*retrain=True"):
        result.module()
    result.save(tmp_path / "folds")
    losses = []
    for k, fold in enumerate(problem.folds):
        fresh = mlp().eval()
        fresh.load_state_dict(torch.load(tmp_path / "folds" / f"model-fold-{k}.pt", weights_only=True))
        losses.append(reported(fresh, fold))
    for name, value in result.best.metrics.items():
        assert sum(loss[name] for loss in losses) / 3 == pytest.approx(value, abs=1e-9)
    again = hg.fit(problem, ESTIMATOR, ADAM, 1, progress=False, warm_start=False, retrain=True)
    again.save(tmp_path / "one")
    fresh = mlp().eval()
    fresh.load_state_dict(torch.load(tmp_path / "one" / "model.pt", weights_only=True))
    assert again.retrained is not None
    assert again.retrained.keys() == {"test_loss", "test_accuracy"}
    assert reported(fresh, problem.pool)["test_loss"] == pytest.approx(again.retrained["test_loss"], abs=1e-9)
    assert torch.equal(again.module()(problem.pool.X_test), fresh(problem.pool.X_test))


def test_distilled_images_are_judged_by_averages_over_them():
    torch.manual_seed(1)
    train, dev, test = (hg.Split(*part) for part in parts())
    problem = hg.Distillation(hg.Splits(train, dev, test), per_class=4, model=mlp())
    at = problem.init_params(), problem.init_hparams()
    with torch.no_grad():
        outputs = problem.trained_module(*at)(test.X)
    assert float(problem.metrics(*at)["test_loss"]) == cross_entropy(outputs, test.y).item()


SCRIPT = """
import sys, torch
from torch import nn
torch.set_default_dtype(torch.float64)
model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
model.load_state_dict(torch.load(sys.argv[1] + "/model.pt", weights_only=True), strict=True)
X, y = torch.load(sys.argv[1] + "/test.pt", weights_only=True)
model.eval()
print(nn.functional.cross_entropy(model(X), y).item(), (model(X).argmax(1) == y).double().mean().item())
"""


def test_another_process_reports_the_same(tmp_path):
    torch.manual_seed(1)
    problem = problem_of(mlp())
    result = hg.fit(problem, ESTIMATOR, ADAM, 2, progress=False, warm_start=False)
    result.save(tmp_path)
    torch.save((problem.X_test, problem.y_test), tmp_path / "test.pt")
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=True)
    loss, accuracy = map(float, done.stdout.split())
    assert loss == pytest.approx(result.best.metrics["test_loss"], abs=1e-6)
    assert accuracy == pytest.approx(result.best.metrics["test_accuracy"], abs=1e-6)
