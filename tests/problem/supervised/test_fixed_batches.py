"""Batches that are the same in every epoch, and the places of batches in an epoch."""

from typing import Any

import pytest
import torch
from streams import CLASSES, InOrder, Made, outcome, problem_on, require_same
from torch import nn

import hypergrad as hg
from hypergrad.problem.batch_place import UNKNOWN, WHOLE
from hypergrad.problem.precision import InPrecision

TRAIN, DEV, SIZE, DEV_SIZE = Made(1), Made(2, 13), 23, 13


def problem(**settings: Any) -> Any:
    usual: dict[str, Any] = {"batch_size": 5, "dev_sample": 4}
    return problem_on(TRAIN, dev=DEV, **usual | settings)


def epoch_of(batch: Any, place: Any, epoch: int) -> list[tuple[int, frozenset[int]]]:
    """The number and the rows of each batch of an epoch, in order."""
    num = place(0).num_batches
    return [(place(t).index, frozenset(batch(t).rows.tolist())) for t in range(epoch * num, (epoch + 1) * num)]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("part", ["inner", "outer"])
def test_each_batch_comes_once_in_each_epoch_in_another_order(part, streams):
    one = problem(fixed_batches=True, stream=streams)
    batch, place, size = getattr(one, f"{part}_batch"), getattr(one, f"{part}_place"), {"inner": 23, "outer": 13}[part]
    epochs = [epoch_of(batch, place, e) for e in range(5)]
    assert sorted(row for _, rows in epochs[0] for row in rows) == list(range(size))
    for epoch in epochs:
        assert sorted(index for index, _ in epoch) == list(range(len(epoch)))
        assert dict(epoch) == dict(epochs[0])
    assert len({tuple(index for index, _ in epoch) for epoch in epochs}) > 1
    again = problem(fixed_batches=True)
    assert epochs[3] == epoch_of(getattr(again, f"{part}_batch"), getattr(again, f"{part}_place"), 3)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_streamed_they_train_to_the_same_bits(num_workers):
    streamed = problem(fixed_batches=True, stream=True, num_workers=num_workers)
    require_same(outcome(streamed, steps=14), outcome(problem(fixed_batches=True), steps=14))


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("streams", [False, True])
def test_a_place_has_the_weight_of_the_size_of_its_batch(streams, fixed):
    one = problem(fixed_batches=fixed, stream=streams)
    for batch, place, size in ((one.inner_batch, one.inner_place, SIZE), (one.outer_batch, one.outer_place, DEV_SIZE)):
        num = place(0).num_batches
        for step in range(2 * num):
            assert place(step).weight == pytest.approx(num * len(batch(step).rows) / size, rel=1e-15)
            assert place(step).is_fixed == fixed
            if not fixed:
                assert place(step).index == step % num
        assert sum(place(step).weight for step in range(num)) == pytest.approx(num, rel=1e-14)


def test_the_fixed_batches_are_those_of_the_first_epoch():
    fixed, other = problem(fixed_batches=True), problem()
    parts = {frozenset(rows) for _, rows in epoch_of(fixed.inner_batch, fixed.inner_place, 0)}
    assert parts == {frozenset(rows) for _, rows in epoch_of(other.inner_batch, other.inner_place, 0)}
    assert fixed.settings()["batches"] == f"{other.settings()['batches']}".replace("seed 0", "seed 0, fixed")


@pytest.mark.parametrize("batch_size", [None, SIZE, SIZE + 4])
def test_one_batch_is_all_data(batch_size):
    one = problem(batch_size=batch_size, dev_sample=DEV_SIZE + 1, fixed_batches=True)
    assert one.inner_place(3) == one.outer_place(2) == WHOLE
    assert one.inner_batch(3) is None
    assert one.outer_batch(2) is None


def test_a_left_out_rest_does_not_count():
    one = problem(drop_last=True)
    assert [(p.index, p.num_batches, p.weight) for p in map(one.inner_place, range(5))] == [
        (0, 4, 1.0), (1, 4, 1.0), (2, 4, 1.0), (3, 4, 1.0), (0, 4, 1.0)
    ]  # fmt: skip


def test_wrappers_and_folds_pass_places_on():
    one = problem(fixed_batches=True, hyperparameters={"weights": hg.ExampleWeights()})
    for other in (hg.Tied(one, name="weights", groups=2), InPrecision(one, "float32")):
        assert [other.inner_place(t) for t in range(7)] == [one.inner_place(t) for t in range(7)]
        assert [other.outer_place(t) for t in range(7)] == [one.outer_place(t) for t in range(7)]
    even = hg.k_fold(one, 2)  # 18 and 18 of 36 examples
    assert even.inner_place(2) == even.folds[0].inner_place(2) == even.folds[1].inner_place(2)
    uneven = hg.k_fold(one, 5)  # 28 or 29 of 36: six batches in each, of different weights
    places = [fold.inner_place(4) for fold in uneven.folds]
    assert {p.index for p in places} == {uneven.inner_place(4).index}
    assert uneven.inner_place(4).is_fixed
    assert sum(uneven.inner_place(t).weight for t in range(6)) == pytest.approx(6, rel=1e-14)
    other = hg.k_fold(problem(fixed_batches=True, batch_size=28), 5)  # two batches, or all in one
    assert other.inner_place(0) == UNKNOWN


def test_learning_to_learn_judges_on_the_batches_of_train():
    one = problem(fixed_batches=True)
    other = hg.LearningToLearn(one, {"lr": hg.Hyperparameter(0.1)})
    assert [other.outer_place(t) for t in range(6)] == [one.inner_place(t) for t in range(6)]


def test_problems_without_batches_use_all_data():
    one = hg.Quadratic()
    assert one.inner_place(3) == one.outer_place(3) == WHOLE


def test_what_cannot_be_fixed_is_refused_by_name():
    with pytest.raises(ValueError, match=r"fixed_batches=True needs drop_last=False.*Leave drop_last out"):
        problem(fixed_batches=True, drop_last=True)
    with pytest.raises(ValueError, match=r"but it is an IterableDataset.*Write it as a torch.utils.data.Dataset"):
        problem_on(InOrder(TRAIN), dev=DEV, batch_size=5, fixed_batches=True, stream=True)
    with pytest.raises(TypeError, match=r"fixed_batches must be"):
        problem(fixed_batches=1)
    assert problem_on(InOrder(TRAIN), dev=DEV, batch_size=5, stream=True).inner_place(7) == UNKNOWN


def test_cleaning_has_them_too():
    generator = torch.Generator().manual_seed(0)
    parts = [hg.Split(torch.randn(22, 3, generator=generator), torch.arange(22) % CLASSES) for _ in range(3)]
    one = hg.HyperCleaning(hg.Splits(*parts), batch_size=6, fixed_batches=True, dev_sample=5)
    assert one.inner_place(9).is_fixed
    assert one.outer_place(9).num_batches == 5
    assert isinstance(one.model.module, nn.Linear)
