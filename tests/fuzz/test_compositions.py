"""Random compositions of PyTorch's functions: Taylor coefficients and optima, against numbers of 70 digits.

A case is replayed by `verdict(Composition.draw(seed, number))` or `optimum_verdict(seed, number)`.
"""

from collections import Counter
from collections.abc import Callable

import pytest
from composition_verdicts import TRACEBACK, WRONG, Verdict, verdict
from compositions import Composition
from optimum_cases import optimum_verdict
from torch_operations import OPERATIONS

# torch says so of batched backward passes that it computes one by one, to the same numbers.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")

SEED = 4


def tally(judge: Callable[[int], Verdict], numbers: range) -> Counter[str]:
    """How often each verdict was given; all cases must be right, refused, or outside the domain of a function."""
    counts: Counter[str] = Counter()
    bad = []
    for number in numbers:
        word, details = judge(number)
        counts[word] += 1
        if word in (WRONG, TRACEBACK):
            bad.append(f"{number}: {word}, {details}")
    print(f"seed {SEED}, {len(numbers)} cases: {dict(counts)}")
    assert not bad, "\n".join(bad)
    return counts


def composition(number: int) -> Verdict:
    return verdict(Composition.draw(SEED, number))


def optimum(number: int) -> Verdict:
    return optimum_verdict(SEED, number)


def test_there_are_operations_enough():
    assert len(OPERATIONS) >= 60


def test_some_compositions():
    assert tally(composition, range(12))["right"] >= 8


def test_some_optima():
    assert tally(optimum, range(2))["right"] >= 1


@pytest.mark.slow
def test_a_thousand_compositions():
    assert tally(composition, range(1100))["right"] >= 900


@pytest.mark.slow
def test_hundreds_of_optima():
    assert tally(optimum, range(300))["right"] >= 200


def test_a_wrong_coefficient_is_seen(monkeypatch):
    exp, exact = OPERATIONS["exp"]
    monkeypatch.setitem(OPERATIONS, "exp", (lambda x, y, c: exp(x, y, c) * 1.0000001, exact))
    case = Composition.draw(SEED, 0)
    wrong = Composition(("exp",), case.x, case.y, case.c)
    assert verdict(wrong)[0] == WRONG
