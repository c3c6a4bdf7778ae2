"""A tensor whose entries are truncated polynomials; PyTorch functions of it compute Taylor coefficients."""

import math
import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor

from hypergrad.core.errors import NoTaylorRuleWarning
from hypergrad.core.torch_internals import trees
from hypergrad.core.torch_internals.objects import without_entries
from hypergrad.taylor.names import CannotExpandError, applied, functions_named, name_of
from hypergrad.taylor.nested import nested_derivatives
from hypergrad.taylor.series import Coefficients

Rule = Callable[..., Any]
"""(function, *args, **kwargs) ↦ the result, with Polynomials among the arguments."""

RULES: dict[Callable, Rule] = {}
"""The rule of each function of PyTorch that has one."""

_REFUSED = (
    *("item", "tolist", "numpy", "__float__", "__int__", "__complex__", "__index__", "__array__", "__format__"),
    *("__setitem__", "__delitem__", "__set__"),
)
"""Methods that read a value, or change one in place."""


class Polynomial(Tensor):
    """x(t) = c₀ + c₁ t + … + c_K t^K, in place of a tensor in a function made of PyTorch's functions.

    Each function of PyTorch has a rule for the coefficients of its result. So f(x(t)) is the truncated series of f
    along the path x(t): all derivatives up to order K from one evaluation, with O(K²) times the operations. The
    coefficients are ordinary tensors, which can be differentiated, batched and traced. Because ∂/∂c₀ of coefficient K
    of f(x(t)) is coefficient K of ∇f(x(t)), one backward pass expands a gradient.

    Comparisons, and functions that are constant almost everywhere, use c₀ alone. A function without a rule is expanded
    by nested reverse mode, with its name in a warning. Reading a value, or changing one in place, is refused.

    Attributes:
        coefs: c₀, …, c_K, all in the shape and dtype of c₀.
        may_share: whether it may be a view, or have one, as results of functions such as `reshape`.

    Raises:
        CannotExpandError: (from functions of a Polynomial) if a value is read or changed in place.

    Source: Griewank, Utke & Walther, "Evaluating higher derivative tensors by forward propagation of univariate Taylor
    series", Mathematics of Computation (2000).
    """

    coefs: Coefficients
    may_share: bool

    @staticmethod
    def __new__(cls, coefs: Coefficients) -> "Polynomial":
        c0 = coefs[0]
        # Metadata only: a module accepts it as a tensor, and nothing can compute with c₀ alone by mistake.
        return without_entries(cls, c0)

    def __init__(self, coefs: Coefficients) -> None:
        c0 = coefs[0]
        shape, dtype = c0.shape, c0.dtype
        # A sum with a larger constant has a larger c₀ alone, and a sum with one of higher precision another dtype.
        self.coefs = [
            c if c is None or (c.shape == shape and c.dtype == dtype) else c.to(dtype).expand(shape) for c in coefs
        ]
        self.may_share = False

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Polynomial of degree {len(self.coefs) - 1} and shape {tuple(self.coefs[0].shape)}"

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if kwargs and kwargs.get("inplace"):
            return _in_place(func, *args, **kwargs)
        if kwargs and kwargs.get("out") is not None:
            raise CannotExpandError(f"{name_of(func)} with out")
        rule = RULES.get(func)
        if rule is not None:
            try:
                return applied(rule, func, args, kwargs)
            except CannotExpandError:
                pass
        return by_nesting(func, *args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise CannotExpandError(str(func))


def rule_for(*names: str | Callable) -> Callable[[Rule], Rule]:
    """Register a rule for the functions and methods of PyTorch with these names, or for the functions given."""

    def register(rule: Rule) -> Rule:
        for function in functions_named(*names):
            RULES[function] = rule
        return rule

    return register


def degree_of(*values: Any) -> int:
    """K of the first Polynomial among the values."""
    return next(len(value.coefs) for value in values if isinstance(value, Polynomial)) - 1


def coefs_of(value: Any, degree: int) -> Coefficients:
    """The coefficients of a Polynomial, or of a constant."""
    return value.coefs if isinstance(value, Polynomial) else (value, *[None] * degree)


def by_nesting(func: Callable, *args: Any, **kwargs: Any) -> Any:
    """The rule for functions without one: nested derivatives of t ↦ func(x(t)), which cost some 4ᴷ times as much.

    Raises:
        CannotExpandError: if the function reads a value or changes one in place.
    """
    name = getattr(func, "__name__", str(func))
    if name in _REFUSED or (name.endswith("_") and not name.endswith("__")) or name.startswith("__i"):
        raise CannotExpandError(name)
    leaves, structure = trees.tree_flatten((args, kwargs))
    degree = degree_of(*leaves)

    def along(t: Tensor) -> Any:
        at = [_evaluate(leaf.coefs, t) if isinstance(leaf, Polynomial) else leaf for leaf in leaves]
        args, kwargs = trees.tree_unflatten(at, structure)
        return func(*args, **kwargs)

    like = next(leaf for leaf in leaves if isinstance(leaf, Polynomial)).coefs[0]
    derivatives = nested_derivatives(along, degree, like)
    warnings.warn(
        f"{name} has no Taylor rule, so it was expanded by nested derivatives, which cost four times as much with each "
        "order. Write the loss with operations that have a rule, or add a rule in hypergrad/taylor.",
        NoTaylorRuleWarning,
        stacklevel=4,
    )

    def collect(*terms: Any) -> Any:
        if not isinstance(terms[0], Tensor) or not terms[0].is_floating_point():
            return terms[0]
        return Polynomial([term / math.factorial(k) for k, term in enumerate(terms)])

    return trees.tree_map(collect, *derivatives)


def _in_place(func: Callable, x: Any, *args: Any, **kwargs: Any) -> "Polynomial":
    """A function with `inplace=True`: x has its result afterwards.

    Raises:
        CannotExpandError: if other tensors may share the values of x.
    """
    if not isinstance(x, Polynomial) or x.may_share:
        raise CannotExpandError(f"{func.__name__} in place on a tensor that may be a view or have one")
    x.coefs = func(x, *args, **kwargs | {"inplace": False}).coefs
    return x


def _evaluate(coefs: Coefficients, t: Tensor) -> Tensor:
    """x(t) by Horner's scheme."""
    value: Tensor | None = None
    for c in reversed(coefs):
        value = c if value is None else value * t if c is None else value * t + c
    assert value is not None
    return value
