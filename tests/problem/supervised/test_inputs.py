"""Inputs that are several tensors, losses that the model returns, and data sets that draw random numbers."""

import random
from collections import UserDict
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from plain_training import estimates, slope
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler, TensorDataset, WeightedRandomSampler

import hypergrad as hg
from hypergrad.compile import inductor
from hypergrad.core.autodiff import flatten
from hypergrad.data.random_state import random_state

LR, STEPS, L2 = 0.3, 6, 0.05
TOKENS, LENGTH, CLASSES = 9, 5, 3


class Encoder(nn.Module):
    """Masked means of embeddings, by keyword or position; with labels it returns its loss too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = (
            nn.Embedding(TOKENS, 4),
            nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, CLASSES)),
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        mask = attention_mask.unsqueeze(2).double()
        logits = self.head((self.embed(input_ids) * mask).sum(1) / mask.sum(1))
        return logits if labels is None else {"loss": cross_entropy(logits, labels), "logits": logits}


@dataclass
class Tokens:
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


def tokens(seed: int, n: int = 12) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(LENGTH) < 2 + torch.arange(n)[:, None] % 3).long()
    ids = torch.randint(0, TOKENS, (n, LENGTH), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.randint(0, CLASSES, (n,), generator=generator)}


def split(batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    return {name: x for name, x in batch.items() if name != "labels"}, batch["labels"]


def problem_on(train: Any, dev: Any, *, loss: Any = cross_entropy, **settings: Any) -> hg.Supervised:
    usual = {"model": Encoder(), "hyperparameters": {"l2": hg.L2(init=L2)}}
    return hg.Supervised(loss=loss, train=train, dev=dev, **usual | settings)


class Rows(Dataset):
    """Examples that are dicts."""

    def __init__(self, batch: dict[str, Tensor]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch["labels"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: x[index] for name, x in self.batch.items()}


class PlainRows(Rows):
    """The same, with Python numbers as targets and examples that are dataclasses."""

    def __getitem__(self, index: int) -> Any:
        row: dict[str, Any] = super().__getitem__(index)
        row["labels"] = int(row["labels"])
        return Tokens(**row)


FORMS = {
    "dict": lambda b: b,
    "mapping": lambda b: UserDict(b),
    "dataclass": lambda b: Tokens(**b),
    "dict and targets": split,
    "positional": lambda b: (tuple(split(b)[0].values()), split(b)[1]),
    "arrays": lambda b: {name: x.numpy() for name, x in b.items()},
    "data set": lambda b: Rows(b),
    "data set of dataclasses": lambda b: PlainRows(b),
    "loader": lambda b: DataLoader(Rows(b), batch_size=5, shuffle=True),
    "batches": lambda b: [{name: x[:7] for name, x in b.items()}, {name: x[7:] for name, x in b.items()}],
    "one None": lambda b: b | {"token_type_ids": None},
}


@cache
def truth() -> tuple[float, float]:
    train, dev = tokens(1), tokens(2)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        X, y = split(batch)
        return cross_entropy(model(**X), y)

    return slope(Encoder(), lambda m, t: loss(m, train), lambda m: loss(m, dev), l2=L2, lr=LR, steps=STEPS)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_inputs_of_every_form_give_the_slope_of_plain_training(form):
    problem = problem_on(form(tokens(1)), form(tokens(2)))
    assert estimates(problem, lr=LR, steps=STEPS) == pytest.approx(truth(), rel=1e-7)


@pytest.mark.parametrize("form", [name for name in FORMS if name != "positional"])
def test_so_does_a_loss_that_the_model_returns(form):
    problem = problem_on(FORMS[form](tokens(1)), FORMS[form](tokens(2)), loss=None)
    assert estimates(problem, lr=LR, steps=STEPS) == pytest.approx(truth(), rel=1e-7)


@pytest.mark.parametrize("loss", [cross_entropy, None], ids=["loss", "returned"])
@pytest.mark.parametrize(
    "tape", [hg.Store(), hg.Checkpoint(), hg.Reversible()], ids=["store", "checkpoint", "reversible"]
)
def test_every_tape_serves_trees_in_mini_batches(tape, loss):
    problem = problem_on(tokens(1), tokens(2), loss=loss, batch_size=5)
    solver = hg.Momentum(lr=LR, momentum=0.5)
    by_graph = estimates(problem, steps=STEPS, solver=solver)
    assert estimates(problem, steps=STEPS, solver=solver, tape=tape) == pytest.approx(by_graph, rel=1e-6)
    wanted = estimates(problem, lr=LR, steps=STEPS)

    def train_loss(model: nn.Module, step: int) -> Tensor:
        batch: Any = problem.inner_batch(step)
        X, y = split({name: x[batch.rows] for name, x in tokens(1).items()})
        return cross_entropy(model(**X), y)

    X, y = split(tokens(2))
    found = slope(Encoder(), train_loss, lambda m: cross_entropy(m(**X), y), l2=L2, lr=LR, steps=STEPS)
    assert wanted == pytest.approx(found, rel=1e-7)


@pytest.mark.parametrize("loss", [cross_entropy, None], ids=["loss", "returned"])
def test_implicit_and_forward_estimates_agree_on_trees(loss):
    problem = problem_on(tokens(1), tokens(2), loss=loss)
    at = problem.init_hparams(), problem.init_params()
    forward = hg.Forward(solver=hg.GradientDescent(lr=LR), inner_steps=STEPS).estimate(problem, *at)
    assert (forward.outer_loss, forward.grad["l2"].item()) == pytest.approx(
        estimates(problem, lr=LR, steps=STEPS), rel=1e-8
    )
    by_hand = problem_on(*(split(tokens(seed)) for seed in (1, 2)))
    found = [
        hg.Implicit(solver=hg.LBFGS(), linsolve=hg.CG(tol=1e-10), inner_tol=1e-10, damping=0.0).estimate(p, *at)
        for p in (problem, by_hand)
    ]
    assert found[0].grad["l2"].item() == pytest.approx(found[1].grad["l2"].item(), rel=1e-6)


def test_a_returned_loss_is_judged_by_its_logits_too():
    test = tokens(3)
    problem = problem_on(tokens(1), tokens(2), loss=None, test=test)
    metrics = problem.metrics(problem.init_params(), problem.init_hparams())
    X, y = split(test)
    logits = Encoder()(**X)
    assert metrics["test_loss"] == pytest.approx(cross_entropy(logits, y).item(), rel=1e-12)
    assert metrics["test_accuracy"] == (logits.argmax(1) == y).double().mean()


def test_trees_move_and_are_stored_with_the_problem():
    problem = problem_on(((torch.ones(12, 2), tokens(1)["input_ids"]), tokens(1)["labels"]), _pairs(2), model=Pair())
    assert isinstance(problem.X, nn.Module)
    assert [x.dtype for x in problem.float().part("train")[0]] == [torch.float32, torch.int64]
    assert {"X.leaf/0", "X.leaf/1", "y", "X_dev.leaf/0"} <= problem.state_dict().keys()


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(TOKENS, 2), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.head(torch.cat([x, self.embed(ids).mean(1)], 1))


def _pairs(seed: int) -> Any:
    return (torch.ones(12, 2), tokens(seed)["input_ids"]), tokens(seed)["labels"]


def test_folds_weights_and_a_final_training_serve_trees():
    problem = problem_on(tokens(1), tokens(2), hyperparameters={"l2": hg.L2(init=L2), "c": hg.ExampleWeights()})
    everything = {name: torch.cat([tokens(1)[name], tokens(2)[name]]) for name in tokens(1)}
    both, wider = problem.joined(problem.init_hparams())
    X, y = split(everything)
    by_hand = cross_entropy(Encoder()(**X), y) + L2 * flatten(problem.init_params()).square().sum()
    assert both.inner_loss(both.init_params(), wider, None).item() == pytest.approx(by_hand.item(), rel=1e-12)
    folds = hg.k_fold(problem, 3)
    found = hg.Unrolled(solver=hg.GradientDescent(lr=LR), inner_steps=2).estimate(
        folds, folds.init_hparams(), folds.init_params()
    )
    assert found.grad["c"].shape == (24,)
    assert found.grad["c"].abs().min() > 0


REFUSED = {
    "weights": (
        {"loss": None, "hyperparameters": {"c": hg.ExampleWeights()}},
        "weights the examples, which needs a loss",
    ),
    "smoothing": (
        {"loss": None, "hyperparameters": {"c": hg.LabelSmoothing()}},
        "changes the targets, which needs a l",
    ),
    "scale": (
        {"hyperparameters": {"c": hg.InputScale()}},
        "InputScale needs inputs that are one tensor, but .*input_i",
    ),
    "affine": ({"hyperparameters": {"c": hg.RandomAffine()}}, "RandomAffine needs inputs that are one tensor"),
    "network": ({"hyperparameters": {"c": hg.AffineNetwork(network=nn.Linear(2, 2))}}, "AffineNetwork needs inputs th"),
    "no labels": (
        {"train": split(tokens(1))[0]},
        "train part must have .* under 'labels', but its entries are 'input_ids'",
    ),
    "other entries": (
        {"dev": tokens(2) | {"extra": tokens(2)["labels"]}},
        "dev part must have the same inputs .*extra",
    ),
    "tensors": (
        {
            "loss": None,
            "train": (torch.ones(12, 4), tokens(1)["labels"]),
            "dev": (torch.zeros(12, 4), tokens(1)["labels"]),
        },
        "Without a loss, the model gets all entries of a batch by name, .* the inputs are",
    ),
    "no loss in it": ({"loss": None, "model": nn.Bilinear(2, 2, 2)}, "Bilinear"),
    "unknown entry": (
        {name: tokens(k) | {"extra": tokens(1)["labels"]} for k, name in ((1, "train"), (2, "dev"))},
        "train part, .*unexpected keyword argument 'ex",
    ),
    "lengths": (
        {"train": tokens(1) | {"labels": tokens(1, n=13)["labels"]}},
        r"X\[input_ids\] is of shape \(12, 5\) and y",
    ),
    "objects": ({"train": tokens(1) | {"input_ids": "text"}}, r"X\['input_ids'\] of the train part must hold numbers"),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_by_name(settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        problem_on(**{"train": tokens(1), "dev": tokens(2)} | settings)


def test_gauss_newton_products_and_weights_need_a_loss_of_outputs():
    problem = problem_on(tokens(1), tokens(2), loss=None)
    at = problem.init_hparams(), problem.init_params()
    estimator = hg.Implicit(solver=hg.LBFGS(), product=hg.GaussNewton(), inner_tol=1e-6)
    with pytest.raises(ValueError, match="Gauss–Newton products need a loss of the model's outputs"):
        estimator.estimate(problem, *at)
    with pytest.raises(ValueError, match="needs a loss of outputs and targets"):
        problem.weighted("weights")


class Shaken(Dataset):
    """Draws from each of the three global generators."""

    def __init__(self, seed: int, n: int = 10) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.X, self.y = torch.randn(n, 4, generator=generator), torch.arange(n) % CLASSES

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = 0.1 * torch.randn(4) + random.gauss(0, 0.1) + np.random.normal(0, 0.1)
        return self.X[index] + noise, self.y[index]


class Flipped(Shaken):
    """Draws, but half of the time reading an example twice gives one value."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.X[index] * (-1 if torch.rand(()) < 0.5 else 1), self.y[index]


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, CLASSES))


