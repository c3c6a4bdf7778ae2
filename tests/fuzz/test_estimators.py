"""Random problems × random estimators: what is claimed is true, or the case is refused in clear words.

`python tests/fuzz/test_estimators.py --cases 5000 --seed 1` prints a table, and each case that failed with its number;
`--first 17 --cases 1` runs one again.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from choices import Seeded, Shrinking
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import Call
from problems import Spec
from verdicts import REFUSED, RIGHT, TRACEBACK, WRONG, Case, Verdict, draw_case, judge

KINDS = (RIGHT, REFUSED, WRONG, TRACEBACK)
MANY, SEED = 5000, 20_26


@st.composite
def cases(draw: st.DrawFn) -> Case:
    return draw_case(Shrinking(draw))


@settings(max_examples=60)
@given(cases())
def test_nothing_is_wrong_in_silence(case):
    verdict = judge(case)
    assert verdict.kind in (RIGHT, REFUSED), verdict


def test_a_wrong_number_is_noticed():
    spec = Spec(family="squares", sizes=(3, 2), condition=1, parts=("l2", "shift"))
    assert judge(Case(spec, Call(linsolve="dense"))).kind == RIGHT
    for call in (
        Call("unrolled", ("Momentum", (("lr", 0.1), ("momentum", 0.9))), inner_steps=4),
        Call("forward", ("Adam", (("lr", 0.1), ("beta1", 0.9), ("beta2", 0.999), ("eps", 0.1))), inner_steps=4),
    ):
        assert judge(Case(spec, call)).kind == RIGHT
        name, numbers = call.solver
        off = replace(call, solver=(name, (("lr", 0.1001), *numbers[1:])))
        assert judge(Case(spec, call), run=off).kind == WRONG


def run(seed: int, first: int, count: int) -> Iterator[tuple[int, Case, Verdict]]:
    for number in range(first, first + count):
        case = draw_case(Seeded.of(seed, number))
        yield number, case, judge(case)


def report(seed: int, first: int, count: int) -> Counter[str]:
    """The verdicts, printed by family of problem and kind of estimator, with the cases that failed."""
    table: dict[tuple[str, str], Counter[str]] = {}
    reasons: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    for number, case, verdict in run(seed, first, count):
        for key in ((case.spec.family, case.call.kind), ("all", case.call.kind), ("all", "all")):
            table.setdefault(key, Counter())[verdict.kind] += 1
        notes.update(re.sub(r"[-+]?\d[\d.e+-]*", "#", note) for note in verdict.notes)
        if verdict.kind == REFUSED:
            reasons[re.sub(r"[-+]?\d[\d.e+-]*", "#", verdict.why)[:100]] += 1
        if verdict.kind in (WRONG, TRACEBACK):
            print(f"case {number} of seed {seed}: {verdict.kind}: {verdict.why}\n    {case}")
    print(f"seed {seed}, cases {first} to {first + count - 1}")
    print(f"{'problem':<12}{'estimator':<14}" + "".join(f"{kind:>18}" for kind in KINDS))
    for (family, kind), counts in sorted(table.items()):
        print(f"{family:<12}{kind:<14}" + "".join(f"{counts[k]:>18}" for k in KINDS))
    for what, counts in (("refused", reasons), ("noted", notes)):
        print(*(f"{what} {n:>5}: {text}" for text, n in counts.most_common(12)), sep="\n")
    return table["all", "all"]


@pytest.mark.slow
def test_nothing_is_wrong_in_silence_in_5000_cases():
    counts = report(SEED, 0, MANY)
    assert counts[WRONG] == counts[TRACEBACK] == 0, counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("--cases", 300), ("--seed", SEED), ("--first", 0)):
        parser.add_argument(name, type=int, default=value)
    given_ = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    met = report(given_.seed, given_.first, given_.cases)
    sys.exit(met[WRONG] + met[TRACEBACK] > 0)
