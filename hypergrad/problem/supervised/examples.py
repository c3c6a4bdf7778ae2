"""A problem that holds examples: its parts, and the batches of train."""

from abc import abstractmethod
from collections.abc import Mapping
from numbers import Integral
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from hypergrad.core.autodiff import Tensors
from hypergrad.core.device import sent
from hypergrad.core.seed import seed_of
from hypergrad.core.torch_internals.modules import buffers_of
from hypergrad.core.torch_internals.trees import tree_map
from hypergrad.core.validation import require_instance, require_int
from hypergrad.data.minibatch import scheduled
from hypergrad.data.parts import cast
from hypergrad.data.source import Part
from hypergrad.data.streamed import StreamedPart
from hypergrad.data.streamed_passes import PassPart
from hypergrad.data.tree import joined
from hypergrad.model.criterion import Fraction
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.batch_place import UNKNOWN, BatchPlace, place_of
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
        first: the train example of the first row of the hyperparameters with a row for each example.
    """

    rows: Any = None
    step: int | None = None
    examples: tuple[Any, Tensor] | None = None
    fraction: Fraction | None = None
    first: int = 0

    @property
    def own_rows(self) -> Any:
        """`rows`, counted from `first`."""
        if self.first == 0 or self.rows is None:
            return self.rows
        if isinstance(self.rows, slice):
            return slice(self.rows.start - self.first, self.rows.stop - self.first)
        return self.rows - self.first

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
        fixed_batches: whether all epochs have the same batches, of train and of samples of dev, in another order.

    Raises:
        TypeError: if `seed` is no integer.
        ValueError: if `fixed_batches` is combined with `drop_last` or an `IterableDataset`.

    Also raised, by what it calls: TypeError or ValueError if `batch_size` is no integer ≥ 1, or a bool is none.
    """

    examples: Tensor | None
    """The positions of train in the pool, if `on_examples` made this problem."""

    def __init__(
        self,
        parts: Mapping[str, Part | StreamedPart],
        *,
        batch_size: int | None,
        drop_last: bool,
        seed: int,
        fixed_batches: bool = False,
    ) -> None:
        super().__init__()
        self.batch_size, self.drop_last, self.seed, self.fixed_batches = batch_size, drop_last, seed, fixed_batches
        if batch_size is not None:
            require_int(self, "batch_size", least=1)
        require_instance(self, "drop_last", bool)
        require_instance(self, "fixed_batches", bool)
        if not isinstance(seed, Integral):
            raise TypeError(
                f"{type(self).__name__}.seed must be an integer, but it is {seed!r} of type {type(seed).__name__}; "
                "choose any, such as 0."
            )
        self.hold(parts)
        self._require_fixable()
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
            rows, epoch = scheduled(step, size=len(self.X), **self._schedule, device=device)
            examples = self._reread(rows, epoch)
        else:
            rows, examples = streamed.rows_at(step), streamed.at_step(step)
            rows = None if rows is None else sent(rows, device)
        if self.draws:
            return Batch(rows, step, examples)
        return None if rows is None and examples is None else Batch(rows, None, examples)

    def inner_place(self, step: int) -> BatchPlace:
        if isinstance(self.streamed("train"), PassPart):
            return UNKNOWN
        return place_of(step, size=self.size("train"), **self._schedule)

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
        text = f"{text}, fixed" if self.fixed_batches else text
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
        buffers_of(other)["examples"] = train
        return other

    def joined(self, hparams: Tensors) -> tuple[InnerProblem, Tensors]:
        everything = torch.arange(sum(self.size(name) for name in POOL), device=self.device("train"))
        return self.on_examples(everything, everything), hparams

    @property
    def _schedule(self) -> dict[str, Any]:
        cut = {"batch_size": self.batch_size, "drop_last": self.drop_last, "seed": self.seed}
        return cut | {"fixed": self.fixed_batches}

    def _require_fixable(self) -> None:
        """Require that batches of train can be fixed, if they are to be.

        Raises:
            ValueError: if they cannot.
        """
        if not self.fixed_batches:
            return
        name = type(self).__name__
        if self.drop_last:
            raise ValueError(
                f"{name}.fixed_batches=True needs drop_last=False, because the examples that the fixed batches leave "
                "out would never be trained on. Leave drop_last out; a smaller last batch counts by its size."
            )
        if isinstance(self.streamed("train"), PassPart):
            raise ValueError(
                f"{name}.fixed_batches=True needs a train part that is read by rows, but it is an IterableDataset, "
                "which is read in its own order. Write it as a torch.utils.data.Dataset with __getitem__ and __len__, "
                "or leave fixed_batches out."
            )

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
