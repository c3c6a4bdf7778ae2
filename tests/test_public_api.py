"""Nothing public goes before a release has deprecated it: docs/stability.md."""

import warnings
from types import ModuleType

import pytest
from public_api import RECORD, broken, current, lines_of
from typing_extensions import deprecated


def test_nothing_goes_that_the_last_release_did_not_deprecate():
    problems = broken(RECORD.read_text().splitlines(), current())
    assert not problems, "deprecate first (docs/stability.md):\n" + "\n".join(problems)


def test_a_group_an_option_and_a_method_are_in_the_record():
    lines = RECORD.read_text().splitlines()
    assert "CG(*, max_iter=, tol=, preconditioner=)" in lines
    assert any(line.startswith("configs/solver/momentum: ") for line in lines)
    assert any(line.startswith("Trainer.fit(self") for line in lines)


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("f(x)", None, "f is gone"),
        ("!f(x)", None, None),
        ("f(x)", "!f(x)", None),
        ("f(x, y=)", "f(x)", "y is gone"),
        ("f(x, !y=)", "f(x)", None),
        ("f(x, !y=, z=)", "f(x, z=)", None),
        ("f(x, *, y=)", "f(x, **more)", None),
        ("f(x)", "f(x, y=)", None),
        ("f(x)", "f(x, y)", "requires y"),
        ("f(x=)", "f(x)", "requires x"),
        ("f(x, y)", "f(y, x)", "order"),
        ("f(x, y)", "f(x, *, y)", "order"),
        ("f(*, x)", "f(x)", None),
        ("configs/solver/s: lr, beta", "configs/solver/s: lr", "beta is gone"),
        ("configs/solver/s: lr, !beta", "configs/solver/s: lr", None),
        ("configs/solver/s: lr", None, "configs/solver/s is gone"),
    ],
)
def test_what_breaks_a_promise(before, after, problem):
    found = broken([before], [] if after is None else [after])
    assert len(found) == (problem is not None)
    assert all(problem in one for one in found)


def test_a_deprecation_is_shown_and_recorded():
    def new(x: int, factor: int = 2) -> int:
        """Computes.

        Args:
            x: any.
            factor: deprecated, multiply the result instead.
        """
        return factor * x

    old = deprecated("hypergrad.old is now hypergrad.new.", category=FutureWarning)(lambda x: new(x))
    module = ModuleType("hypergrad.somewhere")
    for name, function in {"old": old, "new": new}.items():
        function.__module__ = module.__name__
        setattr(module, name, function)
    assert list(lines_of(["new", "old"], module)) == ["new(x, !factor=)", "!old(x)"]
    with pytest.warns(FutureWarning, match="is now hypergrad.new"):
        old(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new(1)
