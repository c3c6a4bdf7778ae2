"""What a config may build: objects of this library, of torch and of the user's own modules, and nothing else."""

import importlib.util
import inspect
import pydoc
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

_ROOTS = ("hypergrad", "torchvision", "torchaudio")
_TORCH = ("torch.nn", "torch.optim", "torch.distributions", "torch.utils.data")
"""The parts of torch that define layers, losses, optimisers, constraints and data sets."""
_PICKLES = ("torch.utils.data.datapipes", "torchvision.datasets.lsun")
"""What unpickles a file without a check."""
_OPERATION = type(torch.relu)
_LOOKUPS = ("hydra.utils.get_object", "hydra.utils.get_class", "hydra.utils.get_method")
_START = Path.cwd()
"""The folder in which the command was started, where `python -m` looks for modules."""


def require_allowed(target: str, trusted: Iterable[str] = ()) -> None:
    """Require that a config may build what `target` names; a module that is not allowed is not even imported.

    Allowed is what is defined in hypergrad, torchvision, torchaudio, `torch.nn`, `torch.optim`, `torch.distributions`
    and `torch.utils.data`; torch's operations, such as `torch.tanh`; modules in the folder in which the command was
    started, but for the folders of runs and installed packages in it; and what is trusted. Hydra's lookups are allowed
    too, because what they look up is a target of its own.

    Args:
        target: a dotted path, such as "hypergrad.Ridge".
        trusted: further modules, classes or functions, by their dotted paths.

    Raises:
        ValueError: if it is not allowed.
    """
    names = tuple(trusted)
    if target in _LOOKUPS or _is_below(target, names):
        return
    root = target.partition(".")[0]
    if root.isidentifier() and root not in sys.modules and importlib.util.find_spec(root) is None:
        return  # Hydra says more of what does not exist
    if not (root in (*_ROOTS, "torch") or _is_own(target)):
        raise ValueError(_refusal(target, f"{root} is none of them", names))
    found = pydoc.locate(target)
    if found is None:
        return
    home = _home(found)
    if not (_is_operation(found, target) or _is_below(home, names) or _is_allowed_home(home)):
        raise ValueError(_refusal(target, f"it is defined in {home or 'no module'}", names))


def _is_below(path: str, prefixes: Iterable[str]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in prefixes)


def _is_operation(found: Any, target: str) -> bool:
    """Whether an object is an operation or dtype of torch."""
    name = target.rpartition(".")[2]
    if isinstance(found, _OPERATION):
        return any(getattr(place, name, None) is found for place in (torch, functional)) and name != "from_file"
    return isinstance(found, torch.dtype)


def _is_allowed_home(home: str) -> bool:
    return _is_below(home, (*_ROOTS, *_TORCH)) and not _is_below(home, _PICKLES) or _is_own(home)


def _home(found: Any) -> str:
    """The module that defines a class, a function, or the class of another object; "" for modules and methods.

    The path by which an object is reached does not matter, because every module holds others that it imports.
    """
    if isinstance(found, types.ModuleType | types.MethodType):
        return ""
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        found = type(found)
    return str(getattr(found, "__module__", None) or "")


def _is_own(path: str) -> bool:
    """Whether the modules on a dotted path, which need not be imported, are the user's own."""
    root = path.partition(".")[0]
    if root in sys.stdlib_module_names:
        return False
    files = list(_files(path))
    return bool(files) and all(is_users(file) for file in files)


def _files(path: str) -> Iterator[Path]:
    """The files and folders that Python imports for a dotted path; classes at its end have none."""
    root, *parts = path.split(".")
    try:
        spec = importlib.util.find_spec(root)
    except (ImportError, ValueError):  # "" or "__main__"
        spec = None
    if spec is None:
        return
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    yield from folders
    if spec.origin is not None:
        yield Path(spec.origin)
    for part in parts:
        found = [place for folder in folders for place in (folder / part, folder / f"{part}.py") if place.exists()]
        yield from found
        folders = [place for place in found if place.is_dir()]


def is_users(file: Path) -> bool:
    """Whether a file or folder lies below the start folder, but in no installed package and in no folder of a run."""
    place, start = file.resolve(), _START.resolve()
    if start not in (place, *place.parents) or {"site-packages", "dist-packages"} & set(place.parts):
        return False
    return not any(
        (folder / ".hydra").exists() for folder in (place, *place.parents) if start in (folder, *folder.parents)
    )


def _refusal(target: str, why: str, trusted: tuple[str, ...]) -> str:
    return (
        f"A config may build what is defined in {', '.join((*_ROOTS, *_TORCH))} or a module of the current folder, but "
        f"not {target}: {why}. If you trust it, add 'allow_targets=[{','.join((*trusted, target))}]' to the command."
    )
