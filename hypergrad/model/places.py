"""Where a module keeps its tensors, and how others are put there for a call."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from hypergrad.model.copying import own_state, parts_of


class _Place(NamedTuple):
    module: nn.Module
    table: str
    """The attribute that holds the entry, or "" for an attribute of the module itself."""
    key: str

    def holder(self) -> dict[str, Any]:
        return vars(self.module)[self.table] if self.table else vars(self.module)


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
        for part in parts_of(module):
            tables = [("_parameters", part._parameters), ("_buffers", part._buffers), ("", own_state(part))]
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

    @contextmanager
    def hold(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """A context in which other tensors, by name, are in the places of the module's own."""
        new: dict[int, Tensor] = {}
        before = [(place.holder(), place.key, place.holder()[place.key]) for place in self._written]
        try:
            for name, x in tensors.items():
                for place in self._places[self._aliases.get(name, name)]:
                    holder = place.holder()
                    own = holder[place.key]
                    before.append((holder, place.key, own))
                    new[id(own)] = holder[place.key] = x
            for place in self._containers:
                holder = place.holder()
                own = holder[place.key]
                before.append((holder, place.key, own))
                holder[place.key] = tree_map(lambda x: new.get(id(x), x), own)
            yield
        finally:
            for holder, key, own in before:
                holder[key] = own
