"""A problem that holds examples: its parts, and the batches of train."""

from abc import abstractmethod
from collections.abc import Mapping
from numbers import Integral
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from hypergrad.core.autodiff import Tensors
from hypergrad.core.device import sent
from hypergrad.core.seed import seed_of
from hypergrad.core.validation import require_instance, require_int
from hypergrad.data.minibatch import scheduled
from hypergrad.data.parts import cast
from hypergrad.data.source import Part
from hypergrad.data.streamed import StreamedPart
from hypergrad.data.tree import joined
from hypergrad.model.criterion import Fraction
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.repartition import on_rows
from hypergrad.problem.supervised.parted_problem import PartedProblem
from hypergrad.problem.supervised.streamed_pool import POOL, on_streamed_rows


class Batch(NamedTuple):
    """The data of a training step, or of a dev loss.

    Attributes:
        rows: of train, or of dev, as a tensor or a slice; None for all.
        step: None if nothing in the model or the effects is random.
        examples: inputs and targets of these rows, if the data set is random or streamed; otherwise the problem holds
            them.
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


class ExampleProblem(PartedProblem):
    """A problem on examples, whose training steps use all of train or a mini-batch of it.

    Args:
        parts: the examples by the name of their part, "train", "dev" and perhaps "test", in memory or streamed.
        batch_size: examples of a training step, ≥ 1; None for all.
        drop_last: whether an epoch leaves out the last batch if it is smaller than the others.
        seed: of the batches.

    Raises:
        TypeError: if `seed` is no integer.

    Also raised, by what it calls: TypeError or ValueError if `batch_size` is no integer ≥ 1, or `drop_last` no bool.
    """

    examples: Tensor | None
    """The positions of train in the pool, if `on_examples` made this problem."""

    def __init__(
        self, parts: Mapping[str, Part | StreamedPart], *, batch_size: int | None, drop_last: bool, seed: int
    ) -> None:
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
        self.hold(parts)
        self.register_buffer("examples", None)
        train = parts["train"]
        self._columns, self._random = train.columns, train.random if isinstance(train, Part) else None

    @property
    @abstractmethod
    def draws(self) -> bool:
        """Whether a training step draws random numbers."""

    def inner_batch(self, step: int) -> Batch | None:
        streamed, device = self.streamed("train"), self.device("train")
        if streamed is None:
            cut: Any = {"size": len(self.X), "batch_size": self.batch_size, "drop_last": self.drop_last}
            rows, epoch = scheduled(step, **cut, seed=self.seed, device=device)
            examples = self._reread(rows, epoch)
        else:
            rows, examples = streamed.rows_at(step), streamed.at_step(step)
            rows = None if rows is None else sent(rows, device)
        if self.draws:
            return Batch(rows, step, examples)
        return None if rows is None and examples is None else Batch(rows, None, examples)

    def step_examples(self, batch: Batch | None) -> tuple[Any, Tensor]:
        """Inputs and targets of a training step."""
        batch = batch or Batch()
        return batch.examples or self.part("train", batch.rows)

    def step_targets(self, batch: Batch | None) -> Tensor:
        """The targets of a training step, without a copy of its inputs if they are in memory."""
        batch = batch or Batch()
        if batch.examples is not None or self.streamed("train") is not None:
            return self.step_examples(batch)[1]
        return self.y if batch.rows is None else self.y[batch.rows]

    def batches(self) -> str:
        """How examples are read for training, as text."""
        text = f"batch_size {self.batch_size}, drop_last {self.drop_last}, seed {self.seed}"
        return f"{text}, streamed {', '.join(self._streamed)}" if self._streamed else text

    def positions(self, rows: Tensor | None) -> Tensor | None:
        """The positions in the pool, which is the order of λ, of some rows of train."""
        if self.examples is None:
            return rows
        return self.examples if rows is None else self.examples[rows]

    def pooled_targets(self) -> Tensor:
        return joined(*(self.targets(name) for name in POOL))

    def on_examples(self, train: Tensor, dev: Tensor) -> Self:
        """As promised; weights of examples are for the whole pool, and training uses those of its own examples.

        Raises:
            ValueError: if `on_examples` made this problem too.
        """
        if self.examples is not None:
            raise ValueError("The problem is already on some examples of another; call on_examples of that one.")
        other = (on_streamed_rows if self._streamed.keys() & set(POOL) else on_rows)(self, train, dev)
        other._buffers["examples"] = train
        return other

    def joined(self, hparams: Tensors) -> tuple[InnerProblem, Tensors]:
        everything = torch.arange(sum(self.size(name) for name in POOL), device=self.device("train"))
        return self.on_examples(everything, everything), hparams

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
