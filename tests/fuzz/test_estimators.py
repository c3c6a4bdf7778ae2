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
from typing import Any

import pytest
import torch
from choices import Seeded, Shrinking
from hypothesis import given, settings
from hypothesis import strategies as st
from layered_problems import NEEDS_CURVLINOPS
from methods import Call
from moves_known import MOVES
from problems import RandomProblem, Spec
from problems_known import Known, norm, of_tensor, of_tensors
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


@pytest.mark.parametrize("method", MOVES)
def test_a_wrong_move_is_noticed(method, monkeypatch):
    case = Case(Spec(sizes=(3, 2), condition=1, parts=("l2", "shift")), Call("single loop", method=method))
    assert judge(case).kind == RIGHT
    for wrong in ((1 + 1e-5, 1), (1, 1 + 1e-5)):

        def off(*given: Any, move=MOVES[method], wrong=wrong) -> Any:
            return tuple(factor * x for factor, x in zip(wrong, move(*given), strict=True))

        with monkeypatch.context() as changed:
            changed.setitem(MOVES, method, off)
            assert judge(case).kind == WRONG


@pytest.mark.parametrize("near", [-3, -6, -12])
def test_the_truth_keeps_its_digits_near_a_bound(near):
    """∂φ/∂λ of ½ λ/(1 − λ) ‖w‖² is w/(1 − λ)², whose derivative is 1e12 times as large at a distance of 1e-12."""
    problem = RandomProblem(Spec(sizes=(2,), parts=("interval",), near=near, seed=2))
    w, hp = of_tensor(problem.start), of_tensors(problem.init_hparams())
    wanted = w / (1 - hp["interval"]) ** 2
    assert norm(Known.of(problem).mixed(w, hp)[:, 0] - wanted) <= 1e-25 * norm(wanted)


@NEEDS_CURVLINOPS
@pytest.mark.parametrize("family", ["squares", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("part", ["l2", "each l2"])
def test_a_problem_with_layers_is_the_one_by_hand(family, part):
    sizes = (2, 3, 3) if family in ("tanh", "relu") else (3, 2)
    for linsolve in ("cg", "cg-ekfac"):
        call = Call("layers", inner_steps=0, linsolve=linsolve, point="near", away=-6)
        verdict = judge(Case(Spec(family, sizes, parts=(part,), log_l2=1, outer="dev"), call))
        assert verdict.kind == RIGHT, verdict


AT_EDGES = {
    "a kink that steps of differences cross": Case(
        Spec("relu", (1, 1, 3), 2, parts=("each l2", "interval"), log_l2=-8, outer="linear", seed=32916),
        Call("single loop", method="amigo", point="near", away=-2),
    ),
    "1 - tanh² of saturated units in float32": Case(
        Spec("tanh", (3, 4, 1), 2, parts=("shift", "interval"), log_l2=-4, outer="dev", dtype="float32", seed=50690),
        Call(linsolve="minres", damping=1.0, error_bar=False),
    ),
    "a kink within rounding of which training ends": Case(
        Spec(
            "absolute",
            (1,),
            10,
            parts=("l2", "simplex", "interval"),
            log_l2=-1,
            near=-3,
            outer="linear",
            direct=True,
            seed=28574,
        ),
        Call(linsolve="auto", inner_steps=100, error_bar=False, point="start"),
    ),
    "the slope of Adam where rounding makes a gradient 0": Case(
        Spec("softplus", (5, 4, 7), parts=("interval",), outer="linear", dtype="bfloat16", seed=29117),
        Call("single loop", method="sama"),
    ),
}


@pytest.mark.parametrize("case", AT_EDGES.values(), ids=AT_EDGES)
def test_what_rounding_decides_is_not_called_wrong(case):
    assert judge(case).kind == RIGHT


@NEEDS_CURVLINOPS
def test_a_hypergradient_too_small_for_its_format_is_not_called_wrong():
    spec = Spec("tanh", (3, 4, 3), 4, "repeated", ("l2",), 1, -3, "dev", dtype="float32", seed=40644)
    assert judge(Case(spec, Call("layers", linsolve="ekfac-exact"))).kind == RIGHT


def test_the_bar_covers_the_rounding_of_saturated_units():
    """In float32 ∂f/∂w is off by 1.3e-3, and there is no direct term beside which that is small."""
    spec = Spec("tanh", (3, 4, 1), 2, parts=("shift", "interval"), log_l2=-4, outer="dev", dtype="float32", seed=50690)
    assert judge(Case(spec, Call(linsolve="dense"))).kind == RIGHT


def test_a_compiled_forward_run_that_goes_on():
    solver = "GradientDescent", (("lr", 0.1),)
    spec = Spec(family="squares", sizes=(2, 1), parts=("l2", "shift"))
    assert judge(Case(spec, Call("forward", solver, inner_steps=4, compile=True, online=True))).kind == RIGHT


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