def shaken(data: Any = Shaken, **settings: Any) -> hg.Supervised:
    still = TensorDataset(Shaken(2).X, Shaken(2).y)
    usual = {"train": data(1), "dev": still, "hyperparameters": {"l2": hg.L2(init=L2)}}
    return hg.Supervised(model=classifier(), loss=cross_entropy, **usual | settings)


def read_by_hand(data: Any, step: int, rows: list[int], epoch: int) -> tuple[Tensor, Tensor]:
    from hypergrad.core.seed import seed_of

    examples = []
    for row in rows:
        seed = seed_of("example", 0, epoch, row)
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        examples.append(data[row])
    return torch.stack([x for x, _ in examples]), torch.stack([y for _, y in examples])


@pytest.mark.parametrize("data", [Shaken, Flipped])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_random_data_set_is_a_function_of_seed_epoch_and_example(data, batch_size):
    problem = shaken(data, batch_size=batch_size)
    states = random_state()

    def train_loss(model: nn.Module, step: int) -> Tensor:
        batch: Any = problem.inner_batch(step)
        rows = list(range(10)) if batch_size is None else batch.rows.tolist()
        X, y = read_by_hand(data(1), step, rows, step if batch_size is None else step // 3)
        return cross_entropy(model(X), y)

    found = estimates(problem, lr=LR, steps=STEPS)
    assert random_state() == states
    dev = Shaken(2)
    wanted = slope(classifier(), train_loss, lambda m: cross_entropy(m(dev.X), dev.y), l2=L2, lr=LR, steps=STEPS)
    assert found == pytest.approx(wanted, rel=1e-7)
    batches: list[Any] = [problem.inner_batch(step) for step in (0, 40, 0)]
    steps = [batch.examples[0] for batch in batches]
    assert torch.equal(steps[0], steps[2])


@pytest.mark.parametrize(
    "tape", [hg.Store(), hg.Checkpoint(), hg.Reversible()], ids=["store", "checkpoint", "reversible"]
)
@pytest.mark.parametrize("train", [Shaken, lambda seed: DataLoader(Shaken(seed), batch_size=3, shuffle=True)])
def test_every_tape_sees_the_same_random_examples(tape, train):
    problem = shaken(train=train(1), batch_size=4)
    solver = hg.Momentum(lr=LR, momentum=0.5)
    wanted = estimates(problem, steps=STEPS, solver=solver)
    assert estimates(shaken(batch_size=4), steps=STEPS, solver=solver, tape=tape) == pytest.approx(wanted, rel=1e-6)


def test_random_examples_enter_compiled_steps(monkeypatch):
    monkeypatch.setattr(inductor, "compile_graph", lambda graph, _: lambda tensors: graph(*tensors))  # traced alone
    wanted = estimates(shaken(batch_size=5), lr=LR, steps=STEPS)
    assert estimates(shaken(batch_size=5), lr=LR, steps=STEPS, compile=True) == pytest.approx(wanted, rel=1e-7)


def test_folds_and_a_final_training_read_random_examples_again_and_dev_examples_not():
    problem = shaken()
    both: Any = problem.joined(problem.init_hparams())[0]
    first, second = (both.inner_batch(step).examples for step in (0, 1))
    changed = (first[0] != second[0]).any(1)
    assert changed.tolist() == [True] * 10 + [False] * 10
    assert torch.equal(first[1], torch.cat([problem.y, problem.y_dev]))
    fold: Any = problem.on_examples(torch.tensor([12, 3, 7]), torch.tensor([1, 2]))
    rows = fold.inner_batch(4).examples[0]
    assert torch.equal(rows[1], read_by_hand(Shaken(1), 4, [3], 4)[0][0])
    assert torch.equal(rows[0], problem.part("dev")[0][2])
    with pytest.raises(ValueError, match="Weights of examples need training without random numbers"):
        problem.weighted("weights")


def test_a_subset_of_a_loader_is_what_it_visits():
    data = TensorDataset(Shaken(1).X, Shaken(1).y)
    loader = DataLoader(data, sampler=SubsetRandomSampler([7, 2, 5]), batch_size=2)
    assert torch.equal(shaken(train=loader).part("train")[0], Shaken(1).X[[7, 2, 5]])
    random_loader = DataLoader(Shaken(1), sampler=SubsetRandomSampler([7, 2]), batch_size=2)
    batch: Any = shaken(train=random_loader).inner_batch(3)
    assert torch.equal(batch.examples[0], read_by_hand(Shaken(1), 3, [7, 2], 3)[0])
    weighted = DataLoader(data, sampler=WeightedRandomSampler([0.1] * 9 + [1.0], 10))
    with pytest.raises(ValueError, match="train part must visit each example once .* WeightedRandomSampler draws some"):
        shaken(train=weighted)


class Stream:
    """Batches that are drawn anew in each pass."""

    def __iter__(self):
        for _ in range(3):
            yield torch.randn(4, 4), torch.arange(4) % CLASSES


def test_a_random_stream_is_refused_and_one_in_random_order_is_not():
    with pytest.raises(
        ValueError, match="batches of the train part twice gives other examples, .* torch.utils.data.Data"
    ):
        shaken(train=Stream())

    class Shuffled:
        def __iter__(self):
            for rows in torch.randperm(10).split(4):
                yield Shaken(1).X[rows], Shaken(1).y[rows]

    assert len(shaken(train=Shuffled()).y) == 10


@pytest.mark.parametrize(("size", "batch_size"), [(10, 3), (9, 4), (7, 7)])
def test_an_epoch_can_leave_out_its_last_batch(size, batch_size):
    data = torch.randn(size, 4), torch.arange(size) % CLASSES
    problem = shaken(train=data, batch_size=batch_size, drop_last=True)
    per_epoch = size // batch_size
    batches: list[Any] = [problem.inner_batch(step) for step in range(4 * per_epoch)]
    if batch_size == size:
        assert batches == [None] * 4
        return
    assert {len(batch.rows) for batch in batches} == {batch_size}
    epochs = [torch.cat([b.rows for b in batches[e * per_epoch : (e + 1) * per_epoch]]) for e in range(4)]
    assert all(len(epoch.unique()) == per_epoch * batch_size for epoch in epochs)
    assert len(torch.cat(epochs).unique()) == size


def normalised() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES))


