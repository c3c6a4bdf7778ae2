"""Where a module keeps its tensors, and how others are put there for a call."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from hypergrad.core.torch_internals.modules import BUFFERS, PARAMETERS, buffers_of, parameters_of
from hypergrad.core.torch_internals.trees import tree_leaves, tree_map
from hypergrad.model.copying import own_state, parts_of


class _Place(NamedTuple):
    module: nn.Module
    table: str
    """The attribute that holds the entry, or "" for an attribute of the module itself."""
    key: str

    def holder(self) -> dict[str, Any]:
        return vars(self.module)[self.table] if self.table else vars(self.module)


_Slot = tuple[dict[str, Any], str]
"""A dict of a module and the key of a place in it."""


class Places:
    """Every place at which a module keeps a parameter or buffer: under several names, in shared modules, in lists.

    They are found once, before any call.

    Args:
        module: its parameters and buffers must be those of each later call.
    """

    def __init__(self, module: nn.Module) -> None:
        tensors = dict(module.named_parameters()) | dict(module.named_buffers())
        names = {id(x): name for name, x in tensors.items()}
        self._aliases = {
            alias: names[id(x)]
            for named in (module.named_parameters, module.named_buffers)
            for alias, x in named(remove_duplicate=False)
        }
        self._places: dict[str, list[_Place]] = {name: [] for name in tensors}
        self._containers: list[_Place] = []
        self._written: list[_Place] = []
        self._slots: dict[str, list[_Slot]] | None = None
        for part in parts_of(module):
            tables = [(PARAMETERS, parameters_of(part)), (BUFFERS, buffers_of(part)), ("", own_state(part))]
            for table, entries in tables:
                for key, value in entries.items():
                    if id(value) in names:
                        self._places[names[id(value)]].append(_Place(part, table, key))
                    elif any(id(x) in names for x in tree_leaves(value)):
                        self._containers.append(_Place(part, table, key))

    def names_in(self, parts: Collection[nn.Module]) -> list[str]:
        """The names of the parameters and buffers that some parts of the module keep."""
        names = {id(places[0].holder()[places[0].key]): name for name, places in self._places.items()}
        inside = {
            names[id(x)]
            for p in self._containers
            if p.module in parts
            for x in tree_leaves(p.holder()[p.key])
            if id(x) in names
        }
        return [
            name for name, places in self._places.items() if name in inside or any(p.module in parts for p in places)
        ]

    def current(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The tensors that are in these places now."""
        return {name: self._places[name][0].holder()[self._places[name][0].key] for name in names}

    def restore(self, part: nn.Module, attribute: str, value: Any) -> None:
        """Let an attribute that each call writes, such as the weight of a pruned layer, have this value afterwards."""
        vars(part)[attribute] = value
        self._written.append(_Place(part, "", attribute))

    def hold(self, tensors: Mapping[str, Tensor]) -> "Held":
        """A context in which other tensors, by name, are in the places of the module's own."""
        return Held(self, tensors)

    def slots(self) -> dict[str, list[_Slot]]:
        """The places of each tensor, by all of its names."""
        if self._slots is None:
            own = {name: [(p.holder(), p.key) for p in places] for name, places in self._places.items()}
            self._slots = {alias: own[name] for alias, name in self._aliases.items()}
        return self._slots

    def __getstate__(self) -> dict[str, Any]:
        """The attributes of a copy, whose module has dicts of its own."""
        return {**vars(self), "_slots": None}


class Held:
    """A context in which other tensors, by name, are in the places of a module's own.

    Args:
        places: of the module.
        tensors: by name.
    """

    __slots__ = ("_before", "_places", "_tensors")

    def __init__(self, places: Places, tensors: Mapping[str, Tensor]) -> None:
        self._places, self._tensors = places, tensors

    def __enter__(self) -> None:
        places = self._places
        self._before: list[tuple[dict[str, Any], str, Any]] = []
        before, slots = self._before, places.slots()
        for place in places._written:
            before.append((place.holder(), place.key, place.holder()[place.key]))
        try:
            for name, x in self._tensors.items():
                for holder, key in slots[name]:
                    before.append((holder, key, holder[key]))
                    holder[key] = x
            if places._containers:
                self._fill(places._containers)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        for holder, key, own in self._before:
            holder[key] = own

    def _fill(self, containers: list[_Place]) -> None:
        """Put the tensors into lists and other containers too."""
        new = {id(own): holder[key] for holder, key, own in self._before}
        for place in containers:
            holder = place.holder()
            own = holder[place.key]
            self._before.append((holder, place.key, own))
            holder[place.key] = tree_map(lambda x: new.get(id(x), x), own)
