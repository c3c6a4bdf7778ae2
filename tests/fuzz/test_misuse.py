"""Random misuse of the functional interface; a call is replayed by `misuse_verdict(seed, number)`.

"other" is a valid call of another problem, such as a batch of λ for `predict`.
"""

from collections import Counter

import pytest
from misuse import misuse_verdict

SEED = 1


def tally(numbers: range) -> Counter[str]:
    found = [misuse_verdict(SEED, number) for number in numbers]
    counts = Counter(word for word, _ in found)
    print(f"seed {SEED}, {len(numbers)} calls: {dict(counts)}")
    assert not counts["traceback"], "\n".join(details for word, details in found if word == "traceback")
    return counts


def test_some_calls_are_right_or_refused_clearly():
    assert tally(range(60))["refused"] >= 20


@pytest.mark.slow
def test_hundreds_of_calls_are_right_or_refused_clearly():
    assert tally(range(900))["refused"] >= 300
