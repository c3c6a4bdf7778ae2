"""Kronecker factors that are used for several outer steps."""

from dataclasses import astuple, dataclass, field, replace
from typing import Any

from torch import Tensor

from hypergrad.core.kronecker import Kronecker, KroneckerSettings, Layer
from hypergrad.core.operator import Operator


@dataclass
class KeptFactors:
    """The factors of one outer step, made once, or taken from an earlier step for as long as `refresh` allows.

    Attributes:
        outer_step: of the present estimate.
        kept: what earlier steps left: the step at which factors were made, their settings, and the layers as tuples.
    """

    outer_step: int
    kept: dict[str, Any] | None = None
    _made: dict[KroneckerSettings, tuple[int, list[Layer]]] = field(default_factory=dict)

    @classmethod
    def of(cls, carry: Any, outer_step: int) -> "KeptFactors":
        """What a `carry` of an earlier estimate holds; nothing for a vector or None."""
        return cls(outer_step, carry.get("kronecker") if isinstance(carry, dict) else None)

    def watch(self, A: Operator) -> Operator:
        """A, which makes its factors only where there are none to use."""
        own = A.kronecker
        return A if own is None else replace(A, kronecker=replace(own, factors=lambda s: self._factors(own, s)))

    def carry(self, adjoint: Tensor) -> Any:
        """The carry of this estimate: the adjoint v, and factors if a later step may use them."""
        lasting = [(s, found) for s, found in self._made.items() if s.refresh > 1]
        if not lasting:
            return adjoint
        settings, (step, layers) = lasting[-1]
        kept = {"step": step, "settings": list(astuple(settings)), "layers": [tuple(layer) for layer in layers]}
        return {"adjoint": adjoint, "kronecker": kept}

    def _factors(self, own: Kronecker, settings: KroneckerSettings) -> list[Layer]:
        if settings not in self._made:
            kept = self.kept
            if kept is not None and self._may_use(kept, settings):
                self._made[settings] = kept["step"], [Layer(*layer) for layer in kept["layers"]]
            else:
                self._made[settings] = self.outer_step, own.factors(settings)
        return self._made[settings][1]

    def _may_use(self, kept: dict[str, Any], settings: KroneckerSettings) -> bool:
        age = self.outer_step - kept["step"]
        return kept["settings"] == list(astuple(settings)) and 0 <= age < settings.refresh


def adjoint_in(carry: Any) -> Tensor | None:
    """The adjoint v in a `carry`, which is that vector or holds it; None without one."""
    found = carry.get("adjoint") if isinstance(carry, dict) else carry
    return found if isinstance(found, Tensor) else None
