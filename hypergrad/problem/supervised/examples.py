"""A problem that holds examples: its parts, and the batches of train."""

from abc import abstractmethod
from collections.abc import Mapping
from numbers import Integral
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from hypergrad.core.seed import seed_of
from hypergrad.core.validation import require_instance, require_int
from hypergrad.data.minibatch import rows_of_step, steps_per_epoch
from hypergrad.data.parts import cast
from hypergrad.data.source import Part
from hypergrad.data.tree import given, held, joined
from hypergrad.model.criterion import Fraction
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.repartition import on_rows


class Batch(NamedTuple):
    """The data of a training step, or of a dev loss.

    Attributes:
        rows: of train, or of dev, as a tensor or a slice; None for all.
        step: None if nothing in the model or the effects is random.
        examples: inputs and targets of these rows, if the data set is random; otherwise the problem holds them.
        fraction: what this batch is of another one; None if it is a whole one.
    """

    rows: Any = None
    step: int | None = None
    examples: tuple[Any, Tensor] | None = None
    fraction: Fraction | None = None

    @property
    def draw(self) -> int:
        """The number of its random draws, another one for each part."""
        step = self.step or 0
        return step if self.fraction is None else seed_of("part", step, self.fraction.number)


class ExampleProblem(InnerProblem):
    """A problem on examples, whose training steps use all of train or a mini-batch of it.

    Args:
        parts: the examples by the name of their part, "train", "dev" and perhaps "test".
        batch_size: examples of a training step, ≥ 1; None for all.
        drop_last: whether an epoch leaves out the last batch if it is smaller than the others.
        seed: of the batches.

    Raises:
        TypeError: if `seed` is no integer.

    Also raised, by what it calls: TypeError or ValueError if `batch_size` is no integer ≥ 1, or `drop_last` no bool.
    """

    X: Any
    """The inputs of train: a tensor, or `Inputs`."""
    y: Tensor
    X_dev: Any
    y_dev: Tensor
    X_test: Any
    y_test: Tensor
    examples: Tensor | None
    """The positions of train in the pool, if `on_examples` made this problem."""

    def __init__(self, parts: Mapping[str, Part], *, batch_size: int | None, drop_last: bool, seed: int) -> None:
        super().__init__()
        self.batch_size, self.drop_last, self.seed = batch_size, drop_last, seed
        if batch_size is not None:
            require_int(self, "batch_size", least=1)
        require_instance(self, "drop_last", bool)
        if not isinstance(seed, Integral):
            raise TypeError(
                f"{type(self).__name__}.seed must be an integer, but it is {seed!r} of type {type(seed).__name__}; "
                "choose any, such as 0."
            )
        for name, part in parts.items():
            suffix = "" if name == "train" else f"_{name}"
            X = held(part.X)
            if isinstance(X, Tensor):
                self.register_buffer(f"X{suffix}", X)
            else:
                self.add_module(f"X{suffix}", X)
            self.register_buffer(f"y{suffix}", part.y)
        self.register_buffer("examples", None)
        self._columns, self._random = parts["train"].columns, parts["train"].random

    @property
    @abstractmethod
    def draws(self) -> bool:
        """Whether a training step draws random numbers."""

    def inner_batch(self, step: int) -> Batch | None:
        rows, size, epoch = None, len(self.X), step
        if self.batch_size is not None and self.batch_size < size:
            cut: Any = {"size": size, "batch_size": self.batch_size, "drop_last": self.drop_last}
            rows = rows_of_step(step, **cut, seed=self.seed, device=self.y.device)
            epoch = step // steps_per_epoch(**cut)
        examples = self._reread(rows, epoch)
        if self.draws:
            return Batch(rows, step, examples)
        return None if rows is None and examples is None else Batch(rows, None, examples)

    def step_examples(self, batch: Batch | None) -> tuple[Any, Tensor]:
        """Inputs and targets of a training step."""
        batch = batch or Batch()
        return batch.examples or self.part("train", batch.rows)

    def part(self, name: str, rows: Any = None) -> tuple[Any, Tensor]:
        """Inputs and targets of a part; all of them if `rows` is None."""
        suffix = "" if name == "train" else f"_{name}"
        X, y = getattr(self, f"X{suffix}"), getattr(self, f"y{suffix}")
        return (given(X), y) if rows is None else (X[rows], y[rows])

    def positions(self, rows: Tensor | None) -> Tensor | None:
        """The positions in the pool, which is the order of λ, of some rows of train."""
        if self.examples is None:
            return rows
        return self.examples if rows is None else self.examples[rows]

    def pooled_targets(self) -> Tensor:
        return joined(self.y, self.y_dev)

    def on_examples(self, train: Tensor, dev: Tensor) -> Self:
        """As promised; weights of examples are for the whole pool, and training uses those of its own examples.

        Raises:
            ValueError: if `on_examples` made this problem too.
        """
        if self.examples is not None:
            raise ValueError("The problem is already on some examples of another; call on_examples of that one.")
        other = on_rows(self, train, dev)
        other._buffers["examples"] = train
        return other

    def _reread(self, rows: Tensor | None, epoch: int) -> tuple[Any, Tensor] | None:
        """The examples at `rows`, of which those of a random data set are read as they are in this epoch."""
        if self._random is None:
            return None
        X, y = self.part("train", rows)
        positions = self.positions(rows)
        where = torch.arange(len(y)) if positions is None else positions.cpu()
        again = (where < len(self._random)).nonzero()[:, 0]  # others are dev examples
        if len(again) == 0:
            return X, y
        fresh = self._random.read(where[again].tolist(), epoch)
        put = again.to(y.device)

        def with_fresh(x: Tensor, new: Tensor) -> Tensor:
            return x.index_copy(0, put, cast(new, x).to(x.dtype))

        return tree_map(with_fresh, X, fresh.X), with_fresh(y, fresh.y)
