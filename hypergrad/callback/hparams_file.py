"""Hyperparameters as plain values, and as a file that people and programs read."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from hypergrad.callback.atomic import replace_together
from hypergrad.core.autodiff import Tensors

HPARAMS_FILE, _LARGE = "hparams.yaml", "hparams.pt"
_MOST_ENTRIES = 1000
"""A hyperparameter of more entries is in `hparams.pt`."""
_HEAD = "# The hyperparameters, in natural units. To read them: hypergrad.load_hparams\n"


def plain(hparams: Tensors) -> dict[str, Any]:
    """Named tensors as numbers and nested lists, with every digit, for `json.dumps` and the like.

    Args:
        hparams: tensors of any shape by name, such as `result.hparams`; one of shape () becomes a number.
    """
    return {name: value.tolist() for name, value in hparams.items()}


def save_hparams(
    folder: Path,
    hparams: Tensors,
    labels: Mapping[str, tuple[str, ...]],
    about: Mapping[str, Any],
    beside: Mapping[str, Callable[[IO[bytes]], object]],
) -> None:
    """Write `hparams.yaml`, and `hparams.pt` if one of them has more than 1000 entries, and files that belong to it.

    A scalar is a number, a vector with labels a number for each label, and anything else a list. `load_hparams` reads
    them back, bit for bit.

    Args:
        folder: created when missing.
        hparams: λ in natural units.
        labels: names of the entries of a vector, by hyperparameter; may be empty.
        about: plain values that describe λ, by name; they come first.
        beside: what writes the other files, by their names. There is no `hparams.yaml` while only some are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    large = {name: x.detach().cpu() for name, x in hparams.items() if _is_large(x)}
    small = {name: _readable(x, labels.get(name, ())) for name, x in hparams.items() if name not in large}
    values = {name: small.get(name, _LARGE) for name in hparams}
    dtype = next(iter(hparams.values())).dtype
    described = {**about, "dtype": str(dtype).removeprefix("torch."), "hparams": values}
    text = (_HEAD + _as_yaml(described)).encode()
    files = {**beside, **({_LARGE: partial(torch.save, large)} if large else {}), HPARAMS_FILE: lambda f: f.write(text)}
    replace_together({folder / name: write for name, write in files.items()})


def load_hparams(source: str | Path) -> Tensors:
    """The hyperparameters of a run, in natural units and in the dtype of the run, on the CPU.

    Args:
        source: the folder of a run, or a file `hparams.yaml` in the form in which runs and `Result.save` leave it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file has another form.
    """
    path = Path(source) / HPARAMS_FILE if Path(source).is_dir() else Path(source)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; name the folder of a run, or the {HPARAMS_FILE} that a run or result.save leaves."
        )
    import yaml  # here, because not everyone who imports hypergrad needs it

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    values = content.get("hparams") if isinstance(content, dict) else None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must have a key `hparams` with a value for each name, but it has {values!r}.")
    dtype = getattr(torch, str(content.get("dtype")), None) or torch.get_default_dtype()
    large = path.with_name(_LARGE)
    stored = torch.load(large, weights_only=True, map_location="cpu") if _LARGE in values.values() else {}
    return {
        name: stored[name] if value == _LARGE else _tensor(value, dtype, f"{path}: hparams.{name}")
        for name, value in values.items()
    }


def _as_yaml(content: Mapping[str, Any]) -> str:
    """YAML with everything in blocks, except lists."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    tag = yaml.resolver.BaseResolver.DEFAULT_SEQUENCE_TAG
    Dumper.add_representer(list, lambda dumper, xs: dumper.represent_sequence(tag, xs, flow_style=True))
    return yaml.dump(content, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def _is_large(value: Tensor) -> bool:
    # Lists do not tell the shape of a matrix without entries.
    return value.numel() > _MOST_ENTRIES or (value.numel() == 0 and value.ndim > 1)


def _readable(value: Tensor, labels: tuple[str, ...]) -> Any:
    entries = value.tolist()
    if value.shape == (len(labels),) and len(set(labels)) == len(labels):
        return dict(zip(labels, entries, strict=True))
    return entries


def _tensor(value: Any, dtype: torch.dtype, where: str) -> Tensor:
    try:
        return torch.tensor(list(value.values()) if isinstance(value, dict) else value, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{where} must be a number, a list of numbers, or a number for each label, but it is {value!r}."
        ) from error
