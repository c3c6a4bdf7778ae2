"""What the docstrings of the public names say: the shapes of tensors, and what each argument is."""

import enum
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hypergrad
from hypergrad.estimator import report
from scripts.site.api import MODULES
from scripts.site.configs import meanings

SHAPE = re.compile(r"\b[Ss]hape[ds]?\b|\(\)|\([\w·]+,( [\w·…]+,?)*\)")
"""The word, or a shape such as (), (n,), (n, p) or (n, …)."""
TENSOR = re.compile(r"(?<!\[str, )torch\.Tensor|\bSplits?\b")
"""One tensor, or data; `hg.Tensors` says what shapes there are in a dict of tensors by name."""
OBJECTS = {name: getattr(hypergrad, name) for name, module in MODULES.items() if module.startswith("hypergrad.")}
NOT_CALLED = BaseException | enum.Enum


def is_called(value: Any) -> bool:
    return inspect.isfunction(value) or inspect.isclass(value) and not issubclass(value, NOT_CALLED.__args__)


def documented(name: str, value: Any) -> Iterator[tuple[str, Callable[..., Any], str]]:
    """(name, function, what is said of it) for a function, or for a class and its methods."""
    said, _, _ = (value.__doc__ or "").partition("\n    Examples:\n")  # in which () is a call, and no shape
    yield name, value, said
    for method, member in vars(value).items() if inspect.isclass(value) else ():
        function = getattr(member, "__func__", member)
        if inspect.isfunction(function) and method[0] != "_" and function.__doc__:
            # A method keeps the promises of those that it overrides.
            said = [
                inspect.cleandoc(vars(base)[method].__doc__ or "") for base in value.__mro__ if method in vars(base)
            ]
            yield f"{name}.{method}", function, "\n".join(said)


CALLABLES = [one for name, value in OBJECTS.items() if is_called(value) for one in documented(name, value)]


def tensors_of(function: Callable[..., Any]) -> list[str]:
    """The arguments of a function that are annotated as tensors or data, and "return" if its result is."""
    signature = inspect.signature(function)
    annotations = {name: one.annotation for name, one in signature.parameters.items()}
    annotations["return"] = signature.return_annotation
    return [name for name, one in annotations.items() if TENSOR.search(inspect.formatannotation(one))]


def test_who_takes_or_returns_tensors_says_their_shapes():
    silent = {name: tensors_of(function) for name, function, said in CALLABLES if not SHAPE.search(said)}
    lacking = {name: tensors for name, tensors in silent.items() if tensors}
    assert not lacking, "\n".join(f"hypergrad.{name} says no shape of {', '.join(lacking[name])}" for name in lacking)


@pytest.mark.parametrize("name", [name for name, value in OBJECTS.items() if is_called(value)])
def test_each_argument_is_documented(name):
    arguments = [one for one in inspect.signature(OBJECTS[name]).parameters if one not in ("args", "kwargs")]
    lacking = [one for one in arguments if one not in meanings(f"hypergrad.{name}")]
    assert not lacking, f"the docstring of hypergrad.{name} does not say what {', '.join(lacking)} is"


def test_each_name_says_what_it_is():
    assert not [name for name, value in OBJECTS.items() if name != "Tensors" and not value.__doc__]


def test_the_docstring_of_stats_has_each_key():
    said = set(re.findall(r"`(\w+)`", hypergrad.Hypergradient.stats.__doc__ or ""))
    assert said == {key for keys in report._KEYS.values() for key in keys.values()}
