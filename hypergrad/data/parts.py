"""All parts of a user's data: read, in one dtype and on one device, and checked against each other."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from hypergrad.core.torch_internals.trees import tree_map, tree_structure
from hypergrad.data.array import as_labels
from hypergrad.data.batch import keys
from hypergrad.data.source import Part, read
from hypergrad.data.streamed import StreamedPart
from hypergrad.data.streaming import Streaming
from hypergrad.data.tree import named, shapes


def read_parts(
    sources: Mapping[str, Any], like: Tensor, seed: int = 0, streaming: Streaming | None = None
) -> dict[str, Part | StreamedPart]:
    """Every part by name, on the device of `like`, floating-point numbers in its dtype, integer targets as int64.

    Of a part that is streamed, the first examples are compared with those of the other parts.

    Also raised, by what it calls: TypeError if a source is none; ValueError if a part is empty, holds NaN, or does not
    fit the first.
    """
    parts: dict[str, Part | StreamedPart] = {}
    seen: dict[str, Part] = {}
    for name, source in sources.items():
        part: Part | StreamedPart | None = None if streaming is None else streaming.part(source, name, like)
        if part is None:
            part = read(source, name, seed)
            part = replace(part, X=tree_map(lambda x: cast(x, like), part.X), y=cast(as_labels(part.y), like))
        for other, before in list(parts.items())[:1]:
            _require_alike(in_memory(part), in_memory(before), name, other)
        if isinstance(part, Part):
            _warn_of_overlap(part, seen, name)
            seen[name] = part
        parts[name] = part
    return parts


def in_memory(part: Part | StreamedPart) -> Part:
    """What is in memory of a part: all examples, or the first ones."""
    return part if isinstance(part, Part) else Part(*part.first, part.columns)


def cast(x: Tensor, like: Tensor) -> Tensor:
    """The tensor on the device of `like`, and in its dtype if both are floating-point numbers."""
    return x.to(like.device, like.dtype if x.is_floating_point() and like.is_floating_point() else x.dtype)


def require_classes(y: Tensor, num_classes: int, ignored: int | None, name: str) -> None:
    """Require that integer targets are classes from 0 to K − 1.

    Raises:
        ValueError: if some are not.
    """
    bad = (y < 0) | (y >= num_classes)
    if ignored is not None:
        bad &= y != ignored
    if bad.any():
        raise ValueError(
            f"The targets of the {name} part must be classes from 0 to {num_classes - 1}, because the model has "
            f"{num_classes} outputs, but {int(bad.sum())} of {y.numel()} are not, such as {y[bad][0].item()}. Number "
            "the classes from 0, or give the last layer as many outputs as there are classes."
        )


def require_columns(columns: tuple[str, ...], wanted: tuple[str, ...], name: str, other: str) -> None:
    """Require that the columns of the part `name` are those of the part `other`, if the names of both are known.

    Raises:
        ValueError: if they differ.
    """
    if columns == wanted or not columns or not wanted:
        return
    found = {"lacks": sorted(set(wanted) - set(columns)), "has": sorted(set(columns) - set(wanted))}
    differs = [f"{verb} {', '.join(map(repr, some))}" for verb, some in found.items() if some]
    raise ValueError(
        f"The {name} part must have the columns of the {other} part in the same order, but it "
        f"{' and '.join(differs) or 'has them in another order'}; select them by X = X[X_{other}.columns]."
    )


def _require_alike(part: Part, first: Part, name: str, other: str) -> None:
    """Require the same inputs by name, targets with as many axes, and the same columns.

    Raises:
        ValueError: if the inputs or targets differ.
    """
    if tree_structure(part.X) != tree_structure(first.X):
        raise ValueError(
            f"The {name} part must have the same inputs as the {other} part, but it has {shapes(part.X)}, and "
            f"{other} has {shapes(first.X)}. Give all parts the same inputs, by the same names or positions."
        )
    if part.y.ndim != first.y.ndim:
        raise ValueError(
            f"The targets of the {name} part must have as many axes as those of the {other} part, but they have shape "
            f"{tuple(part.y.shape)}, and those of {other} have {tuple(first.y.shape)}; change one by y.squeeze(1) or "
            "y.unsqueeze(1), or classes to probabilities by torch.nn.functional.one_hot(y).float()."
        )
    require_columns(part.columns, first.columns, name, other)


def _warn_of_overlap(part: Part, seen: dict[str, Part], name: str) -> None:
    """Warn if examples of a part, inputs and targets, are in an earlier part too, with their number."""
    found = keys(part)
    for other, before in seen.items():
        if _shape_of_one(part) != _shape_of_one(before):
            continue
        known = set(keys(before))
        count = sum(key in known for key in found)
        if count:
            warnings.warn(
                f"{count} of the {len(found)} {name} examples are in the {other} part too, so the {name} loss is "
                "lower than on unseen examples.",
                UserWarning,
                stacklevel=4,
            )


def _shape_of_one(part: Part) -> list[Any]:
    return [x.shape[1:] for x in (*named(part.X).values(), part.y)]
