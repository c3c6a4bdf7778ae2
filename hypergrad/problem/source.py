"""Data of a user, read and checked."""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from hypergrad.data import Split


def read(source: Any, name: str) -> Split:
    """Inputs and targets of a part, held in memory.

    Args:
        source: a pair of tensors or arrays (X, y); a `torch.utils.data.Dataset` of pairs; or an iterable of batches
            (X, y), such as a `DataLoader`, whose order does not matter.
        name: what an error calls the part.

    Returns:
        X of shape (n, …) and y of shape (n, …).

    Raises:
        TypeError: if it is none of these.
        ValueError: if it is empty, its lengths differ, it holds NaN, or reading it twice gives different examples.
    """
    if isinstance(source, DataLoader) and not isinstance(source.dataset, IterableDataset):
        pair = _of_dataset(source.dataset, source.collate_fn, name)
    elif isinstance(source, tuple | list) and len(source) == 2 and all(hasattr(part, "shape") for part in source):
        pair = source
    elif isinstance(source, Dataset) and not isinstance(source, IterableDataset):
        pair = _of_dataset(source, default_collate, name)
    elif isinstance(source, Iterable) and not isinstance(source, str | dict):
        pair = _joined(list(source), name)
    else:
        raise TypeError(
            f"The {name} part must be a pair (X, y) of tensors, a Dataset, or an iterable of batches (X, y), but it is "
            f"a {type(source).__name__}."
        )
    return _checked(*(torch.as_tensor(part) for part in pair), name=name)


def _of_dataset(dataset: Any, collate: Any, name: str) -> Any:
    if len(dataset) == 0:
        raise ValueError(f"The {name} part holds 0 examples, but it must hold at least 1.")
    pair = collate([dataset[index] for index in range(len(dataset))])
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"The {name} part must give pairs (x, y), but an example is a {type(dataset[0]).__name__}.")
    first, again = collate([dataset[0]]), collate([dataset[0]])
    if not all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(first, again, strict=True)):
        raise ValueError(
            f"Reading example 0 of the {name} part twice gives two values, but a training step must be repeatable; "
            "leave random augmentation out of the data set, and make it a part of the model."
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


def require_classes(y: Tensor, num_classes: int, ignored: int | None, name: str) -> None:
    """Require that integer targets are classes from 0 to K − 1.

    Raises:
        ValueError: if some are not.
    """
    bad = (y < 0) | (y >= num_classes)
    if ignored is not None:
        bad &= y != ignored
    if bad.any():
        raise ValueError(
            f"The targets of the {name} part must be classes from 0 to {num_classes - 1}, as the model has "
            f"{num_classes} outputs, but {int(bad.sum())} of {y.numel()} are not, such as {y[bad][0].item()}."
        )


def warn_of_overlap(part: Split, seen: dict[str, Split], name: str) -> None:
    """Warn where examples of a part, inputs and targets, are in an earlier part too, with the count."""
    keys = _keys(part)
    for other, split in seen.items():
        if split.X.shape[1:] != part.X.shape[1:] or split.y.shape[1:] != part.y.shape[1:]:
            continue
        known = set(_keys(split))
        count = sum(key in known for key in keys)
        if count:
            warnings.warn(
                f"{count} of the {len(keys)} {name} examples are in the {other} part too, so that the {name} loss is "
                "lower than on examples that were not seen.",
                UserWarning,
                stacklevel=4,
            )


def _keys(split: Split) -> list[bytes]:
    X, y = (part.detach().cpu().flatten(1) if part.ndim > 1 else part.detach().cpu()[:, None] for part in split)
    return [x.tobytes() + t.tobytes() for x, t in zip(X.numpy(), y.numpy(), strict=True)]
