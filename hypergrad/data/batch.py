"""Inputs and targets of a batch as tensors, in each of the forms in which users hold them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hypergrad.data.array import as_tensor, columns_of, index_of
from hypergrad.data.tree import as_tree, named

LABELS = "labels"
"""The entry of a dict that holds the targets, as in the transformers library."""


class Examples(NamedTuple):
    """Inputs, a tensor or tuples and dicts of tensors, and targets of some examples; the names of the columns of X."""

    X: Any
    y: Tensor
    columns: tuple[str, ...] = ()


def is_named(batch: Any) -> bool:
    """Whether a batch holds its entries by name, as dicts, other mappings and dataclasses do."""
    return isinstance(batch, Mapping) or is_dataclass(batch) and not isinstance(batch, type)


def is_pair(batch: Any) -> bool:
    """Whether it is (X, y) with y an array or a list of numbers, and not a list of two batches."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        return False
    X, y = batch
    if isinstance(y, list | tuple):
        return _holds_numbers(y)
    return hasattr(y, "shape") or hasattr(X, "shape")


def as_examples(batch: Any, name: str) -> Examples:
    """Inputs and targets of a batch of the part `name`.

    Raises:
        TypeError: if it is no batch.
        ValueError: if the rows of X and y have different labels.
    """
    if is_named(batch):
        X, y = _by_name(batch, name)
    elif is_pair(batch):
        X, y = batch
    else:
        raise TypeError(f"The {name} part must give {_FORMS}, but one is {described(batch)}.")
    index, other = index_of(X), index_of(y)
    if index is not None and other is not None and not index.equals(other):
        raise ValueError(
            f"X and y of the {name} part must have the same row labels in the same order, but their indices differ; "
            "align them by y = y.loc[X.index], or drop the labels by reset_index(drop=True)."
        )
    return Examples(_inputs(X, name), _array(y, "y", name), columns_of(X))


_FORMS = f"batches (X, y), or dicts with the targets under {LABELS!r}"


def described(value: Any) -> str:
    """A value of a user as short text: its type, and the types of its entries."""
    if isinstance(value, tuple | list):
        entries = ", ".join(type(entry).__name__ for entry in value[:4]) + (", …" if len(value) > 4 else "")
        return f"a {type(value).__name__} of {len(value)}: {entries}"
    return f"a {type(value).__name__}"


@contextmanager
def noted(where: str) -> Iterator[None]:
    """Add to an error of the user's own code where it happened."""
    try:
        yield
    except Exception as error:
        error.add_note(f"This happened while {where}.")
        raise


def _by_name(batch: Any, name: str) -> tuple[Any, Any]:
    entries = as_tree(batch)
    if LABELS not in entries or len(entries) < 2:
        raise TypeError(
            f"The {name} part must have inputs and targets, the targets under {LABELS!r}, but its entries are "
            f"{', '.join(map(repr, entries))}; rename the targets, or give a pair (inputs, targets)."
        )
    y = entries.pop(LABELS)
    return entries, y


def _inputs(X: Any, name: str, letter: str = "X") -> Any:
    if is_named(X) or isinstance(X, tuple | list) and X and all(hasattr(x, "shape") or is_named(x) for x in X):
        tree: Any = as_tree(X)
        if isinstance(tree, dict):
            return {key: _inputs(entry, name, f"{letter}[{key!r}]") for key, entry in tree.items()}
        return tuple(_inputs(entry, name, f"{letter}[{i}]") for i, entry in enumerate(tree))
    return _array(X, letter, name)


def _array(values: Any, letter: str, name: str) -> Tensor:
    with noted(f"making a tensor of {letter} of the {name} part"):
        return as_tensor(values, f"{letter} of the {name} part")


def _holds_numbers(values: Any) -> bool:
    first = values[0] if values else 0
    if isinstance(first, list | tuple):
        return _holds_numbers(first)
    return isinstance(first, bool | int | float | str) or getattr(first, "ndim", None) == 0


def require_examples(examples: Examples, name: str) -> Examples:
    """The examples, after a check that there are some, as many inputs as targets, and only finite numbers.

    Raises:
        ValueError: if not.
    """
    X, y, _ = examples
    leaves = {f"X[{key}]" if key else "X": x for key, x in named(X).items()}
    if not leaves:
        raise ValueError(f"The {name} part must have at least one input, but it has none. Give a pair (X, y).")
    for letter, x in leaves.items():
        if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
            raise ValueError(
                f"The {name} part needs as many inputs as targets, but {letter} is of shape {tuple(x.shape)} and y of "
                f"shape {tuple(y.shape)}. The first axis must count the examples; a single example is X[None], y[None]."
            )
    if len(y) == 0:
        raise ValueError(no_examples(name))
    for letter, values in (leaves | {"y": y}).items():
        if values.is_floating_point() and (bad := int((~values.isfinite()).sum())):
            raise ValueError(
                f"{letter} of the {name} part holds {bad} of {values.numel()} values that are NaN or infinite; drop or "
                "impute them."
            )
    return examples


def no_examples(name: str) -> str:
    """The message for a part without examples."""
    return (
        f"The {name} part holds 0 examples, but it must hold at least 1. Look at the file, the filter or the split "
        "that it comes from; an iterator can be read only once, so give a list or a DataLoader."
    )


def keys(examples: Any) -> list[bytes]:
    """The bytes of each example, of its inputs and then its targets."""
    rows = [_rows(x) for x in (*named(examples.X).values(), examples.y)]
    return [b"".join(row) for row in zip(*rows, strict=True)]


def _rows(x: Tensor) -> list[bytes]:
    entries = x.detach().cpu().contiguous().reshape(len(x), -1)
    return [row.tobytes() for row in entries.view(torch.uint8).numpy()]
