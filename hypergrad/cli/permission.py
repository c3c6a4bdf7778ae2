"""Which objects a config may name, checked before anything is called; so a strange run folder can run nothing."""

import importlib
import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from hypergrad.core.torch_internals.operations import OPERATIONS

_PLAIN = {
    *(f"builtins.{name}" for name in ("bool", "complex", "dict", "float", "frozenset", "int", "list", "range")),
    *("builtins.set", "builtins.slice", "builtins.str", "builtins.tuple"),
    *("collections.OrderedDict", "functools.partial"),
    *("hydra.experimental.callbacks.LogJobReturnCallback", "hydra.experimental.callbacks.PickleJobInfoCallback"),
}
"""Objects that can do no harm, whatever they are given."""
_NAMES = ("torch.nn", "torch.optim", "torch.distributions", "torch.utils.data")
_EXTENSIONS = (
    *("torchvision.models", "torchvision.ops", "torchvision.transforms"),
    *("torchaudio.models", "torchaudio.transforms"),
)
_HOMES = (
    *("torch.nn", "torch.optim", "torch.distributions", *_EXTENSIONS),
    *("torch.utils.data.dataset", "torch.utils.data.dataloader", "torch.utils.data.sampler"),
)
"""Where an object that is named by one of the names above must be defined: a module also shows what it imports."""
_NOT_OURS = ("hypergrad.cli", "hypergrad.run", "hypergrad.outer.lock")
"""Parts of this library that are no parts of an experiment."""
_TABLE = "hypergrad.run.Comparison"
_WRITES = {"from_file"}
"""Operations on tensors that do more than compute."""


@dataclass(frozen=True)
class Permission:
    """What configs may name: this library, parts of torch and its extensions, and the user's own code.

    Attributes:
        here: the folder in which the command was started; the modules that lie in it may be named.
        trusted: packages, modules or objects that the command line allows.
        resumed: the folder of a run that is resumed. Modules in it, or beside it below `here`, may not be named: they
            may have come with it.
    """

    here: Path
    trusted: tuple[str, ...] = ()
    resumed: Path | None = None

    def require(self, target: str, key: str) -> None:
        """Require that a config may name an object.

        Args:
            target: its dotted path.
            key: where the config names it.

        Raises:
            ValueError: if it may not.

        Also raised, by what it calls: the error of the user's module, if it cannot be imported.
        """
        if not self._allows(target):
            package = target.split(".")[0]
            inside = "" if self.resumed is None else " that did not come with the resumed run"
            raise ValueError(
                f"{key}: a config may not name {target}. It may name what hypergrad, {', '.join(_NAMES)} and "
                f"{', '.join(_EXTENSIONS)} define, and the modules in {self.here}{inside}. If you know and trust it, "
                f"allow it on the command line: allow_targets={package}, or allow_targets=[{target}]."
            )

    def _allows(self, target: str) -> bool:
        parts = target.split(".")
        if not all(part.isidentifier() for part in parts) or any(part.startswith("__") for part in parts):
            return False
        if target == _TABLE or target in _PLAIN or _is_below(target, self.trusted):
            return True
        if self._lies_here(parts[0]):
            return self._is_own(located(target))
        if _is_below(target, (*_NAMES, *_EXTENSIONS, "hypergrad")) and not any(part[0] == "_" for part in parts):
            return self._is_own(located(target))
        if parts[0] == "torch" and len(parts) == 2:
            return _is_tensor_operation(parts[1])
        # A module that does not exist can do nothing; whoever builds the config says that it is missing.
        return parts[0] not in sys.modules and find_spec(parts[0]) is None

    def _is_own(self, found: Any) -> bool:
        """Whether an object is one that a config may name, by the module that defines it; None is no object."""
        if found is None:
            return True
        if inspect.ismodule(found):
            return False
        home = getattr(found, "__module__", None)
        if inspect.isbuiltin(found) and (home is None or home.startswith("torch._C")):
            return found.__self__ is OPERATIONS or getattr(found.__self__, "__name__", "").startswith("torch._C")
        home = home if isinstance(home, str) else type(found).__module__
        if _is_below(home, ("hypergrad",)):
            return not _is_below(home, _NOT_OURS) and not home.endswith("__main__")
        return _is_below(home, (*_HOMES, *self.trusted)) or self._lies_here(home.split(".")[0])

    def _lies_here(self, name: str) -> bool:
        """Whether the module or package of a name is in the folder of the user, and not part of a resumed run."""
        places = [path for path in (self.here / name, self.here / f"{name}.py") if path.exists()]
        return bool(places) and all(self._is_users(path.resolve()) for path in places) and self._is_found_here(name)

    def _is_users(self, path: Path) -> bool:
        if self.resumed is None:
            return True
        resumed = self.resumed.resolve()
        # Nothing in the run's folder, and nothing that holds it.
        return not (path.is_relative_to(resumed) or resumed.is_relative_to(path) or self.here.is_relative_to(resumed))

    def _is_found_here(self, name: str) -> bool:
        """Whether Python imports the module of this name from here, and not another one."""
        spec = getattr(sys.modules[name], "__spec__", None) if name in sys.modules else find_spec(name)
        if spec is None:
            return False
        places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
        parents = [Path(place).parent for place in places]
        return bool(places) and all(
            self.here in (path, *path.parents, path.resolve(), *path.resolve().parents) for path in parents
        )


def located(target: str) -> Any:
    """The object of a dotted path, found as Hydra finds it; None if there is none.

    Raises:
        ModuleNotFoundError: if a module that is found imports one that is missing.

    Also raised, by what it calls: the error of a module that cannot be imported.
    """
    first, *rest = target.split(".")
    try:
        found, way = importlib.import_module(first), first
        for part in rest:
            way = f"{way}.{part}"
            found = getattr(found, part) if hasattr(found, part) else importlib.import_module(way)
    except ModuleNotFoundError as error:
        if error.name is not None and (target == error.name or target.startswith(f"{error.name}.")):
            return None
        raise
    return found


def _is_below(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _is_tensor_operation(name: str) -> bool:
    found = getattr(torch, name, None)
    if isinstance(found, torch.dtype) or found is None:
        return True
    return found is getattr(OPERATIONS, name, None) and name not in _WRITES
