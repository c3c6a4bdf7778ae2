"""A problem that holds examples: its parts, and the batches of train."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
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
from hypergrad.data.streamed_passes import PassPart
from hypergrad.data.tree import given, held, joined
from hypergrad.model.criterion import Fraction
from hypergrad.model.probe import EXAMPLES
from hypergrad.problem.base import InnerProblem
from hypergrad.problem.repartition import on_rows
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


class ExampleProblem(InnerProblem):
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

    X: Any
    """The inputs of train: a tensor, or `Inputs`."""
    y: Tensor
    X_dev: Any
    y_dev: Tensor
    X_test: Any
    y_test: Tensor
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
        self._part_names, self._streamed = tuple(parts), dict[str, str]()
        for name, part in parts.items():
            self._hold(name, part)
        self.register_buffer("examples", None)
        train = parts["train"]
        self._columns, self._random = train.columns, train.random if isinstance(train, Part) else None

    def _hold(self, name: str, part: Part | StreamedPart) -> None:
        """Keep a part, in buffers and modules that move with the problem."""
        suffix = "" if name == "train" else f"_{name}"
        if isinstance(part, StreamedPart):
            self.add_module(f"reader{suffix}", part)
            self._streamed[name] = f"reader{suffix}"
            return
        X = held(part.X)
        if isinstance(X, Tensor):
            self.register_buffer(f"X{suffix}", X)
        else:
            self.add_module(f"X{suffix}", X)
        self.register_buffer(f"y{suffix}", part.y)

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

    def part(self, name: str, rows: Any = None) -> tuple[Any, Tensor]:
        """Inputs and targets of a part; all of them if `rows` is None.

        Args:
            name: of the part.
            rows: a tensor of positions, or a slice. If the part is streamed, only these are read.
        """
        streamed = self.streamed(name)
        if streamed is not None:
            return streamed.whole() if rows is None else streamed.read(_listed(rows, streamed.size()))
        suffix = "" if name == "train" else f"_{name}"
        X, y = getattr(self, f"X{suffix}"), getattr(self, f"y{suffix}")
        return (given(X), y) if rows is None else (X[rows], y[rows])

    def parts_of(self, name: str, batches: Iterable[Tensor | None]) -> Iterator[tuple[Any, Tensor]]:
        """Inputs and targets of a part, for each of several `rows` as in `part`, read ahead if it is streamed."""
        streamed = self.streamed(name)
        if streamed is None:
            return (self.part(name, None if rows is None else rows.to(self.device(name))) for rows in batches)
        everything = range(streamed.size())
        return streamed.each(everything if rows is None else rows.tolist() for rows in batches)

    def first(self, name: str) -> tuple[Any, Tensor]:
        """Inputs and targets of the first examples of a part, at most `EXAMPLES`, which are in memory."""
        streamed = self.streamed(name)
        return self.part(name, slice(0, EXAMPLES)) if streamed is None else streamed.first

    def known(self, name: str) -> tuple[Any, Tensor]:
        """Inputs and targets of a part that are in memory: all of them, or the first ones if it is streamed."""
        streamed = self.streamed(name)
        return self.part(name) if streamed is None else streamed.first

    def targets(self, name: str) -> Tensor:
        """The targets of a part; if it is streamed, each example is read for them."""
        streamed = self.streamed(name)
        return self.part(name)[1] if streamed is None else streamed.targets()

    def has(self, name: str) -> bool:
        """Whether there is a part of that name."""
        return name in self._part_names

    def size(self, name: str) -> int:
        """The number of examples of a part.

        Also raised, by what it calls: ValueError if it is an `IterableDataset`.
        """
        streamed = self.streamed(name)
        return len(self.part(name)[1]) if streamed is None else streamed.size()

    def known_size(self, name: str) -> int:
        """The number of examples of a part; that of a batch if it is an `IterableDataset`."""
        return self.batch_size or 1 if isinstance(self.streamed(name), PassPart) else self.size(name)

    def batches(self) -> str:
        """How examples are read for training, as text."""
        text = f"batch_size {self.batch_size}, drop_last {self.drop_last}, seed {self.seed}"
        return f"{text}, streamed {', '.join(self._streamed)}" if self._streamed else text

    def check_as_read(self, check: Callable[[str, Tensor], object]) -> None:
        """Call a function of the name of a part and targets whenever examples are read that were not in memory."""
        for name in self._streamed:
            part: Any = self.streamed(name)
            part.require_targets = partial(check, name)

    def device(self, name: str) -> torch.device:
        """Where the examples of a part are when they are used."""
        streamed = self.streamed(name)
        return self.part(name)[1].device if streamed is None else streamed.like.device

    def streamed(self, name: str) -> StreamedPart | None:
        """What reads a part that is streamed; None if it is in memory."""
        return getattr(self, self._streamed[name]) if name in self._streamed else None

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


def _listed(rows: Any, size: int) -> Sequence[int]:
    """Rows, given as a slice or as a tensor or list of positions, some of which may count from the end."""
    if isinstance(rows, slice):
        return range(size)[rows]
    return [range(size)[row] for row in (rows.tolist() if isinstance(rows, Tensor) else rows)]
