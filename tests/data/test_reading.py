"""Arrays as users hold them: numpy, pandas, lists; what is read, and what is refused by name."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import hypergrad as hg
from hypergrad.data.random_state import random_state
from hypergrad.data.source import read

NUMBERS = np.random.default_rng(0).normal(size=(8, 3))
LABELS = np.arange(8) % 2


def read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


ARRAYS = {
    "float32": NUMBERS.astype(np.float32),
    "float16": NUMBERS.astype(np.float16),
    "long double": NUMBERS.astype(np.longdouble),
    "big endian": NUMBERS.astype(">f8"),
    "negative strides": NUMBERS[::-1].copy()[::-1],
    "columns first": np.asfortranarray(NUMBERS),
    "read only": read_only(NUMBERS.copy()),
    "lists": NUMBERS.tolist(),
    "frame": pd.DataFrame(NUMBERS),
    "nullable frame": pd.DataFrame(NUMBERS).convert_dtypes(),
}


@pytest.mark.parametrize("X", ARRAYS.values(), ids=ARRAYS)
def test_numbers_of_every_kind_are_read(X):
    part = read((X, LABELS), "train")
    assert torch.allclose(part.X.double(), torch.tensor(NUMBERS), atol=1e-3 if part.X.dtype == torch.float16 else 1e-6)


KINDS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", ">i4")
TARGETS = {
    **{kind: LABELS.astype(kind) for kind in KINDS},
    "torch uint16": torch.tensor(LABELS).to(torch.uint16),
    "torch int32": torch.tensor(LABELS).int(),
    "list": LABELS.tolist(),
    "list of tensors": list(torch.tensor(LABELS)),
    "series": pd.Series(LABELS),
    "nullable series": pd.Series(LABELS, dtype="Int16"),
    "one column": pd.DataFrame({"y": LABELS})["y"],
    "codes": pd.Series(["no", "yes"] * 4).astype("category").cat.codes,
}


@pytest.mark.parametrize("y", TARGETS.values(), ids=TARGETS)
def test_labels_of_every_integer_type_are_classes(y):
    problem = hg.Supervised(
        model=nn.Linear(3, 2).double(),
        loss=cross_entropy,
        train=(NUMBERS, y),
        dev=(NUMBERS + 1, y),
        hyperparameters={"l2": hg.L2(init=0.1)},
    )
    assert problem.y.tolist() == LABELS.tolist()
    assert problem.y.dtype == torch.int64
    assert problem.num_classes == 2


def test_nothing_that_the_user_holds_changes():
    X, y = read_only(NUMBERS.copy()), read_only(LABELS.copy())
    part = read((X, y), "train")
    part.X.add_(1)
    assert (X == NUMBERS).all()


def frame(shift: float = 0.0) -> pd.DataFrame:
    return pd.DataFrame(NUMBERS + shift, columns=["age", "height", "weight"], index=range(10, 18))


def target(shift: float = 0.0) -> pd.Series:
    return pd.Series(NUMBERS.sum(1) + shift, index=range(10, 18))


def on_frames(model: nn.Module | None = None, **settings: Any) -> hg.Supervised:
    usual: dict[str, Any] = {
        "model": model or nn.Linear(3, 1).double(),
        "loss": mse_loss,
        "train": (frame(), target()),
        "dev": (frame(0.5), target(0.1)),
        "hyperparameters": {"l2": hg.L2(init=0.1, per="feature", on="weight")},
    }
    return hg.Supervised(**usual | settings)


def test_columns_name_the_hyperparameters_of_features():
    names = ("age", "height", "weight")
    assert on_frames().hyperparameters()["l2"].labels == names
    scaled = on_frames(hyperparameters={"s": hg.InputScale(), "one": hg.L2(init=0.1)}).hyperparameters()
    assert scaled["s"].labels == names
    assert scaled["one"].labels == ()
    assert torch.equal(on_frames().X, torch.tensor(NUMBERS))
    splits = hg.Splits(*(hg.Split(frame(k), target(k)) for k in range(3)))  # pyright: ignore[reportArgumentType]
    for problem in (hg.Ridge(splits, per_feature=True), hg.Lasso(splits, l1=0.1, l2=0.1, per_feature=True)):
        assert all(space.labels == names for space in problem.hyperparameters().values())
    assert hg.Ridge(splits).hyperparameters()["l2"].labels == ()
    tensors = hg.Splits(*(hg.Split(*(torch.tensor(v.to_numpy()) for v in (frame(k), target(k)))) for k in range(3)))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    ours, theirs = (hg.Ridge(data, per_feature=True) for data in (splits, tensors))
    torch.set_default_dtype(before)
    at = ours.init_hparams()
    assert torch.allclose(ours.hypergradient(at)["l2"], theirs.hypergradient(at)["l2"], rtol=1e-12)


def test_columns_do_not_name_the_inputs_of_a_hidden_layer():
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    effects = {"first": hg.L2(init=0.1, per="feature", on="0.weight"), "last": hg.L2(per="feature", on="2.weight")}
    found = on_frames(model, hyperparameters=effects).hyperparameters()
    assert found["first"].labels == ("age", "height", "weight")
    assert found["last"].labels == ()


def test_sparse_linear_models_take_sparse_inputs_and_series():
    parts = hg.Splits(*(hg.Split(sparse.csr_matrix(NUMBERS + k), target(k)) for k in range(3)))  # pyright: ignore
    dense = hg.Splits(*(hg.Split(torch.tensor(NUMBERS + k), torch.tensor(target(k).to_numpy())) for k in range(3)))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    found, wanted = (hg.Lasso(data, l1=0.1) for data in (parts, dense))
    torch.set_default_dtype(before)
    w = {"weight": torch.ones(3, dtype=torch.float64)}
    assert found.outer_loss(w, {}, None).item() == pytest.approx(wanted.outer_loss(w, {}, None).item(), rel=1e-12)


class Scalars(IterableDataset):
    def __iter__(self):
        return iter(zip(torch.tensor(NUMBERS), [0.0] * 8, strict=True))


class Ragged(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[torch.Tensor, float]:
        return torch.zeros(3 + index), 0.0


def with_column(values: Any) -> pd.DataFrame:
    return frame().assign(city=values)


y = target()
REFUSED: dict[str, tuple[Any, str]] = {
    "text column": (
        (with_column(["a"] * 8), y),
        "X of the train part must have columns of numbers, but 'city' is .*dumm",
    ),
    "date": ((with_column(pd.Timestamp(0)), y), "columns of numbers, but 'city' is datetime64"),
    "category": (
        (with_column(pd.Categorical(list("aabbaabb"))), y),
        "'city' is category; drop them, or turn categories",
    ),
    "missing": ((frame().mask(frame() > 1), y), "X of the train part holds [0-9]+ of 24 values that are NaN"),
    "missing label": ((frame(), target().astype("Float64").mask(y > 0)), "y of the train part holds .* NaN"),
    "classes": (
        (NUMBERS, pd.Series(list("abababab"))),
        "y of the train part must hold numbers, but its dtype .* codes",
    ),
    "categories": (
        (NUMBERS, pd.Series(list("abababab"), dtype="category")),
        "its dtype is category; for classes, give co",
    ),
    "other rows": ((frame(), y.sort_index(ascending=False)), "X and y of the train part must have the same row labels"),
    "strings": ((np.array([["a"] * 3] * 8), y), "X of the train part must hold numbers, but its dtype is <U1"),
    "objects": ((np.array([[object()] * 3] * 8), y), "X of the train part must hold numbers, but its dtype is object"),
    "list of text": ((NUMBERS, list("abababab")), "y of the train part must hold numbers"),
    "ragged lists": (([[1.0, 2.0], [1.0]], [0, 1]), "X of the train part must be a tensor, an array or nested lists"),
    "sparse": (
        (torch.tensor(NUMBERS).to_sparse(), LABELS),
        "X of the train part must be dense, .*sparse_coo .*to_dense",
    ),
    "scipy": ((sparse.csr_matrix(NUMBERS), LABELS), "must be dense, .*csr_matrix; convert it by X.toarray"),
    "stream": (Scalars(), "train part must give batches .* single examples, .*DataLoader"),
    "examples": ([(torch.zeros(3), 1.0)] * 8, "train part must give batches .* single examples"),
    "ragged": (Ragged(), "examples of the train part must have the same shape, but .*collate_fn"),
    "no targets": (TensorDataset(torch.zeros(8, 3)), r"train part must give pairs \(x, y\), .* a tuple of 1: Tensor"),
    "three": ([NUMBERS, LABELS, LABELS], r"train part must be a pair .* a list of 3: ndarray.*hg.ExampleWeights"),
    "only X": (torch.tensor(NUMBERS), "train part must be a pair .* but it is a Tensor"),
    "a frame": (frame(), "train part must be a pair .* but it is a DataFrame"),
    "unequal batches": (
        [(torch.zeros(2, 3), torch.zeros(2)), (torch.zeros(2, 4), torch.zeros(2))],
        r"batches of the train part must have the same shape .* X is \(2, 3\) float32 in one and \(2, 4\)",
    ),
    "no inputs": (({}, LABELS), "train part must have at least one input, but it has none"),
    "infinite": ((np.full((8, 3), np.inf), LABELS), "X of the train part holds 24 of 24 values that are NaN or inf"),
}


@pytest.mark.parametrize(("source", "message"), REFUSED.values(), ids=REFUSED)
def test_what_holds_no_numbers_is_refused_by_name(source, message):
    with pytest.raises((TypeError, ValueError), match=message):
        read(source, "train")


def test_targets_with_other_axes_are_refused():
    with pytest.raises(
        ValueError, match=r"dev part must have as many axes .* train part, .* \(8, 1\), .* \(8,\); change"
    ):
        on_frames(dev=(frame(0.5), target(0.1).to_frame().to_numpy()))


def test_other_columns_are_refused():
    for dev, message in (
        (frame()[["age", "weight", "height"]], "dev part must have the columns of the train part .* in another order"),
        (frame().rename(columns={"age": "years"}), "it lacks 'age' and has 'years'; select them"),
        (frame()[["age", "height"]], "it lacks 'weight'"),
    ):
        with pytest.raises(ValueError, match=message):
            on_frames(dev=(dev, target(0.1)))
        parts = hg.Splits(hg.Split(frame(), y), hg.Split(dev, y), hg.Split(frame(), y))  # pyright: ignore
        with pytest.raises(ValueError, match=message):
            hg.Ridge(parts)


def test_without_pandas_nothing_is_imported():
    import subprocess
    import sys

    code = "import sys; sys.modules['pandas'] = None; import hypergrad.data.array as a; print(a.as_tensor([1, 2], 'y'))"
    assert (
        "tensor([1, 2])"
        in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )


def test_reading_a_fixed_data_set_leaves_the_random_states():
    states = random_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(TensorDataset(torch.tensor(NUMBERS), torch.tensor(LABELS)), "train")
    assert random_state() == states


def test_the_synthetic_and_the_smaller_data_sets_refuse_what_they_cannot_make():
    with pytest.raises(ValueError, match="needs n ≥ 2, 1 ≤ num_relevant ≤ p"):
        hg.sparse_regression(n=1)
    with pytest.raises(ValueError, match=r"snr > 0 and correlation in \[0, 1\), but they are .* 3 and 1"):
        hg.sparse_regression(correlation=1.0, snr=3.0)
    part = hg.Split(torch.zeros(6, 2), torch.tensor([0, 0, 0, 0, 1, 1]))
    data = hg.Splits(part, part, part)
    with pytest.raises(ValueError, match="The dev part holds 6 examples, but 7 are requested"):
        hg.first_of(data, train=6, dev=7)
    with pytest.raises(ValueError, match="imbalance must be from 1 to the 2 examples of the rarest class, but it is 9"):
        hg.long_tailed(data, imbalance=9.0)
    with pytest.raises(ValueError, match=r"but it is 0\.5"):
        hg.long_tailed(data, imbalance=0.5)
    with pytest.raises(TypeError, match=r"data must be hg.Splits\(train, dev, test\) .* but it is a tuple"):
        hg.Ridge((part, part, part))  # pyright: ignore
    with pytest.raises(ValueError, match="Quadratic needs size ≥ 2, .* but they are 1, 10 and 3"):
        hg.Quadratic(size=1)
