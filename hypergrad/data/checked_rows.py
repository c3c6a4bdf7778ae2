"""Rows whose examples are checked when they are read."""

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from hypergrad.data.array import as_labels
from hypergrad.data.batch import Examples, require_examples
from hypergrad.data.rows import Rows
from hypergrad.data.tree import named, take


def require_each(
    require: Callable[[Examples], object], examples: Examples, rows: Callable[[], Iterable[object]], name: str
) -> None:
    """Check examples together; an error says which of them is the first that fails alone.

    Args:
        require: raises a ValueError if examples, any number of them, are not as they must be.
        examples: of a part.
        rows: returns what an error calls each of them; there may be more.
        name: of the part.

    Raises:
        ValueError: if one of them is not as it must be.
    """
    try:
        require(examples)
    except ValueError as error:
        for k, row in zip(range(len(examples.y)), rows(), strict=False):
            try:
                require(Examples(take(examples.X, slice(k, k + 1)), examples.y[k : k + 1]))
            except ValueError as own:
                raise ValueError(f"Example {row} of the {name} part: {own}") from error
        raise


class CheckedRows(Rows):
    """Rows that are checked when they are read: finite numbers, and shapes and dtypes like those of the first rows.

    Args:
        rows: of a part, not empty.
        num_first: how many rows to read now.
    """

    def __init__(self, rows: Rows, num_first: int) -> None:
        self.rows, self.name, self.columns = rows, rows.name, rows.columns
        first = range(min(num_first, len(rows)))
        self._kind = ""
        self.first = self._checked(rows.read(first, 0), first)
        self._kind = self._kind_of(self.first)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ragged(self) -> bool:
        return self.rows.ragged

    @property
    def at_once(self) -> bool:
        return self.rows.at_once

    def read(self, rows: Sequence[int], epoch: int) -> Examples:
        return self._checked(self.rows.read(rows, epoch), rows)

    def _checked(self, examples: Examples, rows: Sequence[int]) -> Examples:
        require_each(self._require, examples, lambda: rows, self.name)
        return examples

    def _require(self, examples: Examples) -> None:
        require_examples(examples, self.name)
        kind = self._kind_of(examples)
        if self._kind and kind != self._kind:
            raise ValueError(
                f"The examples of the {self.name} part must have the same inputs, shape and dtype, but the first ones "
                f"are {self._kind}, and these are {kind}; pad them to one length, or convert them in __getitem__."
            )

    def _kind_of(self, examples: Examples) -> str:
        """The names, shapes and dtypes of single examples; only the axes if a function of the user may pad them."""
        entries = {f"X {name}".strip(): x for name, x in named(examples.X).items()} | {"y": as_labels(examples.y)}
        size = (lambda x: f"{x.ndim - 1} axes") if self.ragged else (lambda x: str(tuple(x.shape[1:])))
        return ", ".join(f"{name} {size(x)} {_number(x)}" for name, x in entries.items())


def _number(x: Tensor) -> str:
    """What kind of numbers a tensor holds; floating-point numbers are converted later, whatever their precision."""
    return "floating-point" if x.is_floating_point() else str(x.dtype).removeprefix("torch.")
