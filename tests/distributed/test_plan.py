"""A plan for many ranks counts what runs on two processes send."""

import pytest
import ranks
import torch
from plan_cases import BOUNDED, CASES, OWN_ALGEBRA, QUICK, STEPS, counted, make
from tables import PROBLEMS

import hypergrad as hg
from hypergrad.estimator.rank_plan import Effort
from hypergrad.estimator.rehearsal import Rehearsal


@pytest.mark.parametrize("name", QUICK)
def test_a_plan_counts_what_a_run_sends(name):
    require_equal_counts(name, ranks.run("plan_cases"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_plan_counts_what_a_run_sends(name):
    require_equal_counts(name, ranks.run("plan_cases", function="slow", seconds=200))


def require_equal_counts(name, results):
    found, other = results.of(name)
    assert found["efforts"] == other["efforts"]
    require_planned(name, found)


def require_planned(name, found):
    plan = CASES[name].plan(make(CASES[name]), world=2)
    total = plan.total
    first, later = found["efforts"]
    if name in BOUNDED:
        assert later[0] <= total.all_reduces
        assert later[1] <= total.numbers
        assert plan.sure
    else:
        assert later == [total.all_reduces, total.numbers]
    if plan.first is not None and name != "soba, steps found":  # which are found by as many products as it takes
        assert first == [plan.first.all_reduces, plan.first.numbers]


@pytest.mark.parametrize("name", CASES)
def test_a_plan_counts_what_an_estimate_sends_and_computes(name):
    """As one of two ranks, where zeros come back from the other."""
    estimator = CASES[name]
    found = counted(estimator, Rehearsal.of(make(estimator), None, None, world=2).problem)
    require_planned(name, found)
    flops = estimator.plan(make(estimator), world=2).total.flops
    if name in BOUNDED:
        assert found["flops"] <= flops
    elif name not in OWN_ALGEBRA:
        assert found["flops"] == flops


def test_a_tolerance_only_changes_how_many_products_there_are():
    name = "cg to a tolerance"
    found, plan = ranks.run("plan_cases").of(name)[0], CASES[name].plan(make(CASES[name]), world=2)
    times = {"Hessian product": found["products"]}
    total = sum((part.each * times.get(part.name, part.times) for part in plan.parts), Effort())
    assert found["efforts"][1] == [total.all_reduces, total.numbers]


def test_the_counts_are_those_of_the_mathematics():
    """n + 1 numbers for a gradient, n for a product, at most n + p for a mixed product, for any number of ranks."""
    estimator = CASES["cg"]
    problem = make(estimator)
    n, p = 15, 2
    for world in (2, 8, 1024):
        parts = {part.name: part for part in estimator.plan(problem, world=world).parts}
        step, product, mixed = (parts[name].each for name in ("training step", "Hessian product", "mixed product"))
        assert (step.all_reduces, step.numbers) == (1, n + 1)
        assert (product.all_reduces, product.numbers) == (1, n)
        assert mixed.all_reduces == 1
        assert p <= mixed.numbers <= n + p
        assert parts["training step"].times == STEPS


@pytest.mark.parametrize("name", ["cg", "store", "forward", "soba"])
def test_a_single_rank_sends_nothing_and_computes_all(name):
    estimator = CASES[name]
    problem = make(estimator)
    alone, shared = estimator.plan(problem, world=1), estimator.plan(problem, world=2)
    assert alone.total.all_reduces == alone.sent == 0
    assert shared.sent == shared.total.numbers * 8  # 2 (P - 1)/P = 1
    assert shared.total.flops == pytest.approx(alone.total.flops / 2, rel=0.1)
    assert "sends" in str(shared)
    assert "sends" not in str(alone)


def test_a_plan_leaves_the_memory_of_a_tape_to_the_part_of_a_rank():
    estimator = CASES["graph"]
    problem = make(estimator)
    alone, shared = (estimator.plan(problem, world=world).memory for world in (1, 10))
    assert alone == estimator.plan(problem).costs["Graph()"].memory
    assert shared < alone


def test_a_shared_problem_is_planned_for_any_number_of_ranks():
    estimator = CASES["cg"]
    problem = make(estimator)
    assert estimator.plan(hg.DataParallel(problem), world=4) == estimator.plan(problem, world=4)


def test_a_plan_spends_nothing():
    """Neither the counts of gradients nor λ and w change, and λ gets no gradient."""
    estimator = CASES["store"]
    problem = make(estimator)
    hparams, params = problem.init_hparams(), problem.init_params()
    before = {name: x.clone() for name, x in (hparams | params).items()}
    estimator.plan(problem, hparams, params, world=3)
    assert all(torch.equal(x, before[name]) for name, x in (hparams | params).items())


def test_bad_numbers_of_ranks_and_tapes_are_refused():
    estimator = CASES["cg"]
    problem = make(estimator)
    with pytest.raises(ValueError, match="world must be at least 1, but it is 0"):
        estimator.plan(problem, world=0)
    with pytest.raises(TypeError, match="world must be an integer"):
        estimator.plan(problem, world=2.0)
    with pytest.raises(ValueError, match="Reversible does not serve GradientDescent"):
        hg.Unrolled(tape=hg.Reversible(), inner_steps=3).plan(problem, world=2)
    with pytest.raises(NotImplementedError, match="inner_share"):
        hg.Implicit().plan(PROBLEMS["quadratic"], world=2)


def test_what_is_spread_in_another_way_is_refused():
    class Spread(hg.Supervised):
        @property
        def is_spread(self):
            return True

    problem = make(CASES["cg"])
    problem.__class__ = Spread
    with pytest.raises(ValueError, match="losses of this Spread are sums over processes in another way"):
        CASES["cg"].plan(problem, world=2)
