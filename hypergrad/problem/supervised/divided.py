"""Problems on examples whose losses are computed a few examples at a time, or on a sample of dev."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from hypergrad.core.seed import seed_of
from hypergrad.core.torch_internals.trees import tree_map
from hypergrad.core.validation import require_int
from hypergrad.data.minibatch import scheduled
from hypergrad.data.own_rows import own_rows
from hypergrad.model.criterion import Criterion, Fraction
from hypergrad.problem.base import Parts
from hypergrad.problem.batch_place import WHOLE, BatchPlace, place_of
from hypergrad.problem.supervised.examples import Batch, ExampleProblem


class DividedProblem(ExampleProblem):
    """A problem on examples that can divide a training step, dev and test into parts.

    The share of a part is its share of the examples. The terms of its loss are scaled so that the shares times the
    losses of the parts have the sum of the loss of all, whatever the denominator of that loss is.
    """

    criterion: Criterion
    micro_batch: int | None = None
    """Most examples of a training step that are computed at once; None for all."""
    dev_batch_size: int | None = None
    """Most examples of dev, or test, that are computed at once; None for all."""
    dev_sample: int | None = None
    """Examples of dev in the dev loss of an outer step; None for all."""

    def divide(self, *, micro_batch: int | None, dev_batch_size: int | None, dev_sample: int | None) -> None:
        """Set how losses are computed.

        Also raised, by what it calls: TypeError or ValueError if a number is no integer ≥ 1.
        """
        self.micro_batch, self.dev_batch_size, self.dev_sample = micro_batch, dev_batch_size, dev_sample
        for name, size in self.sizes().items():
            if size is not None:
                require_int(self, name, least=1)

    def judged(self, outputs: Tensor, y: Tensor, fraction: Fraction | None) -> Tensor:
        """The loss of some of dev; of a sample of dev, it estimates that of all."""
        value = self.criterion.value(outputs, y, None, fraction)
        if self.criterion.reduction != "sum":
            return value
        size = len(y) if fraction is None else round(len(y) / fraction.share)
        return value if size == self.size("dev") else value * (self.size("dev") / size)

    def settings(self) -> dict[str, object]:
        return super().settings() | {"parts": ", ".join(f"{name} {size}" for name, size in self.sizes().items())}

    def sizes(self) -> dict[str, int | None]:
        """The settings by which losses are divided."""
        return {name: getattr(self, name) for name in ("micro_batch", "dev_batch_size", "dev_sample")}

    def inner_parts(self, batch: Batch | None) -> Parts | None:
        batch = batch or Batch()
        num = self._length("train", batch)
        if self.micro_batch is None or num <= self.micro_batch:
            return None
        pieces = self._pieces("train", batch, num, -(-num // self.micro_batch))
        return [(self._piece_of(batch, cut, fraction), share) for cut, fraction, share in pieces]

    def outer_batch(self, step: int) -> Batch | None:
        if self.dev_sample is None or not self.samples_outer:
            return None
        return Batch(scheduled(step, **self._dev_schedule, device=self.device("dev"))[0])

    def outer_place(self, step: int) -> BatchPlace:
        return WHOLE if self.dev_sample is None else place_of(step, **self._dev_schedule)

    @property
    def samples_outer(self) -> bool:
        return self.dev_sample is not None and self.dev_sample < self.size("dev")

    def whole_outer_batch(self) -> None:
        """None, which stands for all of dev."""

    def outer_parts(self, batch: Batch | None) -> Parts | None:
        parts = self._evaluated("dev", batch or Batch())
        if parts is not None:
            self.announce("dev", [part.rows for part, _ in parts])
        return parts

    def in_parts(self, name: str) -> Iterator[tuple[Any, Tensor, Fraction | None]]:
        """Inputs and targets of dev or test, at most `dev_batch_size` examples at a time, read ahead if streamed."""
        batches, streamed = self._evaluated(name, Batch()), self.streamed(name)
        if batches is None:
            yield *self.part(name), None
        elif streamed is None:
            for batch, _ in batches:
                yield *self.part(name, batch.rows), batch.fraction
        else:
            every = range(streamed.size())
            for (X, y), (batch, _) in zip(streamed.each(every[b.rows] for b, _ in batches), batches, strict=True):
                yield X, y, batch.fraction

    @property
    def _dev_schedule(self) -> dict[str, Any]:
        cut = {"size": self.size("dev"), "batch_size": self.dev_sample, "drop_last": False}
        return cut | {"seed": seed_of("dev sample", self.seed), "fixed": self.fixed_batches}

    def _evaluated(self, name: str, batch: Batch) -> Parts | None:
        if self.dev_batch_size is None or (num := self._length(name, batch)) <= self.dev_batch_size:
            return None
        pieces = self._pieces(name, batch, num, -(-num // self.dev_batch_size))
        return [(self._piece_of(batch, cut, fraction), share) for cut, fraction, share in pieces]

    def _piece_of(self, batch: Batch, cut: slice, fraction: Fraction) -> Batch:
        return Batch(_rows(batch.rows, cut), batch.step, _cut(batch.examples, cut), fraction, batch.first)

    def _length(self, name: str, batch: Batch) -> int:
        if batch.examples is not None:
            return len(batch.examples[1])
        if isinstance(batch.rows, slice):
            return len(range(self.size(name))[batch.rows])
        return self.size(name) if batch.rows is None else len(batch.rows)

    def _targets(self, name: str, batch: Batch) -> Tensor:
        if batch.examples is not None:
            return batch.examples[1]
        y = self.targets(name)
        return y if batch.rows is None else y[batch.rows]

    def _pieces(self, name: str, batch: Batch, num: int, pieces: int) -> Iterator[tuple[slice, Fraction, float]]:
        """Consecutive pieces of the `num` examples of a batch, whose sizes differ by at most one, with their shares.

        The fraction of a piece is that of the whole, if the batch is itself a part of another.
        """
        outer = self._fraction(name, batch)
        for k in range(pieces):
            own = own_rows(num, k, pieces)
            yield own.rows, within(outer, k, own.share), own.share

    def _fraction(self, name: str, batch: Batch) -> Fraction:
        """What a batch is of another one; all of it if it is a whole one."""
        if batch.fraction is not None:
            return batch.fraction
        count = self.criterion.count(self._targets(name, batch)) if self.criterion.counts else None
        return Fraction(None, 1.0, count)


def within(outer: Fraction, k: int, share: float) -> Fraction:
    """What the k-th piece of a part is of the whole, with its share of the part."""
    number = k if outer.number is None else seed_of("part", outer.number, k)
    return Fraction(number, outer.share * share, outer.denominator)


def _rows(rows: Any, cut: slice) -> Any:
    """The rows of a piece; those of a slice are a slice, by which examples are not copied."""
    if rows is None:
        return cut
    if isinstance(rows, slice):
        start = rows.start or 0
        return slice(start + cut.start, start + cut.stop)
    return rows[cut]


def _cut(examples: tuple[Any, Tensor] | None, cut: slice) -> tuple[Any, Tensor] | None:
    return None if examples is None else tree_map(lambda x: x[cut], examples)
