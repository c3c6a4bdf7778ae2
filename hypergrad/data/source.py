"""One part of a user's data, read and checked."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from hypergrad.data.tables import Split


def read(source: Any, name: str) -> Split:
    """Inputs and targets of a part, in memory.

    Args:
        source: a pair of tensors or arrays (X, y); a `torch.utils.data.Dataset` of pairs; or an iterable of batches
            (X, y), such as a `DataLoader`; its order does not matter.
        name: what an error calls the part.

    Returns:
        X of shape (n, …) and y of shape (n, …).

    Raises:
        TypeError: if it is none of these.

    Also raised, by what it calls: ValueError if it is empty, its lengths differ, it holds NaN, or reading it twice
    gives different examples.
    """
    if isinstance(source, DataLoader) and not isinstance(source.dataset, IterableDataset):
        pair = _of_dataset(source.dataset, source.collate_fn, name)
    elif isinstance(source, tuple | list) and len(source) == 2 and all(hasattr(part, "shape") for part in source):
        pair = source
    elif isinstance(source, Dataset) and not isinstance(source, IterableDataset):
        pair = _of_dataset(source, default_collate, name)
    elif isinstance(source, Iterable) and not isinstance(source, str | dict):
        with _noted(f"This happened while reading the batches of the {name} part."):
            batches = list(source)
        pair = _joined(batches, name)
    else:
        raise TypeError(
            f"The {name} part must be a pair (X, y) of tensors, a Dataset, or an iterable of batches (X, y), but it is "
            f"a {type(source).__name__}."
        )
    tensors = []
    for letter, values in zip("Xy", pair, strict=True):
        with _noted(f"This happened while making a tensor of {letter} of the {name} part."):
            tensors.append(torch.as_tensor(values))
    return _checked(*tensors, name=name)


@contextmanager
def _noted(where: str) -> Iterator[None]:
    """Add to an error of the user's own code where it happened."""
    try:
        yield
    except Exception as error:
        error.add_note(where)
        raise


def _of_dataset(dataset: Any, collate: Any, name: str) -> Any:
    if len(dataset) == 0:
        raise ValueError(f"The {name} part holds 0 examples, but it must hold at least 1.")
    examples = []
    for index in range(len(dataset)):
        with _noted(f"This happened while reading example {index} of {len(dataset)} of the {name} part."):
            examples.append(dataset[index])
    pair = collate(examples)
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"The {name} part must give pairs (x, y), but an example is a {type(dataset[0]).__name__}.")
    first, again = collate([dataset[0]]), collate([dataset[0]])
    if not all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(first, again, strict=True)):
        raise ValueError(
            f"Reading example 0 of the {name} part twice gives two values, but a training step must be repeatable; "
            "move random augmentation from the data set into the model."
        )
    return pair


def _joined(batches: list[Any], name: str) -> tuple[Tensor, Tensor]:
    if not batches:
        raise ValueError(f"The {name} part holds 0 examples, but it must hold at least 1.")
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise TypeError(f"The {name} part must give batches (X, y), but one is a {type(batch).__name__}.")
    X, y = (torch.cat([torch.as_tensor(part) for part in parts]) for parts in zip(*batches, strict=True))
    return X, y


def _checked(X: Tensor, y: Tensor, *, name: str) -> Split:
    if X.ndim == 0 or y.ndim == 0 or len(X) != len(y):
        raise ValueError(
            f"The {name} part needs as many inputs as targets, but X is of shape {tuple(X.shape)} and y of shape "
            f"{tuple(y.shape)}."
        )
    if len(X) == 0:
        raise ValueError(f"The {name} part holds 0 examples, but it must hold at least 1.")
    for letter, values in (("X", X), ("y", y)):
        if values.is_floating_point() and (bad := int((~values.isfinite()).sum())):
            raise ValueError(
                f"{letter} of the {name} part holds {bad} of {values.numel()} values that are NaN or infinite; drop or "
                "impute them."
            )
    return Split(X, y)
