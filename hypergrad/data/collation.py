"""Examples of a data set put into a batch."""

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from typing import Any

from torch.utils.data import default_collate

from hypergrad.data.batch import described, is_named, noted
from hypergrad.data.tree import as_tree


@dataclass(frozen=True)
class Collation:
    """Makes a batch of examples, which may be dataclasses, with errors that name the part.

    Attributes:
        collate: maps a list of examples to a batch.
        name: of the part.
    """

    collate: Callable[[list[Any]], Any]
    name: str

    @property
    def is_default(self) -> bool:
        """Whether it puts examples of one shape behind each other, as torch does by default."""
        return self.collate is default_collate

    def __call__(self, examples: list[Any]) -> Any:
        """The batch.

        Raises:
            TypeError: if the examples have no targets.
            ValueError: if their shapes differ.
            OSError: if there is no memory to share it with another process.
            RuntimeError: what the user's function raised.
        """
        first = examples[0]
        is_example = is_named(first) or isinstance(first, tuple | list) and len(first) == 2
        if self.is_default and not is_example:
            raise TypeError(
                f"The {self.name} part must give pairs (x, y), or dicts with the targets under 'labels', but an "
                f"example is {described(first)}."
            )
        plain = [as_tree(e) for e in examples] if is_dataclass(first) else examples
        try:
            with noted(f"putting {len(examples)} examples of the {self.name} part into a batch"):
                return self.collate(plain)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            if "/torch_" in reason:  # a file of memory that processes share
                raise OSError(
                    f"A process that reads the {self.name} part needs shared memory for a batch, but {reason}. Lower "
                    "num_workers or batch_size, read in this process by num_workers=0, or allow more (a larger "
                    "/dev/shm, docker run --shm-size, ulimit -f)."
                ) from error
            if not self.is_default:
                raise
            raise ValueError(
                f"The examples of the {self.name} part must have the same shape, but {reason}; pad "
                "them to one length, or give a DataLoader whose collate_fn does so."
            ) from error
