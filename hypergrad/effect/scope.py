"""Effects on some of the parameters, with one value for all of them or one for each part."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor
from torch.distributions import constraints

from hypergrad.core.autodiff import Tensors
from hypergrad.core.hyperparameter import Hyperparameter
from hypergrad.core.local_shard import sums_of
from hypergrad.effect.base import Effect, Site

_PER = ("all", "tensor", "feature", "output", "weight")


@dataclass(frozen=True, kw_only=True)
class Scoped(Effect):
    """A positive value for each part of some parameters.

    Attributes:
        init: the initial value, > 0.
        per: "all" for one value, shape (); "tensor" for one per tensor, shape (G,), in the order of the model;
            "feature" for one per input of a layer (the last axis of its weight), shape (p,), shared by tensors
            that have the same inputs; "output" for one per output of a layer (the first axis of its weight and its
            bias), shape (q,), shared by tensors that have the same outputs; "weight" for one per entry, shape (n,),
            tensor after tensor.
        on: a glob pattern for the names of the parameters, or several, such as `("*.weight",)`; `"*"` is all.
    """

    init: float
    per: str = "all"
    on: str | tuple[str, ...] = "*"

    def __post_init__(self) -> None:
        if self.per not in _PER:
            raise ValueError(f"{type(self).__name__}.per must be one of {', '.join(_PER)}, but it is {self.per!r}.")
        patterns = (self.on,) if isinstance(self.on, str) else tuple(self.on)
        object.__setattr__(self, "on", patterns)

    def space(self, site: Site) -> Hyperparameter:
        shape, chosen = self._shape(site.params), tuple(self.chosen(site.params))
        labels = chosen if self.per == "tensor" else ()
        if self.per == "feature" and site.readers.issuperset(chosen):
            labels = site.columns
        return Hyperparameter(self.init, shape=shape, constraint=constraints.positive, labels=labels)

    def chosen(self, params: Tensors) -> Tensors:
        """The tensors that the effect acts on."""
        return {name: p for name, p in params.items() if any(fnmatchcase(name, pattern) for pattern in self.on)}

    def total(self, value: Tensor, params: Tensors, measure: Callable[[Tensor], Tensor]) -> Tensor:
        """Σ_j λ_j m(w_j) over the chosen entries, for an entrywise m; shape ()."""
        tensors = self.chosen(params)
        factors, measured = self.factors(value, tensors), [measure(w) for w in tensors.values()]
        pairs = list(zip(factors, measured, strict=True))
        sums = sums_of([m if factor.ndim == 0 else factor * m for factor, m in pairs])
        terms = [factor * x if factor.ndim == 0 else x for factor, x in zip(factors, sums, strict=True)]
        return sum(terms[1:], start=terms[0])

    def factors(self, value: Tensor, tensors: Tensors) -> list[Tensor]:
        """The value for each of the chosen tensors, in a shape that broadcasts to it."""
        if self.per == "tensor":
            return list(value.unbind())
        if self.per == "output":
            return [value.view(-1, *[1] * (w.ndim - 1)) for w in tensors.values()]
        if self.per == "weight":
            pieces = value.split([w.numel() for w in tensors.values()])
            return [piece.view_as(w) for piece, w in zip(pieces, tensors.values(), strict=True)]
        return [value] * len(tensors)

    def _shape(self, params: Tensors) -> tuple[int, ...]:
        """The shape of λ.

        Raises:
            ValueError: if a pattern matches no parameter, or the chosen ones do not share their inputs or outputs.
        """
        missed = [pattern for pattern in self.on if not any(fnmatchcase(known, pattern) for known in params)]
        if missed:
            raise ValueError(
                f"{type(self).__name__}.on = {missed[0]!r} matches none of the trained parameters, which are "
                f"{', '.join(params)}."
            )
        tensors = self.chosen(params)
        if self.per == "tensor":
            return (len(tensors),)
        if self.per == "weight":
            return (sum(w.numel() for w in tensors.values()),)
        return () if self.per == "all" else self._shared_width(tensors)

    def _shared_width(self, tensors: Tensors) -> tuple[int, ...]:
        """(p,) or (q,), the number of inputs or outputs that all layers have.

        Raises:
            ValueError: if they have several.
        """
        if self.per == "feature":
            needed = "weights of shape (…, p) with the same p"
            widths = [w.shape[-1:] if w.ndim > 1 else () for w in tensors.values()]
        else:
            needed, widths = "tensors of shape (q, …) with the same q", [w.shape[:1] for w in tensors.values()]
        if len(set(widths)) > 1 or () in widths:
            raise ValueError(
                f"{type(self).__name__}.per = {self.per!r} needs {needed}, but "
                f"{', '.join(f'{known} is {tuple(w.shape)}' for known, w in tensors.items())}; choose others by `on`."
            )
        return tuple(widths[0])
