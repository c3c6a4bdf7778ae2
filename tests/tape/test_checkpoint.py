"""The schedule takes the fewest steps that any schedule could, and keeps no more states than it may."""

import math
import weakref
from collections.abc import Iterator
from functools import cache
from typing import cast

import pytest
import torch

import hypergrad as hg
from hypergrad.solver.base import InnerSolver
from hypergrad.tape.checkpoint import fewest_steps, num_passes
from hypergrad.training.dynamics import Dynamics, Stretch


@cache
def cheapest(length, slots):
    """The steps to reverse `length` steps from a state that is kept, by trying every place for the next one."""
    if length == 1:
        return 0
    if slots == 1:
        return length * (length - 1) // 2
    return min(m + cheapest(length - m, slots - 1) + cheapest(m, slots) for m in range(1, length))


class Counting(InnerSolver):
    """Doubles its one parameter, and remembers each step that is taken and each state that is alive."""

    def __init__(self):
        self.taken, self.alive, self.most_alive = [], weakref.WeakSet(), 0

    def step(self, oracle, state, coefficients, t):
        after = self.update(state, {}, coefficients, t)
        if not torch.is_grad_enabled():
            self.taken.append(t)
            self.alive.add(after["params"]["w"])
            self.most_alive = max(self.most_alive, len(self.alive))
        return after

    def update(self, state, grad, coefficients, t):
        return {"params": {"w": 2 * state["params"]["w"]}}


def reverse(num_steps, slots):
    solver = Counting()
    dynamics = Dynamics(hg.Ridge(hg.diabetes(seed=0)), solver, {"l2": torch.tensor(1.0, requires_grad=True)})
    # Powers of two are exact, so that the state says which step it is of.
    start = {"params": {"w": torch.tensor(2.0**-500)}}
    run = hg.Checkpoint(slots=slots).record(dynamics, start, range(num_steps))
    assert run.end["params"]["w"].item() == 2.0 ** (num_steps - 500)
    visited = []
    for stretch in cast(Iterator[Stretch], run.backwards):
        visited.append(round(torch.log2(stretch.before["params"]["w"]).item()) + 500)
    return visited, solver


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8, 40])
def test_takes_the_fewest_steps(slots):
    for num_steps in [1, 2, 3, 7, 20, 36, 37]:
        visited, solver = reverse(num_steps, slots)
        assert visited == list(reversed(range(num_steps)))
        assert len(solver.taken) == cheapest(num_steps, slots) == fewest_steps(num_steps, slots)
        assert max((solver.taken.count(t) for t in solver.taken), default=0) == num_passes(num_steps, slots)


@pytest.mark.parametrize("num_steps", [2, 10, 64, 100, 400])
@pytest.mark.parametrize("slots", ["root", "logarithm"])
def test_recomputes_two_passes_with_root_and_logarithmically_many_with_logarithmic_slots(num_steps, slots):
    """Passes of training steps, beside the first one, and beside the one with graphs that each way back makes."""
    slots, most = {
        "root": (hg.Checkpoint().slots_for(num_steps), 2),
        "logarithm": (math.ceil(math.log2(num_steps)), math.log2(num_steps)),
    }[slots]
    _, solver = reverse(num_steps, slots)
    assert len(solver.taken) - (num_steps - 1) <= most * num_steps
    assert max(solver.taken.count(t) for t in solver.taken) - 1 <= most
    assert solver.most_alive <= slots - 1 + 2


def test_the_passes_of_long_runs():
    for num_steps in [*range(2, 2000), 9_999, 10_000]:
        slots = hg.Checkpoint().slots_for(num_steps)
        assert num_passes(num_steps, slots) - 1 <= 2
        assert fewest_steps(num_steps, slots) - num_steps <= 2 * num_steps
    for num_steps in [*range(2, 2000), 10**6, 10**9]:
        logarithm = math.log2(num_steps)
        assert num_passes(num_steps, math.ceil(logarithm)) <= max(logarithm, 1)
        assert fewest_steps(num_steps, math.ceil(logarithm)) <= num_steps * max(logarithm, 1)


@pytest.mark.parametrize(("num_steps", "slots"), [(30, 4), (30, 1), (300, 12), (30, 30)])
def test_keeps_no_more_states_than_it_may(num_steps, slots):
    # beside the slots (the first of which is the caller's start) lives the state that is being stepped from and to
    _, solver = reverse(num_steps, slots)
    assert solver.most_alive <= slots - 1 + 2


@pytest.mark.parametrize(("num_steps", "slots"), [(1, 1), (2, 2), (4, 2), (9, 3), (10, 4), (1000, 32)])
def test_auto_is_the_square_root(num_steps, slots):
    assert hg.Checkpoint().slots_for(num_steps) == slots


@pytest.mark.parametrize(
    ("slots", "error", "message"),
    [
        (0, ValueError, "Checkpoint.slots must be at least 1, but it is 0"),
        (2.5, TypeError, "Checkpoint.slots must be an integer, but it is 2.5"),
        ("all", TypeError, "Checkpoint.slots must be an integer, but it is 'all'"),
    ],
)
def test_bad_settings_are_refused_by_name(slots, error, message):
    with pytest.raises(error, match=message):
        hg.Checkpoint(slots=slots)
