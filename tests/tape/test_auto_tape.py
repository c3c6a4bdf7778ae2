"""What is planned is what is spent, and `AutoTape` takes the fastest tape that it leaves room for."""

import pytest
import torch
from runs import STEPS, case
from tables import PROBLEMS

import hypergrad as hg
from hypergrad.core.autodiff import leaves
from hypergrad.tape.base import TapeCost
from hypergrad.tape.footprint import measure
from hypergrad.tape.plan import Plan
from hypergrad.training.dynamics import Dynamics

TAPES = [hg.Graph(), hg.Store(), hg.Checkpoint(), hg.Checkpoint(slots=2), hg.Checkpoint(slots=99), hg.Reversible()]


class Counting(hg.Quadratic):
    """Counts its inner losses, each of which a gradient is formed of."""

    def __init__(self):
        super().__init__(size=300)
        self.count = 0

    def inner_loss(self, params, hparams, batch):
        self.count += 1
        return super().inner_loss(params, hparams, batch)


@pytest.mark.parametrize("tape", TAPES, ids=repr)
def test_the_planned_gradients_are_those_that_are_evaluated(tape):
    problem = Counting()
    estimator = hg.Unrolled(solver=hg.Momentum(lr=0.02), tape=tape, inner_steps=23, horizon=17)
    cost = estimator.plan(problem).costs[repr(tape)]
    assert cost is not None
    problem.count = 0
    estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    # beside them, the steps before the horizon and a look at the inner loss before and after training
    assert problem.count == cost.gradients + 6 + 2


def test_the_planned_memory_of_graphs_is_what_a_run_saves():
    problem, solver, hparams, start = case("network", "momentum")
    dynamics = Dynamics(problem, solver, leaves(hparams))
    storages: dict[int, torch.UntypedStorage] = {}

    def note(x):
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        run = hg.Graph().record(dynamics, solver.init(start), range(STEPS))
    saved = sum(storage.nbytes() for storage in storages.values())
    planned = hg.Graph().cost(dynamics, measure(dynamics, solver.init(start), 0), range(STEPS))
    assert run.end
    assert saved == pytest.approx(planned.memory, rel=0.2)


def test_the_planned_memory_of_states():
    problem = hg.Quadratic(size=300)
    costs = hg.Unrolled(solver=hg.Momentum(lr=0.02), inner_steps=400).plan(problem).costs
    graph, store, checkpoint, reversible = (cost.memory for cost in costs.values() if cost is not None)
    state = 2 * 300 * 8
    graph_of_a_step = graph / 400 - state
    assert store == 400 * state + graph_of_a_step
    assert checkpoint == (20 + 1) * state + graph_of_a_step
    # int64 numbers of which two and a half states are kept, one state, and the bits that are lost
    assert reversible == pytest.approx(3.5 * state + graph_of_a_step + 300 * 400 * 0.152 / 8, rel=1e-3)


@pytest.mark.parametrize(
    ("budget", "tape"),
    [
        (1e9, hg.Graph()),
        (2.5e6, hg.Store()),
        (4e5, hg.Reversible()),
        (1.1e6, hg.Reversible()),
    ],
    ids=["graph", "store", "little", "less than store"],
)
def test_auto_takes_the_fewest_gradients_that_fit(budget, tape):
    problem = hg.Quadratic(size=300)
    dynamics = Dynamics(problem, hg.Momentum(lr=0.02), leaves(problem.init_hparams()))
    footprint = measure(dynamics, dynamics.solver.init(problem.init_params()), 0)
    assert hg.AutoTape(budget=budget).choose(dynamics, footprint, range(400)) == tape


def test_auto_takes_the_slots_that_fit_where_nothing_can_be_reversed():
    problem = hg.Quadratic(size=300)
    dynamics = Dynamics(problem, hg.GradientDescent(), leaves(problem.init_hparams()))
    footprint = measure(dynamics, dynamics.solver.init(problem.init_params()), 0)
    budget = footprint.graph + 31 * footprint.state
    auto = hg.AutoTape(budget=budget)
    assert auto.choose(dynamics, footprint, range(400)) == hg.Checkpoint(slots=30)
    cost = auto.cost(dynamics, footprint, range(400))
    assert cost is not None
    assert cost.memory == budget


def test_a_budget_for_nothing_is_refused():
    problem = PROBLEMS["quadratic"]
    estimator = hg.Unrolled(tape=hg.AutoTape(budget=10.0), inner_steps=50)
    with pytest.raises(ValueError, match="No tape fits 50 steps into a budget of 10 bytes; the smallest needs"):
        estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    with pytest.raises(ValueError, match="AutoTape.budget must be greater than 0"):
        hg.AutoTape(budget=0.0)


def test_a_plan_is_a_table():
    plan = hg.Unrolled(tape=hg.AutoTape(budget=1e8), inner_steps=50, horizon=20).plan(PROBLEMS["quadratic"])
    lines = str(plan).splitlines()
    assert lines[0] == "one hypergradient through 20 steps, with 20 Hessian products"
    assert lines[2].split() == ["tape", "MB", "gradients"]
    assert [line.split("(")[0] for line in lines[3:]] == ["Graph", "Store", "Checkpoint", "Reversible", "AutoTape"]
    assert lines[6].endswith("does not serve the solver")
    assert lines[3].split()[-1] == lines[7].split()[-1] == "20"
    assert "eager" not in str(plan)


def test_the_table_of_a_plan():
    costs = {
        "Graph()": TapeCost(2_345_000, 20),
        "Offload(slots=3)": TapeCost(1000, 37, 1_234_000),
        "Reversible()": None,
    }
    assert str(Plan(costs, 20)) == (
        "one hypergradient through 20 steps, with 20 Hessian products\n\n"
        "tape                     MB  gradients  MB offloaded\n"
        "Graph()                2.35         20             0\n"
        "Offload(slots=3)      0.001         37          1.23\n"
        "Reversible()      does not serve the solver"
    )
    assert str(Plan({"no tape": TapeCost(0, 1)}, 0)).splitlines()[2:] == [
        "tape            MB  gradients",
        "no tape          0          1",
    ]


def test_a_plan_says_that_it_is_of_eager_steps():
    plan = hg.Unrolled(inner_steps=50, compile=True).plan(PROBLEMS["quadratic"])
    assert str(plan).splitlines()[-1].startswith("counted for eager steps; if steps are compiled, Graph keeps states")


def test_a_plan_does_not_depend_on_where_memory_lies():
    estimator, held = hg.Unrolled(solver=hg.Momentum(lr=0.02), inner_steps=100), []
    found = set()
    for size in range(1, 4000, 100):
        found.add(str(estimator.plan(PROBLEMS["quadratic"])))
        held = [*held[-5:], torch.empty(size)]
    assert len(found) == 1
