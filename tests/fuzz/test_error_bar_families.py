"""The error bar holds on families that it was not calibrated on; `error_bar_cases.py` runs one case again."""

import pytest
from error_bar_cases import FAMILIES, line, rows_of

QUICK = tuple(family for family in FAMILIES if family != "many parameters")


def check(family: str, seed: int, count: int, least: float) -> None:
    rows = rows_of(family, seed, range(count))
    known, violated = [r for r in rows if r.is_known], [r for r in rows if r.is_known and not r.holds]
    print(f"seed {seed}: {line(family, rows)}")
    due = [r for r in rows if not (r.is_refused and "parameters in bfloat16" in r.status)]  # they never have a bar
    assert len(known) >= (len(due) / 3 if count > 50 else 1)  # few cases may all be saddles but one
    assert len(violated) <= (1 - least) * len(known), [f"{r.bar:.1e} < {r.error:.1e}: {r.name}" for r in violated]


@pytest.mark.parametrize("family", QUICK)
def test_the_bar_holds_on_some_problems_of_a_family(family):
    check(family, 0, 4, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_bar_holds_on_220_problems_of_a_family(family):
    check(family, 1, 220, 0.99)
