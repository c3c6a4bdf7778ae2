"""Mistakes of users: each is answered before training starts, with the part, expected and met, and what to do."""

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import hypergrad as hg

N, P, K = 12, 5, 3


@dataclass(frozen=True, kw_only=True)
class Watched(hg.GradientDescent):
    """Gradient descent that says when it takes a step."""

    def update(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("training has started")


ADAM = partial(torch.optim.Adam, lr=0.1)
ESTIMATOR = hg.Unrolled(solver=Watched(lr=0.1), inner_steps=2)


def data(n: int = N, p: int = P, *, classes: bool = False, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % K if classes else torch.randn(n, 1, generator=generator).double()
    return torch.randn(n, p, generator=generator).double(), y


X, Y = data()
X_DEV, Y_DEV = data(seed=1)


def problem(**changes: Any) -> hg.Supervised:
    """A linear regression on tables, but for some changes."""
    settings: dict[str, Any] = {
        "model": nn.Linear(P, 1),
        "loss": functional.mse_loss,
        "train": (X, Y),
        "dev": (X_DEV, Y_DEV),
        "hyperparameters": {"l2": hg.L2(init=0.1)},
    }
    return hg.Supervised(**settings | changes)


def tuned(estimator: Any = ESTIMATOR, **changes: Any) -> None:
    """One estimate of it."""
    made = problem(**changes)
    estimator.estimate(made, made.init_hparams(), made.init_params())


def classified(**changes: Any) -> None:
    """The same for three classes."""
    settings = {
        "model": nn.Linear(P, K),
        "loss": functional.cross_entropy,
        "train": data(classes=True),
        "dev": data(classes=True, seed=1),
    }
    tuned(**settings | changes)


def fitted(optimizer: Any = ADAM, **changes: Any) -> None:
    """One outer step on it; `changes` are settings of `hg.fit`."""
    settings = {"problem": problem(), "estimator": ESTIMATOR, "optimizer": optimizer, "steps": 1, "progress": False}
    hg.fit(**settings | changes)


def framed(change: Callable[[Any, Any], Any], part: str = "train") -> None:
    """The same from DataFrames, with a change of X and y in one part."""
    pandas = pytest.importorskip("pandas")
    columns = [f"c{j}" for j in range(P)]
    parts: dict[str, Any] = {
        name: (pandas.DataFrame(X.numpy(), columns=columns), pandas.Series(y[:, 0].numpy(), name="price"))
        for name, (X, y) in {"train": (X, Y), "dev": (X_DEV, Y_DEV)}.items()
    }
    parts[part] = change(*parts[part])
    tuned(**parts)


def frames() -> Any:
    return pytest.importorskip("pandas")


def named(train: Any, **changes: Any) -> None:
    """The same from dicts, for a model that has an argument x."""
    tuned(**{"model": Linear(), "train": train, "dev": {"x": X_DEV, "labels": Y_DEV}} | changes)


def lent(**changes: Any) -> None:
    """The hypergradient of a ridge regression, but for some changes."""
    settings: dict[str, Any] = {
        "inner_loss": lambda w, penalty: (X @ w - Y).square().mean() + penalty * w.square().sum(),
        "outer_loss": lambda w, penalty: (X_DEV @ w - Y_DEV).square().mean(),
        "params": torch.zeros(P, 1, dtype=torch.float64),
        "hparams": torch.tensor(0.1, dtype=torch.float64),
    }
    hg.hypergradient(**settings | changes)


class Scalars(IterableDataset):
    """Examples whose labels are plain numbers in a stream of single examples, not batches."""

    def __iter__(self) -> Iterator[tuple[Tensor, float]]:
        return iter(zip(X, [0.0] * N, strict=True))


class Broken(Dataset):
    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 7:
            raise OSError("file 7 is missing")
        return torch.zeros(P), torch.zeros(1)


class Ragged(Dataset):
    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(P + index), torch.zeros(1)


@dataclass
class Fields:
    """A batch with names."""

    x: Any
    labels: Any


class Linear(nn.Module):
    """A linear model whose outputs are changed."""

    def __init__(self, change: Callable[[Tensor], Any] = lambda z: z) -> None:
        super().__init__()
        self.linear, self.change = nn.Linear(P, 1), change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.linear(x))


class Losing(nn.Module):
    """A model that returns its loss, changed."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear, self.change = nn.Linear(P, 1), change

    def forward(self, x: Tensor, labels: Tensor) -> Any:
        return self.change((self.linear(x) - labels).square().mean())


def fails(z: Tensor) -> Tensor:
    raise RuntimeError("not written yet")


def nan(part: tuple[Tensor, Tensor], of: int) -> tuple[Tensor, Tensor]:
    part[of].view(-1)[3] = torch.nan
    return part


def diverged() -> nn.Module:
    module = nn.Linear(P, 1)
    with torch.no_grad():
        module.weight.fill_(torch.nan)
    return module


def drawing(w: Tensor, penalty: Tensor) -> Tensor:
    return (X @ w - Y + torch.randn(N, 1, dtype=torch.float64)).square().mean() + penalty * w.square().sum()


ONE_HOT = functional.one_hot(torch.arange(N) % K)
POOLING = nn.Sequential(nn.AdaptiveAvgPool1d(P), nn.Linear(P, 1))
OPTIMIZER = torch.optim.SGD([torch.ones(1, requires_grad=True)], 0.1)
BINARY = {"train": (X, torch.ones(N, 1)), "dev": (X_DEV, torch.ones(N, 1))}

MISTAKES: dict[str, tuple[Callable[[], Any], tuple[str, str, str]]] = {
    # the columns: what is done; the part or setting, what was expected and met, what to do
    # --- data
    "too wide": (
        lambda: tuned(train=data(p=P + 1)),
        ("train part", r"in_features=5.*got \(8, 6\) float64", "Give inputs as this layer expects"),
    ),
    "dev too wide": (
        lambda: tuned(dev=data(p=P + 1)),
        ("dev part", r"in_features=5.*got \(8, 6\) float64", "Give inputs as this layer expects"),
    ),
    "test too wide": (
        lambda: tuned(test=data(p=P + 1)),
        ("test part", r"in_features=5.*got \(8, 6\) float64", "Give inputs as this layer expects"),
    ),
    "integers for a linear layer": (
        lambda: tuned(train=(X.long(), Y)),
        ("train part", r"got \(8, 5\) int64", "Give inputs as this layer expects"),
    ),
    "X and y swapped": (
        lambda: tuned(train=(Y, X)),
        ("train part", r"in_features=5.*got \(8, 1\) float64", "Give inputs as this layer expects"),
    ),
    "fewer targets": (
        lambda: tuned(train=(X, Y[:-1])),
        ("train part", r"as many inputs as targets, but X .*\(12, 5\) and y .*\(11, 1\)", "first axis must count"),
    ),
    "one example": (
        lambda: tuned(train=(X[0], Y[0])),
        ("train part", r"as many inputs as targets, but X .*\(5,\) and y .*\(1,\)", r"X\[None\]"),
    ),
    "no examples": (lambda: tuned(train=data(n=0)), ("train part", "0 examples, .* at least 1", "Look at the file")),
    "empty dev": (lambda: tuned(dev=data(n=0)), ("dev part", "0 examples, .* at least 1", "Look at the file")),
    "an iterator at its end": (lambda: tuned(train=iter([])), ("train part", "0 examples", "a DataLoader")),
    "an empty data set": (
        lambda: tuned(train=TensorDataset(X[:0], Y[:0])),
        ("train part", "0 examples, .* at least 1", "Look at the file"),
    ),
    "NaN in X": (lambda: tuned(train=nan(data(), 0)), ("X of the train part", "1 of 60 values", "drop or impute")),
    "NaN in y of dev": (lambda: tuned(dev=nan(data(), 1)), ("y of the dev part", "1 of 12 values", "drop or impute")),
    "three tensors": (lambda: tuned(train=[X, Y, X]), ("train part", "pair .* a list of 3", "Several inputs are")),
    "only X": (lambda: tuned(train=X), ("train part", "pair .* it is a Tensor", "Several inputs are")),
    "a path": (lambda: tuned(train="train.csv"), ("train part", "pair .* it is a str", "must be a pair")),
    "None": (lambda: tuned(dev=None), ("dev part", "pair .* a NoneType", "must be a pair")),
    "a number": (lambda: tuned(dev=3), ("dev part", "pair .* a int", "must be a pair")),
    "strings": (
        lambda: tuned(train=(np.array([["a"] * P] * N), Y)),
        ("X of the train part", "numbers, but its dtype is <U1", "convert it"),
    ),
    "objects": (
        lambda: tuned(train=(np.array([[object()] * P] * N), Y)),
        ("X of the train part", "numbers, but its dtype is object", "convert it"),
    ),
    "text as targets": (
        lambda: tuned(train=(X, ["cat"] * N)),
        ("y of the train part", "numbers, but its dtype is <U3, such as .'cat'", "convert it"),
    ),
    "rows of several lengths": (
        lambda: tuned(train=([[1.0, 2.0], [1.0]], [1.0, 2.0])),
        ("X of the train part", "as many entries in each row", "must be a tensor, an array"),
    ),
    "sparse": (
        lambda: tuned(train=(X.to_sparse(), Y)),
        ("X of the train part", "dense, .* a sparse_coo tensor", r"convert it by X.to_dense\(\), or choose hg.Lasso"),
    ),
    "a list of examples": (
        lambda: tuned(train=list(zip(X, Y, strict=True))),
        ("train part", "batches .* single examples, whose targets have 1 entries beside inputs with 5", "DataLoader"),
    ),
    "a stream of examples": (
        lambda: tuned(train=Scalars()),
        ("train part", "batches .* single examples, whose targets are numbers", "wrap it: torch.utils.data.DataLoader"),
    ),
    "an example that fails": (
        lambda: tuned(train=Broken()),
        ("of the train part", "reading example 7 of 12", "file 7 is missing"),
    ),
    "ragged examples": (
        lambda: tuned(train=Ragged()),
        ("train part", r"same shape, .*\[5\] at entry 0 and \[6\] at entry 1", "pad them"),
    ),
    "batches of several widths": (
        lambda: tuned(train=[(X, Y), data(p=P + 1)]),
        ("train part", r"same shape .*\(12, 5\) float64 in one and \(12, 6\)", "pad all examples"),
    ),
    "a data set without targets": (
        lambda: tuned(train=TensorDataset(X)),
        ("train part", r"pairs \(x, y\).* a tuple of 1: Tensor", "'labels'"),
    ),
    "dev is train": (lambda: tuned(dev=(X, Y)), ("dev examples", "12 of the 12", "lower than on unseen examples")),
    # --- DataFrames, dicts and dataclasses
    "a column of text": (
        lambda: framed(lambda X, y: (X.assign(c1="red"), y)),
        ("X of the train part", "columns of numbers, but 'c1' is", "drop them, or .*get_dummies"),
    ),
    "a column of dates": (
        lambda: framed(lambda X, y: (X.assign(c2=frames().Timestamp("2020-01-01")), y), "dev"),
        ("X of the dev part", "columns of numbers, but 'c2' is datetime64", "drop them, or .*get_dummies"),
    ),
    "missing values": (
        lambda: framed(lambda X, y: (X.mask(X > 1e9).replace({X.iloc[3, 1]: np.nan}), y)),
        ("X of the train part", "1 of 60 values that are NaN", "drop or impute"),
    ),
    "missing targets": (
        lambda: framed(lambda X, y: (X, y.astype("Float64").where(y.index != 4)), "dev"),
        ("y of the dev part", "1 of 12 values that are NaN", "drop or impute"),
    ),
    "other columns in dev": (
        lambda: framed(lambda X, y: (X.rename(columns={"c1": "age"}), y), "dev"),
        ("dev part", "columns of the train part .* lacks 'c1' and has 'age'", "select them by"),
    ),
    "columns in another order": (
        lambda: framed(lambda X, y: (X[X.columns[::-1]], y), "dev"),
        ("dev part", "same order, .* in another order", "select them by"),
    ),
    "rows in another order": (
        lambda: framed(lambda X, y: (X, y.iloc[::-1])),
        ("X and y of the train part", "same row labels .* indices differ", r"align them by y = y.loc\[X.index\]"),
    ),
    "classes as text": (
        lambda: framed(lambda X, y: (X, frames().Series(["cat"] * N))),
        ("y of the train part", "numbers, but its dtype is", "give codes from 0"),
    ),
    "the name of the target": (
        lambda: framed(lambda X, y: (X, "price")),
        ("y of the train part", "numbers, but its dtype is <U5, such as .'price'", "convert it"),
    ),
    "a DataFrame alone": (
        lambda: framed(lambda X, y: X.assign(price=y)),
        ("train part", "pair .* a DataFrame", "must be a pair"),
    ),
    "targets under another name": (
        lambda: named({"x": X, "y": Y}),
        ("train part", "under 'labels', .* 'x', 'y'", "rename the targets"),
    ),
    "no inputs": (lambda: named({"labels": Y}), ("train part", "inputs and targets, .* 'labels'", "give a pair")),
    "an argument that the model lacks": (
        lambda: named({"z": X, "labels": Y}, dev={"z": X_DEV, "labels": Y_DEV}),
        ("train part", r"accept .* z \(8, 5\) .* unexpected keyword argument 'z'", "Give inputs as"),
    ),
    "another name in dev": (
        lambda: named({"x": X, "labels": Y}, dev={"z": X_DEV, "labels": Y_DEV}),
        ("dev part", r"same inputs as the train part, but it has z .* and train has x", "by the same names"),
    ),
    "a pair in dev": (
        lambda: named({"x": X, "labels": Y}, dev=(X_DEV, Y_DEV)),
        ("dev part", r"same inputs .* has \(12, 5\) float64, and train has x", "by the same names"),
    ),
    "entries of several lengths": (
        lambda: named({"x": X[1:], "labels": Y}),
        ("train part", r"as many inputs as targets, but X\[x\] .*\(11, 5\) and y .*\(12, 1\)", "first axis must count"),
    ),
    "text in a dict": (
        lambda: named({"x": ["a b"] * N, "labels": Y}),
        (r"X\['x'\] of the train part", "numbers, but its dtype is <U3", "convert it"),
    ),
    "a dataclass without targets": (
        lambda: named(Fields(X, None)),
        ("train part", "under 'labels', but its entries are 'x'", "rename the targets"),
    ),
    "a dataclass of lists": (
        lambda: named(Fields([[1.0], [1.0, 2.0]], [1.0, 2.0])),
        (r"X\['x'\] of the train part", "as many entries in each row", "must be a tensor, an array"),
    ),
    "a dataclass itself": (lambda: named(Fields), ("train part", "pair .* a type", "must be a pair")),
    "no loss for a pair": (
        lambda: tuned(loss=None),
        ("train, dev", r"dicts .*\(8, 5\) float64", "give dicts, or a loss"),
    ),
    # --- targets
    "targets with another axis in dev": (
        lambda: tuned(dev=(X_DEV, Y_DEV[:, 0])),
        ("targets of the dev part", r"as many axes .*\(12,\), .*\(12, 1\)", r"y.squeeze\(1\)"),
    ),
    "two columns of targets": (
        lambda: tuned(train=(X, torch.randn(N, 2))),
        ("targets of the train part", r"outputs are \(12, 1\), .*\(12, 2\)", "Change the targets"),
    ),
    "images for a table": (
        lambda: tuned(train=(torch.randn(N, 2, P, P), torch.randn(N, 1))),
        ("targets of the train part", r"outputs are \(12, 2, 5, 1\), .*\(12, 1\)", "Change the targets"),
    ),
    "class too large": (
        lambda: classified(train=(X, torch.arange(N))),
        ("targets of the train part", "from 0 to 2, .* 3 outputs, but 9 of 12 .* such as 3", "Number the classes"),
    ),
    "class below zero": (
        lambda: classified(train=(X, -torch.ones(N, dtype=torch.long))),
        ("targets of the train part", "from 0 to 2, .* but 12 of 12 .* such as -1", "Number the classes"),
    ),
    "class too large in dev": (
        lambda: classified(dev=(X_DEV, torch.full((N,), K))),
        ("targets of the dev part", "from 0 to 2, .* but 12 of 12 .* such as 3", "Number the classes"),
    ),
    "float labels": (
        lambda: classified(train=(X, torch.arange(N).double() % K)),
        ("targets of the train part", r"integers, one class .*\(12,\) of torch.float64", r"y.long\(\)"),
    ),
    "one-hot integers": (
        lambda: classified(train=(X, ONE_HOT), dev=(X_DEV, ONE_HOT)),
        ("targets of the train part", r"\(n, …\) for outputs .*\(12, 3\) of torch.int64", "Change the targets"),
    ),
    "probabilities below zero": (
        lambda: classified(train=(X, ONE_HOT - 0.5), dev=(X_DEV, ONE_HOT.double())),
        ("targets of the train part", "at least 0 for this loss, but 24 of 36 .* such as -0.5", "convert them"),
    ),
    "outputs that are no probabilities": (
        lambda: tuned(loss=functional.binary_cross_entropy, **BINARY),
        ("train part", r"outputs of shape \(8, 1\) and targets .*between 0 and 1", "Choose a loss, a last layer"),
    ),
    "binary labels of 1 and 2": (
        lambda: tuned(loss=nn.BCEWithLogitsLoss(), **BINARY | {"train": (X, torch.full((N, 1), 2.0))}),
        ("targets of the train part", "from 0 to 1 for this loss, but 12 of 12 .* such as 2", "convert them"),
    ),
    "binary labels of -1 and 1 in dev": (
        lambda: tuned(loss=functional.binary_cross_entropy_with_logits, **BINARY | {"dev": (X_DEV, Y_DEV.sign())}),
        ("targets of the dev part", r"from 0 to 1 for this loss, but \d of 12 .* such as -1", "convert them"),
    ),
    "signs of 0 and 1": (
        lambda: tuned(loss=nn.SoftMarginLoss(), **BINARY | {"train": (X, torch.zeros(N, 1))}),
        ("targets of the train part", "-1 or 1 for this loss, but 12 of 12 .* such as 0", "convert them"),
    ),
    "counts below zero": (
        lambda: tuned(loss=nn.PoissonNLLLoss(), train=(X, -torch.ones(N, 1)), dev=(X_DEV, torch.ones(N, 1))),
        ("targets of the train part", "at least 0 for this loss, but 12 of 12 .* such as -1", "convert them"),
    ),
    "complex targets": (
        lambda: tuned(train=(X, torch.ones(N, 1, dtype=torch.complex64))),
        ("targets of the train part", "real numbers .* torch.complex64", "torch.view_as_real"),
    ),
    # --- model
    "model and loss swapped": (
        lambda: tuned(model=functional.mse_loss, loss=nn.Linear(P, 1)),
        ("The model", "torch.nn.Module .* the loss mse_loss", "swapped"),
    ),
    "a class instead of a module": (
        lambda: tuned(model=nn.Linear),
        ("The model", "torch.nn.Module, but it is the class Linear", r"such as Linear\(…\)"),
    ),
    "a function instead of a module": (
        lambda: tuned(model=lambda x: x),
        ("The model", "torch.nn.Module, but .* of function", "Write a class derived from torch.nn.Module"),
    ),
    "nothing to train": (
        lambda: tuned(model=nn.Linear(P, 1).requires_grad_(False)),
        ("The model", "none of the 2 parameters of this Linear", r"requires_grad_\(True\)"),
    ),
    "no parameters": (
        lambda: tuned(model=nn.Tanh()),
        ("The model", "none of the 0 parameters of this Tanh", r"requires_grad_\(True\)"),
    ),
    "returns nothing": (
        lambda: tuned(model=Linear(lambda z: None)),
        ("Linear must return", "a tensor .* a NoneType", "wrap it in a module"),
    ),
    "returns no gradient": (
        lambda: tuned(model=Linear(Tensor.detach)),
        (
            "Linear must return",
            r"depends on its trained parameters, .*\(8, 1\) .* no gradient",
            r"Leave out detach\(\)",
        ),
    ),
    "returns classes": (
        lambda: tuned(model=Linear(lambda z: z.argmax(1).double()), probe=False),
        ("Linear must return", r"depends on its trained parameters, .*\(8,\) .* no gradient", "argmax"),
    ),
    "returns a loss without a gradient": (
        lambda: named({"x": X, "labels": Y}, model=Losing(lambda g: {"loss": g.detach()}), loss=None),
        ("Losing must return", r"depends on its trained parameters, .*\(\) .* no gradient", r"Leave out detach\(\)"),
    ),
    "returns no loss": (
        lambda: named({"x": X, "labels": Y}, model=Losing(lambda g: {"value": g}), loss=None),
        ("Losing must return", "a tensor `loss` .* a dict with value", "give hg.Supervised the loss"),
    ),
    "raises": (
        lambda: tuned(model=Linear(fails)),
        ("The model .* train part", "Linear, which got .* not written yet", "change the layer"),
    ),
    "weights that are NaN": (
        lambda: tuned(model=diverged()),
        ("The model, a Linear, has 'weight'", "5 of 5 values are NaN", "Initialise it"),
    ),
    "lazy": (
        lambda: tuned(model=nn.LazyLinear(1)),
        ("a LazyLinear, has 'weight'", "no shape yet", "Call the model once"),
    ),
    "half precision": (
        lambda: tuned(model=nn.Linear(P, 1).half()),
        ("a Linear, has 'weight'", "torch.float16, .* expected torch.float32", r"Call float\(\)"),
    ),
    "complex": (
        lambda: tuned(model=nn.Linear(P, 1, dtype=torch.complex64)),
        ("a Linear, has 'weight'", "complex64.*real numbers", "torch.view_as_real"),
    ),
    "on meta": (
        lambda: tuned(model=nn.Linear(P, 1, device="meta")),
        ("a Linear, has 'weight'", "no values, .* device meta", "to_empty"),
    ),
    "DataParallel": (
        lambda: tuned(model=nn.DataParallel(nn.Linear(P, 1))),
        ("The model, a DataParallel", "one function on one device", "Pass the module inside"),
    ),
    "random outside torch": (
        lambda: tuned(model=Linear(lambda z: z + np.random.rand())),
        ("Linear must return", "torch's random numbers .* two calls differ", "Leave out random numbers"),
    ),
    # --- loss
    "a name": (lambda: tuned(loss="mse"), ("The loss", "a function .* 'mse'", r"such as nn.CrossEntropyLoss\(\)")),
    "a class of loss": (
        lambda: tuned(loss=nn.MSELoss),
        ("The loss", "a function .*MSELoss", r"such as nn.CrossEntropyLoss\(\)"),
    ),
    "returns a number": (
        lambda: tuned(loss=lambda z, y: 1.0),
        ("The loss .* train part", "return a tensor, .* 1.0 of float", "Choose a loss"),
    ),
    "one argument": (
        lambda: tuned(loss=lambda z: z.mean()),
        ("The loss .* train part", "1 positional argument but 2", "Choose a loss"),
    ),
    "detached": (
        lambda: tuned(loss=lambda z, y: (z - y).square().mean().detach()),
        ("The loss", "differentiable .* no gradient", "Leave that out"),
    ),
    "accuracy": (
        lambda: classified(loss=lambda z, y: (z.argmax(1) != y).double().mean()),
        ("The loss", "differentiable .* no gradient", "an accuracy is a metric"),
    ),
    "NaN loss": (
        lambda: tuned(loss=lambda z, y: (z * torch.inf - z * torch.inf).mean()),
        ("Before any training the inner loss", "nan .* l2 = 0.1", "Look for NaN"),
    ),
    "three inputs": (
        lambda: tuned(loss=nn.TripletMarginLoss()),
        ("A loss", "outputs and targets, but TripletMarginLoss is one of three", "Let the model return"),
    ),
    "a loss that is trained": (
        lambda: tuned(loss=nn.Sequential(nn.Linear(1, 1))),
        ("the loss has", "Only parameters of the model .* '0.weight'", "Make it a part of the model"),
    ),
    # --- hyperparameters
    "no hyperparameters": (
        lambda: fitted(problem=problem(hyperparameters={})),
        ("Supervised", "no hyperparameters", r"Give it at least one, such as \{'l2'"),
    ),
    "None for hyperparameters": (
        lambda: tuned(hyperparameters=None),
        ("hyperparameters", "a dict .* a NoneType", "give each effect a name"),
    ),
    "a list": (
        lambda: tuned(hyperparameters=[hg.L2(init=0.1)]),
        ("hyperparameters", "a dict .* a list", "give each effect a name"),
    ),
    "a number as a name": (
        lambda: tuned(hyperparameters={1: hg.L2(init=0.1)}),
        ("hyperparameters", "strings as names, .* 1 of int", r"write str\(name\)"),
    ),
    "a number for an effect": (
        lambda: tuned(hyperparameters={"l2": 0.1}),
        (r"hyperparameters\['l2'\]", "an effect, .* a float", r"such as hg.L2\(init=0.01\)"),
    ),
    "a class for an effect": (
        lambda: tuned(hyperparameters={"l2": hg.L2}),
        (r"hyperparameters\['l2'\]", "an effect, .* the class L2", r"call it: L2\(…\)"),
    ),
    "a negative penalty": (
        lambda: tuned(hyperparameters={"l2": hg.L2(init=-1.0)}),
        (
            r"hyperparameters\['l2'\], L2",
            r"init = -1 violates .*GreaterThan\(lower_bound=0",
            "start from a value inside",
        ),
    ),
    "a zero penalty": (
        lambda: tuned(hyperparameters={"l2": hg.L2(init=0.0)}),
        (
            r"hyperparameters\['l2'\], L2",
            r"init = 0 violates .*GreaterThan\(lower_bound=0",
            "start from a value inside",
        ),
    ),
    "a penalty that is NaN": (
        lambda: tuned(hyperparameters={"l2": hg.L2(init=float("nan"))}),
        (r"hyperparameters\['l2'\], L2", "a finite value, but init is nan", "choose one"),
    ),
    "a penalty as text": (
        lambda: tuned(hyperparameters={"l2": hg.L2(init="0.1")}),  # type: ignore[arg-type]
        (r"hyperparameters\['l2'\], L2", "a number or a tensor, .* '0.1' of str", "write a real number"),
    ),
    "smoothing of zero": (
        lambda: classified(hyperparameters={"s": hg.LabelSmoothing(init=0.0)}),
        ("LabelSmoothing.init", "it is 0", "must be greater than 0"),
    ),
    "smoothing of two": (
        lambda: classified(hyperparameters={"s": hg.LabelSmoothing(init=2.0)}),
        ("LabelSmoothing.init", "it is 2", "must be below 1"),
    ),
    "smoothing for regression": (
        lambda: tuned(hyperparameters={"s": hg.LabelSmoothing()}),
        (
            r"hyperparameters\['s'\], LabelSmoothing",
            "classes, .* train targets are none",
            r"convert them by y.long\(\)",
        ),
    ),
    "weights of classes for regression": (
        lambda: tuned(hyperparameters={"c": hg.ClassWeights()}),
        (r"hyperparameters\['c'\], ClassWeights", "classes, .* train targets are none", r"convert them by y.long\(\)"),
    ),
    "no such parameter": (
        lambda: tuned(hyperparameters={"l2": hg.L2(init=0.1, on="conv*")}),
        (r"hyperparameters\['l2'\], L2", r"on = 'conv\*' matches none", "which are weight, bias"),
    ),
    "no such part": (
        lambda: tuned(hyperparameters={"l2": hg.L2(init=0.1, per="layer")}),
        ("L2.per", "it is 'layer'", "must be one of all, tensor"),
    ),
    "layers of several widths": (
        lambda: tuned(
            model=nn.Sequential(nn.Linear(P, 2), nn.Linear(2, 1)),
            hyperparameters={"l2": hg.L2(init=0.1, per="feature", on="*.weight")},
        ),
        (r"hyperparameters\['l2'\], L2", r"the same p, but 0.weight is \(2, 5\)", "choose others by `on`"),
    ),
    "maps of images for a table": (
        lambda: tuned(hyperparameters={"a": hg.RandomAffine()}),
        (r"hyperparameters\['a'\], RandomAffine", r"\(n, side²\) .*\(12, 5\)", "reshape and convert"),
    ),
    "no such buffer": (
        lambda: tuned(hyperparameters={"b": hg.Buffer(name="temperature")}),
        (r"hyperparameters\['b'\], Buffer", "'temperature', and the model has none", "use register_buffer"),
    ),
    "unused": (
        lambda: tuned(hyperparameters={"rate": hg.Hyperparameter(0.1)}),
        ("hyperparameter 'rate'", "must name, but those of Watched are lr = 0.1", "Write, for example, lr='rate'"),
    ),
    "unused by an implicit estimate": (
        lambda: tuned(hg.Implicit(solver=Watched(lr=0.1)), hyperparameters={"rate": hg.Hyperparameter(0.1)}),
        ("hyperparameter 'rate'", "must name, but those of Watched are lr = 0.1", "or choose an effect"),
    ),
    "a hyperparameter as text": (
        lambda: hg.Hyperparameter("0.1"),  # type: ignore[arg-type]
        ("init", "a number or a tensor, .* '0.1' of str", "write a real number"),
    ),
    "a hyperparameter as a list": (
        lambda: hg.Hyperparameter([0.1, 0.2]),  # type: ignore[arg-type]
        ("init", r"a number or a tensor, .*\[0.1, 0.2\] of list", "or torch.tensor"),
    ),
    "a hyperparameter on its boundary": (
        lambda: hg.Hyperparameter(0.0, constraint=hg.interval(0.0, 1.0)),
        ("init = 0", "on the boundary .*upper_bound=1.0", "strictly inside"),
    ),
    "a constraint as text": (
        lambda: hg.Hyperparameter(1.0, constraint="positive"),  # type: ignore[arg-type]
        ("A constraint", "one of torch.distributions.constraints, .* 'positive' of str", "choose hg.positive"),
    ),
    "another shape": (
        lambda: hg.Hyperparameter(torch.ones(3), shape=(2,)),
        ("A hyperparameter", r"of shape \(2,\) .* init has shape \(3,\)", "leave out the shape"),
    ),
    "labels of another number": (
        lambda: hg.Hyperparameter(torch.ones(3), labels=("a",)),
        ("A hyperparameter", r"of shape \(3,\) needs one label .* it has 1", "or none"),
    ),
    # --- settings
    "batch of zero": (lambda: tuned(batch_size=0), ("Supervised.batch_size", "it is 0", "must be at least 1")),
    "batch of half": (lambda: tuned(batch_size=0.5), ("Supervised.batch_size", "it is 0.5", "must be an integer")),
    "batch as text": (lambda: tuned(batch_size="8"), ("Supervised.batch_size", "it is '8'", "must be an integer")),
    "drop_last as a number": (lambda: tuned(drop_last=1), ("Supervised.drop_last", "it is 1 of", "must be a bool")),
    "seed as text": (lambda: tuned(seed="0"), ("Supervised.seed", "an integer, .* '0' of type str", "choose any")),
    "probe as text": (lambda: tuned(probe="no"), ("Supervised.probe", "it is 'no'", "must be True or False")),
    "no rate of that name": (
        lambda: tuned(hg.Unrolled(solver=Watched(lr="rate"), inner_steps=2)),
        ("Watched.lr = 'rate'", "neither a number nor the name of a hyperparameter", "the problem has l2"),
    ),
    "a schedule longer than the run": (
        lambda: tuned(hg.Unrolled(solver=Watched(lr=hg.Cosine(base=0.1, steps=9)), inner_steps=2)),
        ("Watched.lr", "9 steps, but training has 2", "raise inner_steps to 9"),
    ),
    "steps below zero": (lambda: hg.Unrolled(inner_steps=-1), ("Unrolled.inner_steps", "it is -1", "at least 1")),
    "steps as text": (
        lambda: hg.Unrolled(inner_steps="10"),  # type: ignore[arg-type]
        ("Unrolled.inner_steps", "it is '10'", "must be an integer"),
    ),
    "a horizon beyond the run": (
        lambda: hg.Unrolled(inner_steps=5, horizon=6),
        ("Unrolled.horizon", "it is 6", "must be at most inner_steps = 5"),
    ),
    "a solver by name": (
        lambda: hg.Unrolled(solver="adam"),  # type: ignore[arg-type]
        ("Unrolled.solver", "an InnerSolver, but it is 'adam'", "give an object"),
    ),
    "a class of solver": (
        lambda: hg.Unrolled(solver=hg.Adam),  # type: ignore[arg-type]
        ("Unrolled.solver", "an InnerSolver, but it is the class Adam", r"call it: Adam\(…\)"),
    ),
    "a tape by name": (
        lambda: hg.Unrolled(tape="store"),  # type: ignore[arg-type]
        ("Unrolled.tape", "a Tape, but it is 'store'", "give an object"),
    ),
    "a rate below zero": (
        lambda: hg.Unrolled(solver=hg.GradientDescent(lr=-1.0)),
        ("GradientDescent.lr", "it is -1", "must be greater than 0"),
    ),
    "a linear solver by name": (
        lambda: hg.Implicit(linsolve="cg"),  # type: ignore[arg-type]
        ("Implicit.linsolve", "a LinearSolver, but it is 'cg'", "give an object"),
    ),
    "a linear solver as product": (
        lambda: hg.Implicit(product=hg.CG()),  # type: ignore[arg-type]
        ("Implicit.product", "it is CG", "must be a Product"),
    ),
    "damping below zero": (lambda: hg.Implicit(damping=-1.0), ("Implicit.damping", "it is -1", "must be at least 0")),
    "no such tightening": (
        lambda: hg.Implicit(tighten="fast"),
        ("Implicit.tighten", "it is 'fast'", "one of exponential"),
    ),
    # --- hg.fit
    "an optimizer, not a maker": (
        lambda: fitted(OPTIMIZER),
        ("Trainer.optimizer", "make an optimiser .* of SGD", "such as functools.partial"),
    ),
    "an optimizer by name": (
        lambda: fitted("adam"),
        ("Trainer.optimizer", "make an optimiser .* 'adam' of str", "such as functools.partial"),
    ),
    "an optimizer of nothing": (
        lambda: fitted(lambda u: None),
        ("Trainer.optimizer", "torch.optim.Optimizer, but it made None", "functools.partial"),
    ),
    "an outer rate below zero": (
        lambda: fitted(partial(torch.optim.Adam, lr=-1.0)),
        ("Trainer.optimizer made an optimiser", "Invalid learning rate: -1.0", "of the hyperparameters"),
    ),
    "a scheduler of nothing": (
        lambda: fitted(scheduler=lambda optimizer: None),
        ("Trainer.scheduler", "a scheduler .* made None", "give a class"),
    ),
    "a problem that is a module": (
        lambda: fitted(problem=nn.Linear(P, 1)),
        ("Trainer.problem", "it is Linear", "must be an InnerProblem"),
    ),
    "an estimator that is a solver": (
        lambda: fitted(estimator=hg.CG()),
        ("Trainer.estimator", "it is CG", "must be a HypergradEstimator"),
    ),
    "patience as text": (lambda: fitted(patience="3"), ("Trainer.patience", "it is '3'", "must be an integer")),
    "half a step": (lambda: fitted(steps=0.5), ("Trainer.outer_steps", "it is 0.5", "must be an integer")),
    "a setting of nothing": (
        lambda: fitted(epochs=3),
        ("hg.Trainer, which are .*patience", "it got 'epochs'", "rename or leave out"),
    ),
    "callbacks that are none": (
        lambda: fitted(callbacks=[print]),
        ("callbacks", "a list of callbacks, .* holds <built-in", "derived from hg.Callback"),
    ),
    "one callback": (lambda: fitted(callbacks=3), ("callbacks", "a list of callbacks, .* is 3", "give a list")),
    "a monitor of nothing": (
        lambda: fitted(monitor="accuracy"),
        ("monitor", "it is 'accuracy'", "must be outer_loss or a metric"),
    ),
    "a monitor of test": (
        lambda: fitted(problem=problem(test=data(seed=2)), monitor="test_loss"),
        ("monitor is 'test_loss'", "can no longer test", "leave monitor at outer_loss"),
    ),
    "a number as folder": (
        lambda: fitted(folder=3),
        ("folder", "path of a folder, .* 3 of int", "such as 'runs/first'"),
    ),
    "a file as folder": (
        lambda: fitted(folder=Path(__file__)),
        ("folder", "path of a folder, but .*test_mistakes.py is a file", "choose another path"),
    ),
    "retraining on examples of two widths": (
        lambda: fitted(problem=problem(model=POOLING, dev=data(p=P + 2)), retrain=True),
        ("Train and dev", r"\(12, 5\) in train and \(12, 7\) in dev", "pad them"),
    ),
    # --- hg.hypergradient
    "integers as parameters": (
        lambda: lent(params=torch.zeros(P, 1, dtype=torch.long)),
        ("params", "floating-point tensors, .* torch.int64", "keep what is not differentiated"),
    ),
    "parameters as an iterator": (
        lambda: lent(params=nn.Linear(P, 1).parameters()),
        ("params", "a tensor, a list .* a generator", "read it into a list"),
    ),
    "parameters as a class": (
        lambda: lent(params=nn.Linear),
        ("params", "a tensor, a list .* the class Linear", "make an object of it"),
    ),
    "no parameters at all": (lambda: lent(params=[]), ("params", "at least 1 tensor, but it holds 0", "give those")),
    "parameters that diverged": (
        lambda: lent(params=torch.full((P, 1), torch.nan)),
        ("params", "finite numbers, .* 5 of 5", "look for a training that diverged"),
    ),
    "text as hyperparameters": (
        lambda: lent(hparams="0.1"),
        ("hparams", "a tensor, a list .* a str", r"write torch.tensor\(…\)"),
    ),
    "a module that is frozen": (
        lambda: lent(params=nn.Linear(P, 1).requires_grad_(False)),
        ("params", "none of the 2 parameters of this Linear", r"call requires_grad_\(\)"),
    ),
    "the value of a loss": (
        lambda: lent(inner_loss=Y.mean()),
        ("inner_loss", "a function .* a Tensor", "give the function, and not its value"),
    ),
    "a loss of one argument": (
        lambda: lent(outer_loss=lambda w: w.sum()),
        (r"calling outer_loss\(params, hparams\)", "takes 1 positional argument", "but 2 were given"),
    ),
    "a loss for each example": (
        lambda: lent(inner_loss=lambda w, penalty: (X @ w - Y).square() + penalty),
        ("inner_loss", r"shape \(\), .*\(12, 1\)", "take its mean or sum"),
    ),
    "a loss that ignores the parameters": (
        lambda: lent(inner_loss=lambda w, penalty: penalty * Y.mean()),
        ("inner_loss", "depends on none of params", r"without detach\(\)"),
    ),
    "a loss that draws": (
        lambda: lent(inner_loss=drawing),
        ("inner_loss", "the same value at each call .* two calls gave", "give batches="),
    ),
    "a loss without the hyperparameter": (
        lambda: lent(inner_loss=lambda w, penalty: (X @ w - Y).square().mean()),
        ("hyperparameter 'hparams'", "neither the gradient of the inner loss nor", "use Unrolled"),
    ),
    "no batches": (lambda: lent(batches=[]), ("batches", "at least 1 batch, but it holds 0", "read only once")),
    "the size of batches": (lambda: lent(batches=32), ("batches", "an iterable .* a int", "setting of the DataLoader")),
    "Gauss-Newton without outputs": (
        lambda: lent(product=hg.GaussNewton()),
        ("hypergradient", "no outputs of a model, which GaussNewton needs", "use product=Reverse"),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_answered_before_training_starts(name: str) -> None:
    make, words = MISTAKES[name]
    kinds = (ValueError, TypeError, UserWarning, OSError, hg.HypergradError)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(kinds) as caught:
            make()
    message = " ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    missed = [word for word in words if not re.search(word, message, re.DOTALL)]
    assert not missed, f"{missed} in: {message}"
    ours = str(caught.traceback[-1].path).replace("\\", "/").rpartition("/hypergrad/")[1]
    assert ours or hasattr(caught.value, "__notes__"), f"raised in {caught.traceback[-1].path}: {message}"


def test_there_are_at_least_sixty() -> None:
    assert len(MISTAKES) >= 60
