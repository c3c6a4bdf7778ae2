"""Parametrised tests, a few cases of which run always, and all with `-m slow`."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pytest


def mostly_slow(cases: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """The cases, slow ones but for the quick.

    Args:
        cases: values, or by the names that the tests show, a value or a tuple of several for each.
        quick: values, or names, of those that run always.
    """
    cases = cases if isinstance(cases, Mapping) else list(cases)
    assert all(one in cases for one in quick), f"{quick} must be among {[*cases]}"
    if not isinstance(cases, Mapping):
        return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)), id=name, marks=[] if name in quick else pytest.mark.slow
        )
        for name, case in cases.items()
    ]