def test_batch_normalisation_of_one_example_is_known_at_construction():
    data = torch.randn(9, 4), torch.arange(9) % CLASSES
    settings = {"loss": cross_entropy, "train": data, "dev": (data[0] + 1, data[1])}
    settings["hyperparameters"] = {"l2": hg.L2(init=L2)}
    with pytest.raises(ValueError, match="The last of 9 examples in batches of 4 is 1 example, .* set drop_last=True"):
        hg.Supervised(model=normalised(), batch_size=4, **settings)
    with pytest.raises(ValueError, match="Each batch has 1 example"):
        hg.Supervised(model=normalised(), batch_size=1, drop_last=True, **settings)
    problem = hg.Supervised(model=normalised(), batch_size=4, drop_last=True, **settings)

    def train_loss(model: nn.Module, step: int) -> Tensor:
        batch: Any = problem.inner_batch(step)
        return cross_entropy(model(data[0][batch.rows]), data[1][batch.rows])

    def dev_loss(model: nn.Module) -> Tensor:
        return cross_entropy(model.train()(data[0] + 1), data[1])

    wanted = slope(normalised(), train_loss, dev_loss, l2=L2, lr=LR, steps=STEPS)
    assert estimates(problem, lr=LR, steps=STEPS) == pytest.approx(wanted, rel=1e-6)
