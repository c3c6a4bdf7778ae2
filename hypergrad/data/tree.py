"""Inputs of examples: a tensor, or tuples and dicts of tensors with the same first axis."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hypergrad.core.torch_internals.trees import tree_flatten, tree_leaves, tree_map, tree_unflatten


class Inputs(nn.Module):
    """The inputs of n examples by position or by name, as buffers, so that `.to(device)` and `.double()` move them.

    `len` is n, and `inputs[rows]` are the inputs of some examples, nested as they were given.

    Args:
        tree: tuples and dicts of tensors whose first axis has the same length n.
    """

    def __init__(self, tree: Any) -> None:
        super().__init__()
        self._names = [f"leaf/{name}" for name in named(tree)]  # no attribute of a module has such a name
        tensors, self._structure = tree_flatten(tree)
        for name, x in zip(self._names, tensors, strict=True):
            self.register_buffer(name, x)

    @property
    def tree(self) -> Any:
        """All inputs."""
        return tree_unflatten([self.get_buffer(name) for name in self._names], self._structure)

    def __len__(self) -> int:
        return len(self.get_buffer(self._names[0]))

    def __getitem__(self, rows: Any) -> Any:
        return take(self.tree, rows)


def named(tree: Any, prefix: str = "") -> dict[str, Tensor]:
    """The tensors by name, as in `0/mask`, in the order of `tree_flatten`; "" is the name of a tensor alone."""
    if isinstance(tree, dict):
        entries: Any = tree.items()
    elif isinstance(tree, tuple):
        entries = enumerate(tree)
    else:
        return {prefix: tree}
    return {
        name: x
        for key, part in entries
        for name, x in named(part, f"{prefix}/{key}".replace(".", "_").lstrip("/")).items()
    }


def as_tree(value: Any) -> Any:
    """The value with dataclasses and other mappings as dicts, lists as tuples, and without entries that are None."""
    if isinstance(value, Mapping):
        return {str(key): as_tree(entry) for key, entry in value.items() if entry is not None}
    if is_dataclass(value) and not isinstance(value, type):
        return as_tree({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, tuple | list):
        return tuple(as_tree(entry) for entry in value)
    return value


def take(X: Any, rows: Any) -> Any:
    """The inputs of some examples."""
    return X[rows] if isinstance(X, Tensor) else tree_map(lambda x: x[rows], X)


def take_rows(X: Any, rows: Any) -> Any:
    """The inputs at positions ≥ 0, or in a slice: those of `take`, on a CPU several times as fast if they are long."""
    return tree_map(lambda x: _selected(x, rows), X)


def joined(first: Any, second: Any) -> Any:
    """The inputs of the examples of one part and then those of another.

    Raises:
        ValueError: if their shapes differ in more than the number of examples.
    """
    pairs = [(named(part.tree) if isinstance(part, Inputs) else named(part)) for part in (first, second)]
    for name, x in pairs[0].items():
        other = pairs[1][name]
        if x.shape[1:] != other.shape[1:]:
            raise ValueError(
                f"Train and dev examples can be put together only if they have the same shape, but {name or 'they'} "
                f"have shape {tuple(x.shape)} in train and {tuple(other.shape)} in dev; pad them to one length."
            )
    tensors = [torch.cat(both) for both in zip(*(part.values() for part in pairs), strict=True)]
    return tree_unflatten(tensors, tree_flatten(first.tree if isinstance(first, Inputs) else first)[1])


def held(X: Any) -> Any:
    """The inputs as a problem holds them: a tensor, or `Inputs`."""
    return X if isinstance(X, Tensor | Inputs) else Inputs(X)


def given(X: Any) -> Any:
    """The inputs as a model gets them: a tensor, or tuples and dicts."""
    return X.tree if isinstance(X, Inputs) else X


def first_leaf(X: Any) -> Tensor:
    """One of the tensors, whose length is the number of examples."""
    return tree_leaves(given(X))[0]


def shapes(X: Any) -> str:
    """The shapes and dtypes as text."""
    return ", ".join(
        f"{name} {tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}".strip() for name, x in named(given(X)).items()
    )


def _selected(x: Tensor, rows: Any) -> Tensor:
    # Indexing copies number by number on a CPU, index_select whole rows.
    is_fast = isinstance(rows, Tensor) and rows.dtype == torch.long and rows.ndim == 1
    return x.index_select(0, rows) if is_fast and x.device.type == "cpu" else x[rows]
