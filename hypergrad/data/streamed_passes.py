"""A part whose examples are read in order, such as an `IterableDataset`."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import count

from torch import Tensor

from hypergrad.data.passes import Passes, PassReader
from hypergrad.data.step_reader import StepReader
from hypergrad.data.streamed import Placed, StreamedPart


class PassPart(StreamedPart):
    """A part that can be read in order only, such as an `IterableDataset`.

    Args:
        passes: its batches.
        num_first: examples to keep in memory, ≥ 1.
        like: a tensor on the device and in the dtype of the model.
        is_ahead: whether to read in another process.
    """

    def __init__(self, passes: Passes, num_first: int, like: Tensor, *, is_ahead: bool) -> None:
        first = passes.first(num_first)
        super().__init__(first, first, like, passes.name)
        self.reader = PassReader(passes, is_ahead=is_ahead)
        self._steps = StepReader(self.reader.run)

    def size(self) -> int:
        raise ValueError(self._refusal("has no number of examples"))

    def targets(self) -> Tensor:
        raise ValueError(self._refusal("cannot be read by rows"))

    def at_step(self, step: int) -> Placed:
        self.reader.pin = self.like.is_cuda
        return self._checked(self._steps.at(step), lambda: (f"{k} of the batch of step {step}" for k in count()))

    def read(self, rows: Sequence[int]) -> Placed:
        raise ValueError(self._refusal("cannot be read by rows"))

    def whole(self) -> Placed:
        return self._checked(self.reader.passes.whole(), count)

    def each(self, batches: Iterable[Sequence[int]]) -> Iterator[Placed]:
        raise ValueError(self._refusal("cannot be read by rows"))

    def close(self) -> None:
        self._steps.close()
        self.reader.close()

    def _refusal(self, what: str) -> str:
        return (
            f"The {self.name} part is an IterableDataset, which {what}. A weight for each example, folds, a final "
            "training on train and dev, batches of dev, a dev part on several processes and running averages need "
            "that; write it as a torch.utils.data.Dataset with __getitem__ and __len__."
        )
