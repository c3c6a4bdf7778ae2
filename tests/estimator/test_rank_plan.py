"""Plans for ranks: their table, and how often each part of an estimate is done."""

import pytest
from tables import PROBLEMS

import hypergrad as hg
from hypergrad.estimator.rank_plan import ABOUT, AT_MOST, Effort, Part, RankPlan
from hypergrad.linsolve.base import LinearSolver


class OwnSolver(LinearSolver):
    """Whose cost is not known before."""

    def solve_unit(self, A, b, x0):
        return hg.CG().solve_unit(A, b, x0)


TABLE = """\
one hypergradient on each of 4 ranks

                     times  all-reduces     numbers   GFLOP
step                 1,000        2,000     300,000    2.5
product               ≤ 20         ≤ 20        ≤ 60     ≤ 0
in all                          ≤ 2,020   ≤ 300,060   ≤ 2.5
instead, at first        1          ~ 7         ~ 8  ~ 0.01

a rank keeps 1.5 MB besides w and the data, and sends ≤ 1.8 MB"""


def test_a_plan_is_a_table():
    parts = [
        Part("step", 1000, Effort(2, 300, 2_500_000)),
        Part("product", 20, Effort(1, 3), AT_MOST),
        Part("never", 0, Effort(9, 9, 9), ABOUT),
    ]
    plan = RankPlan(4, parts, memory=1_500_000, itemsize=4, first=Effort(7, 8, 10_000_000))
    assert [line.split() for line in str(plan).splitlines()] == [line.split() for line in TABLE.splitlines()]
    assert len({len(line) for line in str(plan).splitlines()[2:7]}) == 1
    assert plan.total == Effort(2020, 300_060, 2_500_000_000)
    assert plan.sent == 2 * 3 / 4 * 300_060 * 4


def test_the_table_of_one_part_has_no_sum():
    plan = RankPlan(1, [Part("step", 1, Effort(flops=10**9))], memory=0, itemsize=8)
    assert str(plan).splitlines()[3].split() == ["step", "1", "0", "0", "1"]
    assert len(str(plan).splitlines()) == 6
    assert plan.sure == ""


def times(estimator):
    return {part.name: (part.times, part.sure) for part in estimator.plan(PROBLEMS["quadratic"]).parts}


def test_how_often_the_parts_of_an_implicit_estimate_are_done():
    training = {"inner_steps": 95, "inner_tol": 0.0, "solver": hg.GradientDescent()}
    parts = times(hg.Implicit(linsolve=hg.CG(max_iter=70, tol=0.0), **training))
    assert parts == {
        "gradient norm": (1 + 1, ""),
        "training step": (95, ""),
        "linearize both losses": (1, ""),
        "Hessian product": (70, "≤"),
        "mixed product": (1, ""),
        "product for the error bar": (280, "≤"),
        "the rest of the error bar": (1, "~"),
    }
    assert times(hg.Implicit(linsolve=hg.CG(max_iter=9, tol=0.0)))["product for the error bar"] == (200, "≤")


def test_how_often_the_parts_of_an_estimate_through_training_are_done():
    """Of 12 steps 5 are differentiated."""
    estimator = hg.Unrolled(inner_steps=12, horizon=5, tape=hg.Store())
    parts = {part.name: part.times for part in estimator.plan(PROBLEMS["quadratic"], world=1).parts if part.times}
    assert parts == {
        "loss and gradient at the start": 1,
        "training step": 12,
        "training step with its graph": 5,
        "both losses at the end": 1,
        "pull-back of a step": 4,
        "pull-back of the first step": 1,
    }


@pytest.mark.parametrize(
    "linsolve", [hg.CG(), hg.GMRES(max_iter=9), hg.Neumann(), OwnSolver()], ids=lambda x: type(x).__name__
)
def test_without_a_graph_the_memory_is_that_of_vectors(linsolve):
    """φ, ∂f/∂w and the adjoint, and those of the linear solver."""
    problem = PROBLEMS["quadratic"]
    n, cost = sum(w.numel() for w in problem.init_params().values()), linsolve.cost(7)
    plan = hg.Implicit(linsolve=linsolve, product=hg.ForwardOverReverse()).plan(problem)
    assert plan.memory == (3 + (0 if cost is None else cost.vectors)) * n * 8


def test_the_error_bar_may_take_four_times_the_products():
    plan = hg.Implicit(linsolve=hg.Dense(chunk=20)).plan(hg.Quadratic(size=70))
    products = sum(int(p.name.split()[2]) if p.name.startswith("product with") else 0 for p in plan.parts)
    parts = {p.name: p.times for p in plan.parts}
    assert products == 70
    assert parts["product for the error bar"] == 4 * (products + parts["Hessian product"])


def test_without_a_horizon_no_step_is_differentiated():
    plan = hg.Unrolled(inner_steps=12, horizon=0).plan(PROBLEMS["quadratic"], world=1)
    assert {part.name: part.times for part in plan.parts if part.times} == {
        "loss and gradient at the start": 1,
        "training step": 12,
        "both losses at the end": 1,
    }
    assert plan.memory == 0
