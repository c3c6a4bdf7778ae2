"""A stream whose losses are computed in parts gives the hypergradient of data in memory, computed at once."""

from functools import partial
from typing import Any

import pytest
import torch
from streams import Made, outcome, problem_on
from torch.nn.functional import cross_entropy

PARTS: dict[str, Any] = {"micro_batch": 4, "dev_batch_size": 2}
WEIGHTED = partial(cross_entropy, weight=torch.tensor([0.5, 2.0, 1.3], dtype=torch.float64))


@pytest.mark.parametrize("loss", [cross_entropy, WEIGHTED], ids=["mean", "class weights"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_stream_in_parts_is_the_whole_in_memory(loss, num_workers):
    wanted = outcome(problem_on(Made(1), stream=False, loss=loss))
    found = outcome(problem_on(Made(1), stream=True, num_workers=num_workers, loss=loss, **PARTS))
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_a_sample_of_a_streamed_dev_part_is_that_of_one_in_memory():
    streamed, held = (problem_on(Made(1), stream=stream, dev_sample=4) for stream in (True, False))
    at, w = held.init_hparams(), held.init_params()
    for step in range(3):
        found, wanted = (p.outer_loss(w, at, p.outer_batch(step)) for p in (streamed, held))
        assert torch.equal(found, wanted)


def test_targets_are_read_once():
    dev = Made(2, 9)
    problem = problem_on(Made(1), stream=True, dev=dev, dev_batch_size=2)
    at, w = problem.init_hparams(), problem.init_params()
    assert problem.outer_parts(None) is not None
    dev.reads.clear()
    for part, _ in problem.outer_parts(None) or []:
        problem.outer_loss(w, at, part)
    assert sorted(dev.reads) == list(range(9))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_of_dev_are_read_ahead_by_workers(num_workers):
    dev = Made(2, 9)
    problem = problem_on(Made(1), stream=True, num_workers=num_workers, dev=dev, dev_batch_size=2)
    at, w = problem.init_hparams(), problem.init_params()
    parts = problem.outer_parts(None)
    dev.reads.clear()
    found = [problem.outer_loss(w, at, part) for part, _ in parts]
    assert len(dev.reads) == (0 if num_workers else 9)  # in this process
    problem.inner_batch(0)
    again = [problem.outer_loss(w, at, part) for part, _ in parts[::-1]]
    assert torch.equal(torch.stack(found), torch.stack(again[::-1]))
