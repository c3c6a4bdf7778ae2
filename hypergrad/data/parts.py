"""All parts of a user's data: read, in one dtype and on one device, and checked for overlap."""

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hypergrad.data.source import read
from hypergrad.data.tables import Split


def read_parts(sources: Mapping[str, Any], like: Tensor) -> dict[str, Split]:
    """Every part by name, on the device of `like`, and in its dtype unless they are integers.

    Also raised, by what it calls: TypeError if a source is none; ValueError if a part is empty or holds NaN.
    """
    parts: dict[str, Split] = {}
    for name, source in sources.items():
        part = Split(*(x.to(like.device, like.dtype if x.is_floating_point() else x.dtype) for x in read(source, name)))
        _warn_of_overlap(part, parts, name)
        parts[name] = part
    return parts


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
            f"{num_classes} outputs, but {int(bad.sum())} of {y.numel()} are not, such as {y[bad][0].item()}."
        )


def _warn_of_overlap(part: Split, seen: dict[str, Split], name: str) -> None:
    """Warn if examples of a part, inputs and targets, are in an earlier part too, with their number."""
    keys = _keys(part)
    for other, split in seen.items():
        if split.X.shape[1:] != part.X.shape[1:] or split.y.shape[1:] != part.y.shape[1:]:
            continue
        known = set(_keys(split))
        count = sum(key in known for key in keys)
        if count:
            warnings.warn(
                f"{count} of the {len(keys)} {name} examples are in the {other} part too, so the {name} loss is "
                "lower than on unseen examples.",
                UserWarning,
                stacklevel=4,
            )


def _keys(split: Split) -> list[bytes]:
    X, y = (part.detach().cpu().flatten(1) if part.ndim > 1 else part.detach().cpu()[:, None] for part in split)
    return [x.tobytes() + t.tobytes() for x, t in zip(X.numpy(), y.numpy(), strict=True)]
