"""Splits of a linear model from DataFrames and arrays."""

from typing import Any

import torch
from torch import Tensor

from hypergrad.data.array import columns_of
from hypergrad.data.batch import as_examples
from hypergrad.data.parts import require_columns
from hypergrad.data.tables import Split, Splits


def as_splits(data: Splits) -> tuple[Splits, tuple[str, ...]]:
    """The splits with tensors of torch's default dtype in place of DataFrames, Series and arrays.

    Args:
        data: train, dev and test parts; X may be sparse.

    Returns:
        The splits, whose tensors and sparse matrices are those given, and the names of the columns of X, if the train
        part has a DataFrame.

    Raises:
        TypeError: if they are no `Splits`.

    Also raised, by what it calls: TypeError if a part does not hold numbers; ValueError if its columns are not those of
    the train part, or X and y have different rows.
    """
    if not isinstance(data, Splits):
        raise TypeError(
            f"data must be hg.Splits(train, dev, test) of three hg.Split(X, y), but it is a {type(data).__name__}."
        )
    columns = columns_of(data.train.X)
    for name, (X, _) in zip(data._fields, data, strict=True):
        require_columns(columns_of(X), columns, name, "train")
    return Splits(*(_split(part, name) for name, part in zip(data._fields, data, strict=True))), columns


def _split(part: Split, name: str) -> Split:
    X: Any = part.X
    if hasattr(X, "tocsr") or isinstance(X, Tensor) or not hasattr(X, "shape"):
        return Split(X, part.y if isinstance(part.y, Tensor) else as_examples(([0.0], part.y), name).y.to(_dtype(X)))
    X, y, _ = as_examples(part, name)
    return Split(X.to(torch.get_default_dtype()), y if isinstance(part.y, Tensor) else y.to(torch.get_default_dtype()))


def _dtype(X: Any) -> torch.dtype:
    return X.dtype if isinstance(X, Tensor) else torch.get_default_dtype()
