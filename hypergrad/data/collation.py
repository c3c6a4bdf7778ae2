"""Examples of a data set put into a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

from torch.utils.data import default_collate

from hypergrad.data.batch import described, is_named, noted
from hypergrad.data.tree import as_tree

_NONE = object()


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
            TypeError: if the examples have no targets, or hold something else than tensors, arrays and numbers.
            ValueError: if their shapes differ.
            OSError: if there is no memory to share it with another process.
            RuntimeError: what the user's function raised.
        """
        other = next((example for example in examples if not _is_example(example)), _NONE)
        if self.is_default and other is not _NONE:
            raise TypeError(
                f"The {self.name} part must give pairs (x, y), or dicts with the targets under 'labels', but an "
                f"example is {described(other)}."
            )
        plain = [as_tree(e) for e in examples] if is_dataclass(examples[0]) else examples
        try:
            with noted(f"putting {len(examples)} examples of the {self.name} part into a batch"):
                return self.collate(plain)
        except TypeError as error:
            if not self.is_default:
                raise
            raise self._no_numbers(error) from error
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
            if "size" not in reason:
                raise self._no_numbers(error) from error
            raise ValueError(
                f"The examples of the {self.name} part must have the same shape, but {reason}; pad "
                "them to one length, or give a DataLoader whose collate_fn does so."
            ) from error

    def _no_numbers(self, error: Exception) -> TypeError:
        return TypeError(
            f"The examples of the {self.name} part must hold tensors, arrays or numbers, but torch says: "
            f"{str(error).splitlines()[0]}."
        )


def collated(collate: Callable[[list[Any]], Any], examples: list[Any], rows: Sequence[object], name: str) -> Any:
    """The batch of some examples; an error says which of them fits neither itself nor most of the others.

    Args:
        collate: a `Collation`, or a function of the user, whose errors are left as they are.
        examples: at least one.
        rows: what an error calls each of them.
        name: of the part.

    Raises:
        TypeError: if an example is none.
        ValueError: if the shapes differ.
    """
    try:
        return collate(examples)
    except (TypeError, ValueError) as error:
        if not getattr(collate, "is_default", False):
            raise
        found = _odd_one(collate, examples)
        if found is None:
            raise
        odd, own = found
        kind = TypeError if isinstance(own, TypeError) else ValueError
        raise kind(f"Example {rows[odd]} of the {name} part: {own}") from error


def _odd_one(collate: Callable[[list[Any]], Any], examples: list[Any]) -> tuple[int, Exception] | None:
    """The first example that fits neither itself nor most of the others, and the error of a pair with it."""
    failed: dict[int, Exception] = {}
    for k, example in enumerate(examples):
        try:
            collate([examples[0], example])
        except (TypeError, ValueError) as error:
            failed[k] = error
    for k, error in failed.items():
        return (0 if len(failed) > max(len(examples) // 2, 1) else k), error
    return None


def _is_example(example: Any) -> bool:
    return is_named(example) or isinstance(example, tuple | list) and len(example) == 2
