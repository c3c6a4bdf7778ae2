"""The simulation of many ranks: its counts are those of plans, its link fits a link, its fixed points are fixed."""

import math

import pytest
import torch

from benchmarks.link import Link, Way
from experiments.scaling.local_steps import NUM_HPARAMS, Moves, run
from experiments.scaling.machine import CLUSTER, Machine
from experiments.scaling.measure import ESTIMATORS, PRODUCTS, STEPS, network
from experiments.scaling.methods import METHODS, Piece, Sizes


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_method_sends_what_its_plan_says(name):
    problem = network()
    n, p = (sum(x.numel() for x in xs.values()) for xs in (problem.init_params(), problem.init_hparams()))
    pieces = METHODS[name](Sizes(n, p, STEPS, PRODUCTS))
    total = ESTIMATORS[name].plan(problem, world=4).total  # type: ignore[attr-defined]
    assert sum(piece.times * len(piece.sums) for piece in pieces) == total.all_reduces
    assert sum(piece.times * sum(piece.sums) for piece in pieces) == total.numbers


def test_a_link_is_found_from_its_own_times():
    true = Link((Way(base=3e-5, hop=2e-5, bandwidth=2e9),))
    sizes = [8.0 * 10**k for k in range(8)]
    found = Link.fitted({p: (sizes, [true.all_reduce(size, p) for size in sizes]) for p in (2, 3, 4)})
    for p in (2, 8, 100):
        assert found.all_reduce(8e6, p) == pytest.approx(true.all_reduce(8e6, p), rel=1e-6)


def test_a_ring_and_a_tree_by_hand():
    way = Way(base=1.0, hop=2.0, bandwidth=10.0, net_hop=5.0, net_bandwidth=4.0)
    assert way.seconds(100.0, 4, 1) == 1 + 6 * 2 + 1.5 * 10
    assert way.seconds(100.0, 16, 2) == 1 + 28 * 2 + 2 * 5 + 2 * 15 / 16 * 25
    tree = Way(base=1.0, hop=2.0, bandwidth=10.0, net_hop=5.0, is_tree=True)
    assert tree.latency(32, 4) == 1 + 2 * 7 * 2 + 2 * 2 * 5
    assert Link((way, tree), per_node=8).all_reduce(0.0, 32) == min(way.latency(32, 4), tree.latency(32, 4))
    assert CLUSTER.all_reduce(1e9, 1) == 0


def test_a_machine_adds_what_it_computes_to_what_it_sends():
    link = Link((Way(base=1.0, hop=0.0, bandwidth=8.0),))
    machine = Machine(gradient=10.0, floor=2.0, link=link, itemsize=4, cores=2)
    pieces = [Piece(3, 2, (2.0, 4.0)), Piece(0.5, 0, gathers=(8.0,))]
    assert machine.seconds(pieces, 1) == (60.0, 0.0)
    computed, sent = machine.seconds(pieces, 4)
    assert computed == 6 * (2 + 8 / 4) * 2
    assert sent == 3 * (1 + 1.5 * 1 + 1 + 1.5 * 2) + 0.5 * (1 + 1.5 * 4) / 2


@pytest.mark.parametrize("local", [1, 3, 8])
def test_averages_of_local_moves_end_at_their_fixed_point(local):
    moves = Moves.drawn(0.5, 0.1, 0.005)
    end = moves.fixed_point(local)
    gaps = run(moves, local, averages=math.ceil(8000 / local))
    assert gaps[-1] == pytest.approx(moves.gap(end), rel=1e-4, abs=1e-12)


def test_one_move_between_averages_ends_where_the_hypergradient_is_zero():
    moves = Moves.drawn(1.0, 0.1, 0.005)
    torch.testing.assert_close(moves.fixed_point(1)[-NUM_HPARAMS:], moves.best, rtol=1e-8, atol=1e-10)
    gaps = [moves.gap(moves.fixed_point(local)) for local in (2, 3, 5)]
    assert gaps[0] > 1e-6
    assert gaps == sorted(gaps)


def test_ranks_with_the_same_losses_may_move_alone():
    moves = Moves.drawn(0.0, 0.1, 0.005)
    assert moves.gap(moves.fixed_point(16)) < 1e-18
    assert moves.rate(16) == pytest.approx(moves.rate(1) ** 16)
