"""One part of a user's data, read and checked."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from hypergrad.core.torch_internals.trees import tree_map
from hypergrad.data.array import is_pandas
from hypergrad.data.batch import (
    Examples,
    as_examples,
    described,
    is_named,
    is_pair,
    keys,
    no_examples,
    noted,
    require_examples,
)
from hypergrad.data.collation import Collation, collated
from hypergrad.data.random_examples import RandomExamples
from hypergrad.data.random_state import kept_random_state, random_state
from hypergrad.data.tree import named, shapes, take

_AUGMENT = (
    "write it as a torch.utils.data.Dataset with __getitem__, whose draws are seeded by epoch and example, or augment "
    "in the forward of the model, `if self.training:`"
)


@dataclass(frozen=True)
class Part:
    """Inputs and targets of a part.

    Attributes:
        X: a tensor of shape (n, …), or tuples and dicts of such tensors.
        y: shape (n, …).
        columns: the names of the columns of X, if it was a DataFrame.
        random: reads the examples again in each epoch, if the data set draws random numbers.
    """

    X: Any
    y: Tensor
    columns: tuple[str, ...] = ()
    random: RandomExamples | None = None


def read(source: Any, name: str, seed: int = 0) -> Part:
    """Inputs and targets of a part, in memory.

    Args:
        source: a pair (X, y) of tensors, arrays, DataFrames or lists of numbers, X also a tuple or dict of them; a dict
            or dataclass with the targets under "labels"; a data set of such examples; or an iterable of such batches,
            such as a `DataLoader`, whose order does not matter.
        name: what an error calls the part.
        seed: of the draws of a random data set.

    Raises:
        TypeError: if it is none of these.

    Also raised, by what it calls: ValueError if it is empty, its lengths differ, it holds NaN, or it cannot be read
    twice with the same result.
    """
    if isinstance(source, DataLoader) and not isinstance(source.dataset, IterableDataset):
        examples, random = _of_dataset(source.dataset, visited(source, name), source.collate_fn, name, seed)
    elif is_named(source) or is_pair(source):
        examples, random = as_examples(source, name), None
    elif is_dataset(source):
        examples, random = _of_dataset(source, range(len(source)), default_collate, name, seed)
    elif isinstance(source, Iterable) and not _is_table(source):
        examples, random = _of_batches(source, name), None
    else:
        raise TypeError(
            f"The {name} part must be a pair (X, y) of tensors, a dict with the targets under 'labels', a Dataset, or "
            f"an iterable of batches (X, y), but it is {described(source)}. Several inputs are ((X1, X2), y); weights "
            "of examples are hyperparameters, hg.ExampleWeights()."
        )
    checked = require_examples(examples, name)
    return Part(*checked, random=random)


def is_dataset(source: Any) -> bool:
    """Whether examples can be read from it one by one, by their positions."""
    if isinstance(source, Dataset):
        return not isinstance(source, IterableDataset)
    others = str | bytes | Sequence | Mapping | Tensor
    is_map = hasattr(source, "__getitem__") and hasattr(source, "__len__") and not hasattr(source, "shape")
    return is_map and not isinstance(source, others) and not is_pandas(source, "Series")


def _is_table(source: Any) -> bool:
    """Whether it is one array or text, or a row of arrays, and so no iterable of batches."""
    is_row = isinstance(source, tuple | list) and len(source) > 0 and all(hasattr(x, "shape") for x in source)
    return is_row or isinstance(source, str | bytes) or hasattr(source, "shape")


def visited(loader: Any, name: str) -> Sequence[int]:
    """The positions in the data set of the examples that a loader visits once in each epoch.

    Raises:
        ValueError: if it visits some more often than others.
    """
    sampler = loader.sampler
    if isinstance(sampler, SubsetRandomSampler):
        return list(sampler.indices)
    if isinstance(sampler, WeightedRandomSampler) or isinstance(sampler, RandomSampler) and sampler.replacement:
        raise ValueError(
            f"The loader of the {name} part must visit each example once in an epoch, but its "
            f"{type(sampler).__name__} draws some more often than others; leave it out, and weight the examples by "
            "hg.ExampleWeights or the classes by the loss."
        )
    return range(len(loader.dataset))


def _of_dataset(
    dataset: Any, positions: Sequence[int], collate: Callable[[list[Any]], Any], name: str, seed: int
) -> tuple[Examples, RandomExamples | None]:
    """All examples, and how to read them again if that draws random numbers.

    Raises:
        ValueError: if there are none.

    Also raised, by what it calls: ValueError if reading one again gives another value.
    """
    if len(positions) == 0:
        raise ValueError(no_examples(name))
    again = RandomExamples(dataset, positions, Collation(collate, name), name, seed)
    with kept_random_state():
        before, found = random_state(), []
        for position in positions:
            with noted(f"reading example {position} of {len(dataset)} of the {name} part"):
                found.append(dataset[position])
        examples = as_examples(collated(again.collate, found, positions, name), name)
        draws = random_state() != before
    require_repeatable(again)
    return (again.fresh(range(len(positions)), 0), again) if draws else (examples, None)


def require_repeatable(examples: RandomExamples) -> None:
    """Require that the first example is the same when it is read again under the same random states.

    Raises:
        ValueError: if it is not.
    """
    if keys(examples.fresh([0], 0)) != keys(examples.fresh([0], 0)):
        raise ValueError(
            f"Reading example {examples.positions[0]} of the {examples.name} part twice gives two values, though the "
            "random states of torch, Python and numpy are the same, but a training step must be repeatable; draw from "
            f"these, and not from a generator of its own: {_AUGMENT}."
        )


def _of_batches(source: Iterable[Any], name: str) -> Examples:
    """All examples of the batches.

    Raises:
        ValueError: if a second pass gives other examples.
    """
    before = random_state()
    examples = _pass(source, name)
    if random_state() == before or iter(source) is source:
        return examples
    with kept_random_state():
        again = _pass(source, name)
    if sorted(keys(examples)) != sorted(keys(again)):
        raise ValueError(
            f"Reading the batches of the {name} part twice gives other examples, but a training step must be "
            f"repeatable, and the draws of an iterable cannot be repeated; {_AUGMENT}."
        )
    return examples


def _pass(source: Iterable[Any], name: str) -> Examples:
    """All examples of one pass over the batches.

    Raises:
        ValueError: if there are none, or their shapes differ.

    Also raised, by what it calls: TypeError if the batches are single examples.
    """
    with noted(f"reading the batches of the {name} part"):
        batches = list(source)
    if not batches:
        raise ValueError(no_examples(name))
    _require_batch(batches[0], name)
    found = [as_examples(batch, name) for batch in batches]
    trailing = {str([tuple(x.shape[1:]) for x in (*named(e.X).values(), e.y)]) for e in found}
    if len(trailing) > 1:
        first, other = found[0], next(e for e in found if shapes(take(e.X, [0])) != shapes(take(found[0].X, [0])))
        raise ValueError(
            f"The batches of the {name} part must have the same shape but for the number of examples, but X is "
            f"{shapes(first.X)} in one and {shapes(other.X)} in another; pad all examples to one length."
        )
    X = tree_map(lambda *xs: torch.cat(xs), *(e.X for e in found))
    return Examples(X, torch.cat([e.y for e in found]), found[0].columns)


def _require_batch(batch: Any, name: str) -> None:
    """Require that the first of several batches is no single example, as far as it is a pair.

    Raises:
        TypeError: if it is.
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        return
    is_scalar = isinstance(batch[1], bool | int | float) or getattr(batch[1], "ndim", None) == 0
    sizes = [len(x) for x in batch if getattr(x, "ndim", 0) > 0]
    if is_scalar or len(sizes) == 2 and sizes[0] != sizes[1]:
        met = "are numbers" if is_scalar else f"have {sizes[1]} entries beside inputs with {sizes[0]}"
        raise TypeError(
            f"The {name} part must give batches (X, y), but it gives single examples, whose targets {met}; wrap it: "
            "torch.utils.data.DataLoader(dataset, batch_size=100)."
        )
