"""What is read when it is used gives the same bits as what is in memory, and is refused where it cannot serve."""

import copy
import gc
import multiprocessing
import os
import pickle
import signal
import warnings
import weakref
from typing import Any

import pytest
import torch
from streams import CLASSES, InOrder, Made, Named, network, outcome, problem_on, require_same
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, default_collate

import hypergrad as hg
from hypergrad.compile import inductor
from hypergrad.data import step_reader, streaming
from hypergrad.data.collation import Collation
from hypergrad.data.random_state import random_state
from hypergrad.data.streamed import reading

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # where there are few cores


class Net(nn.Module):
    """A model that is called by name."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.net(input)


def arrays(data: Any) -> Any:
    return default_collate([data[i] for i in range(len(data))])


TRAIN = {
    "data set": lambda: Made(1),
    "one that draws": lambda: Made(1, noise=0.3),
    "loader": lambda: DataLoader(Made(1), batch_size=4, shuffle=True),
    "loader of some": lambda: DataLoader(Made(1), batch_size=4, sampler=SubsetRandomSampler([7, 2, 5, 11, 0, 3, 19])),
    "arrays": lambda: tuple(arrays(Made(1))),
}


@pytest.mark.parametrize("train", TRAIN.values(), ids=TRAIN)
@pytest.mark.parametrize("drop_last", [False, True])
def test_streamed_and_in_memory_are_the_same_bits(train, drop_last):
    wanted = outcome(problem_on(train(), stream=False, drop_last=drop_last))
    require_same(outcome(problem_on(train(), stream=True, drop_last=drop_last)), wanted)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_so_are_any_numbers_of_workers(num_workers):
    wanted = outcome(problem_on(Made(1, noise=0.3), stream=False))
    states = random_state()
    problem = problem_on(Made(1, noise=0.3), stream=True, num_workers=num_workers)
    require_same(outcome(problem), wanted)
    assert len(multiprocessing.active_children()) == num_workers
    assert random_state() == states


def test_examples_by_name_stream_too():
    settings = {"model": Net(), "dev": Named(2, 9), "test": Named(3, 7)}
    wanted = outcome(problem_on(Named(1), stream=False, **settings))
    require_same(outcome(problem_on(Named(1), stream=True, num_workers=1, **settings)), wanted)


@pytest.mark.parametrize("tape", [hg.Graph(), hg.Checkpoint(slots=2), hg.Reversible()], ids=["graph", "some", "back"])
def test_every_tape_goes_back_through_a_stream(tape):
    train = Made(1, noise=0.3)
    wanted = outcome(problem_on(train, stream=False), tape=tape)
    require_same(outcome(problem_on(train, stream=True), tape=tape), wanted)


def test_compiled_steps_see_a_stream(monkeypatch):
    monkeypatch.setattr(inductor, "compile_graph", lambda graph, _: lambda tensors: graph(*tensors))  # traced alone
    estimator = hg.Unrolled(solver=hg.Momentum(lr=0.1), inner_steps=4, compile=True)
    slopes = []
    for stream in (False, True):
        problem = problem_on(Made(1, 24), stream=stream)
        slopes.append(estimator.estimate(problem, problem.init_hparams(), problem.init_params()).grad["l2"])
    assert torch.allclose(slopes[1], slopes[0], rtol=1e-12)


def test_folds_a_final_training_and_running_averages_read_what_they_need():
    streams, held = (problem_on(Made(1, noise=0.3), norm=True, stream=stream) for stream in (True, False))
    assert torch.equal(streams.pooled_targets(), held.pooled_targets())
    for of in (lambda p: hg.k_fold(p, 3), lambda p: p.joined(p.init_hparams())[0]):
        require_same(outcome(of(streams), steps=3), outcome(of(held), steps=3))
    at = held.init_params(), held.init_hparams()
    found, wanted = (problem.trained_module(*at).state_dict() for problem in (streams, held))
    assert all(torch.equal(found[name], x) for name, x in wanted.items())


def test_a_stream_and_memory_pool_their_examples():
    dev = tuple(arrays(Made(2, 9)))
    first, second = problem_on(Made(1), dev=dev), problem_on(Made(1), dev=dev, stream=True)
    second._streamed.pop("dev")
    second.register_buffer("X_dev", first.X_dev)
    second.register_buffer("y_dev", first.y_dev)
    rows = torch.tensor([25, 3, 30, 7, 11, 0]), torch.tensor([1, 24])
    require_same(outcome(second.on_examples(*rows), steps=3), outcome(first.on_examples(*rows), steps=3))


def test_weights_of_examples_are_for_the_examples_of_a_step():
    effects = {"weights": hg.ExampleWeights(), "classes": hg.ClassWeights(), "smooth": hg.LabelSmoothing(init=0.1)}
    found, wanted = (outcome(problem_on(Made(1), hyperparameters=effects, stream=s)) for s in (True, False))
    require_same(found, wanted)
    assert found["weights"].count_nonzero() == 23


def test_an_epoch_sees_each_example_once():
    problem = problem_on(Made(1, 12), stream=True, batch_size=5)
    batches: list[Any] = [problem.inner_batch(step) for step in range(6)]
    for epoch in (batches[:3], batches[3:]):
        assert sorted(torch.cat([batch.rows for batch in epoch]).tolist()) == list(range(12))
    X, y = batches[4].examples
    assert torch.equal(X, torch.stack([Made(1)[row][0] for row in batches[4].rows.tolist()]).double())
    assert y.dtype == torch.int64


def test_each_step_is_read_once_forwards_and_once_backwards(monkeypatch):
    monkeypatch.setattr(step_reader, "MOST_KEPT", 4)
    train = Made(1, 60)
    problem = problem_on(train, stream=True)
    start = len(train.reads)
    estimator = hg.Unrolled(solver=hg.Momentum(lr=0.1), inner_steps=10)
    estimator.estimate(problem, problem.init_hparams(), problem.init_params())
    used = (len(train.reads) - start) / 6
    assert 10 <= used <= 2 * 10 + 1  # the step after the last one is evaluated too


@pytest.mark.parametrize("dataset", ["map", "in order"])
@pytest.mark.parametrize("kept", [2, 32])
def test_any_order_of_steps_gives_the_batches_of_these_steps(monkeypatch, dataset, kept):
    monkeypatch.setattr(step_reader, "MOST_KEPT", kept)
    train = Made(1, noise=0.3) if dataset == "map" else InOrder(Made(1, noise=0.3), shuffled=True)
    wanted = [problem_on(train, stream=True).inner_batch(step).examples for step in range(14)]
    problem = problem_on(train, stream=True, num_workers=2)
    for step in (0, 1, 0, 5, 6, 7, 6, 5, 4, 3, 2, 13, 12, 3, 13):
        X, y = problem.inner_batch(step).examples
        assert torch.equal(X, wanted[step][0])
        assert torch.equal(y, wanted[step][1])


def test_a_stream_in_order_is_a_training_on_its_batches():
    problem = problem_on(InOrder(Made(1, 8)), dev=InOrder(Made(2, 5)), test=None, batch_size=3, stream=True)
    batches = [problem.inner_batch(step).examples[1].tolist() for step in range(5)]
    assert batches == [[0, 1, 2], [0, 1, 2], [0, 1], [0, 1, 2], [0, 1, 2]]
    assert torch.equal(problem.part("dev")[1], torch.arange(5) % CLASSES)
    require_same(
        outcome(problem),
        outcome(problem_on(InOrder(Made(1, 8)), dev=Made(2, 5), test=None, batch_size=3, stream=True, num_workers=2)),
    )
    dropped = problem_on(InOrder(Made(1, 8)), batch_size=3, stream=True, drop_last=True)
    assert [len(dropped.inner_batch(step).examples[1]) for step in range(5)] == [3] * 5


def test_a_shuffled_stream_has_another_order_in_each_pass():
    problem = problem_on(InOrder(Made(1, 8), shuffled=True), batch_size=4, stream=True)
    passes = [torch.cat([problem.inner_batch(2 * e + k).examples[0] for k in range(2)]) for e in range(2)]
    assert not torch.equal(*passes)
    assert torch.equal(passes[0].sum(1).sort().values, passes[1].sum(1).sort().values)


class Once(InOrder):
    """Can be read once only."""

    def __iter__(self) -> Any:
        self.running = getattr(self, "running", None) or super().__iter__()
        return self.running


class Drifting(InOrder):
    """Begins with other examples from the fourth time on."""

    times = 0

    def __iter__(self) -> Any:
        self.times += 1
        self.data = Made(1 if self.times < 4 else 5, 8)
        return super().__iter__()


class Growing(InOrder):
    """Has more examples in each pass."""

    times = 0

    def __iter__(self) -> Any:
        self.times += 1
        self.data = Made(1, 12 + 4 * self.times)
        return super().__iter__()


def test_a_stream_that_cannot_be_restarted_is_refused():
    with pytest.raises(ValueError, match="train part .* whenever it is read from its start, but its first examples"):
        problem_on(Once(Made(1)), stream=True)
    problem = problem_on(Drifting(Made(1)), stream=True, batch_size=4)
    problem.inner_batch(0)
    problem.reader.close()
    with pytest.raises(ValueError, match="but pass 0 began with another batch.*Dataset with __getitem__"):
        problem.inner_batch(0)
    problem = problem_on(Growing(Made(1)), stream=True, batch_size=4)
    with pytest.raises(ValueError, match="but pass 1 has 7 batches, and pass 0 has 6"):
        [problem.inner_batch(step) for step in range(20)]


REFUSED = {
    "no batch size": ({"batch_size": None}, ValueError, "stream=True needs a batch_size"),
    "not a bool": ({"stream": "yes"}, TypeError, "stream must be True, False or None, but it is 'yes'"),
    "no number": ({"num_workers": 1.5}, TypeError, "num_workers must be an integer"),
    "negative": (
        {"num_workers": -1},
        ValueError,
        "^num_workers must be an integer of at least 0, .*, but it is -1; give 0 to read in this process",
    ),
    "workers without": ({"stream": False, "num_workers": 2}, ValueError, "num_workers=2 processes would read"),
    "batches": ({"train": [(torch.zeros(2, 5), torch.zeros(2))]}, TypeError, "train part must be a Dataset.* a list"),
    "examples": (
        {"train": [(torch.zeros(5), 1)] * 7},
        TypeError,
        r"a list of 7: .* leave out stream=True; .*DataLoader\(examples, batch_size=100\)",
    ),
    "empty": ({"dev": Made(2, 0)}, ValueError, "dev part holds 0 examples"),
    "weights": (
        {"train": InOrder(Made(1)), "hyperparameters": {"w": hg.ExampleWeights()}},
        ValueError,
        "train part is an IterableDataset, which has no number of examples",
    ),
    "endless batch": ({"train": InOrder(Made(1, 4)), "drop_last": True}, ValueError, "at least one batch of 6"),
}


@pytest.mark.parametrize(("settings", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_streamed_is_refused_by_name(settings, kind, message):
    with pytest.raises(kind, match=message):
        problem_on(**{"train": Made(1), "stream": True} | settings).inner_batch(0)


def test_what_needs_rows_is_refused_for_a_stream_in_order():
    problem = problem_on(InOrder(Made(1)), norm=True, stream=True)
    params, hparams = problem.init_params(), problem.init_hparams()
    for use in (
        lambda: hg.k_fold(problem, 3),
        lambda: problem.joined(hparams),
        lambda: problem.trained_module(params, hparams),
        lambda: problem.part("train", [0]),
    ):
        with pytest.raises(
            ValueError, match="train part is an IterableDataset, .*Dataset with __getitem__ and __len__"
        ):
            use()
    with pytest.raises(ValueError, match="need training on all of train .* train and dev and test are streamed; give"):
        problem_on(Made(1), stream=True).weighted("weights")


class Bad(Made):
    """One example is wrong in one way."""

    def __init__(self, what: str) -> None:
        super().__init__(1, 40)
        self.what = what

    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        if index != 13:
            return x, y
        if self.what == "raises":
            raise OSError("no such image")
        return {
            "nan": (x * torch.nan, y),
            "class": (x, 7),
            "shape": (x[:4], y),
            "no label": (x, None),
            "no example": None,
        }[self.what]


BAD = {
    "nan": (ValueError, "Example 13 of the train part: X of the train part holds 5 of 5 values that are NaN"),
    "class": (ValueError, "Example 13 of the train part: .* must be classes from 0 to 2, .* such as 7"),
    "shape": (ValueError, "Example 13 of the train part: .*must have the same shape, but .*; pad"),
    "no label": (TypeError, "Example 13 of the train part: .* must hold tensors, arrays or numbers, but .* 'NoneType'"),
    "no example": (TypeError, "Example 13 of the train part: .* must give pairs .*, but an example is a NoneType"),
    "raises": (OSError, "no such image"),
}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("what", BAD)
def test_a_bad_example_is_named_when_it_is_read(what, num_workers):
    kind, message = BAD[what]
    problem = problem_on(Bad(what), stream=True, num_workers=num_workers)
    with pytest.raises(kind, match=message) as caught:
        [problem.inner_batch(step) for step in range(7)]
    if what == "raises":
        assert "This happened while reading example 13 of 40 of the train part." in caught.value.__notes__
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("what", ["nan", "class", "shape", "no label"])
def test_so_is_one_of_a_stream_that_is_read_in_order(what):
    problem = problem_on(InOrder(Bad(what)), stream=True, batch_size=10)
    where = "3 of the batch of step 1" if what == "class" else "13 of pass 0"
    with pytest.raises(BAD[what][0], match=f"^Example {where} of the train part: "):
        [problem.inner_batch(step) for step in range(7)]


def test_so_is_one_that_is_read_into_memory():
    for what in ("shape", "no label", "no example"):
        with pytest.raises(BAD[what][0], match="^Example 13 of the train part: "):
            problem_on(Bad(what))


def test_a_data_set_that_changes_its_length_is_refused():
    train = Made(1)
    problem = problem_on(train, stream=True)
    train.n = 22
    with pytest.raises(ValueError, match="train part had 23 examples when the problem was made, and now it has 22"):
        problem.inner_batch(0)


class Dying(Made):
    """Ends the process that reads an example, unless it is the one that made it."""

    def __init__(self) -> None:
        super().__init__(1)
        self.mine = os.getpid()

    def __getitem__(self, index):
        if os.getpid() != self.mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_a_process_that_dies_is_named_with_its_part():
    problem = problem_on(Dying(), stream=True, num_workers=1)
    with pytest.raises(RuntimeError, match="reads the train part .* exited unexpectedly.* '__main__'.*num_workers=0"):
        problem.inner_batch(0)


class Unseeded(Made):
    """Draws from a generator of its own."""

    def __getitem__(self, index: int) -> Any:
        self.reads.append(index)
        return torch.randn(5, generator=torch.Generator().manual_seed(len(self.reads))), index % CLASSES


def test_draws_that_cannot_be_repeated_are_refused():
    with pytest.raises(ValueError, match="Reading example 0 of the train part twice gives two values"):
        problem_on(Unseeded(1), stream=True)


def test_large_data_sets_are_streamed_by_themselves(monkeypatch):
    size = 5 * 4 + 8
    monkeypatch.setattr(streaming, "STREAMED_ABOVE", 22 * size)
    assert [problem_on(Made(1)).streamed(name) is not None for name in ("train", "dev")] == [True, False]
    assert problem_on(Made(1), batch_size=None).streamed("train") is None
    assert problem_on(Made(1), stream=False).streamed("train") is None
    assert problem_on(tuple(arrays(Made(1)))).streamed("train") is None
    assert "streamed train" in str(problem_on(Made(1)).settings()["batches"])
    require_same(outcome(problem_on(Made(1))), outcome(problem_on(Made(1), stream=False)))


def pad(examples: list[Any]) -> Any:
    """Batches as long as their longest example."""
    X = nn.utils.rnn.pad_sequence([x for x, _ in examples], batch_first=True)
    return X, torch.tensor([y for _, y in examples])


class Sequences(Made):
    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        return x[:1].repeat(1 + index % 7), y


class Total(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(1, CLASSES).double()

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        return self.last(X.sum(1, keepdim=True))


def test_a_batch_may_be_padded_by_itself():
    loaders: dict[str, Any] = {
        name: DataLoader(Sequences(k, n), collate_fn=pad, num_workers=1)
        for k, (name, n) in enumerate({"train": 23, "dev": 9, "test": 7}.items())
    }
    held, streams = (problem_on(model=Total(), stream=stream, **loaders) for stream in (False, True))
    assert {problem_on(model=Total(), stream=True, **loaders).inner_batch(s).examples[0].shape[1] for s in range(4)} > {
        7
    }
    found, wanted = outcome(streams), outcome(held)
    assert all(torch.allclose(found[name], x, rtol=1e-12) for name, x in wanted.items())
    assert len(multiprocessing.active_children()) == 1  # as many as the loader has


class Counted:
    """An example that says how many of its kind are alive."""

    alive = weakref.WeakSet[Any]()


class Tracked(Made):
    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        Counted.alive.add(x)
        return x, y


def together(examples: list[Any]) -> Any:
    X = torch.stack([x for x, _ in examples])
    Counted.alive.add(X)
    return X, torch.tensor([y for _, y in examples])


@pytest.mark.parametrize("stream", [True, False])
def test_memory_does_not_grow_with_the_data_set(monkeypatch, stream):
    monkeypatch.setattr(step_reader, "MOST_KEPT", 4)
    monkeypatch.setattr(Counted, "alive", weakref.WeakSet())
    most = []
    for n in (60, 600):
        problem = problem_on(DataLoader(Tracked(1, n), collate_fn=together), stream=stream)
        peak = 0
        for step in range(60):
            problem.inner_batch(step)
            peak = max(peak, sum(x.numel() for x in Counted.alive))
        most.append(peak)
        del problem
        gc.collect()
    held = sum(1 for _ in Counted.alive)
    assert held == 0
    assert (most[0] == most[1] <= 5 * (4 + 1) * 6 + 5 * 16) if stream else most[1] >= most[0]


def test_processes_end_with_the_run_the_problem_and_an_error():
    problem = problem_on(Made(1), stream=True, num_workers=1)
    trainer = hg.Trainer(
        problem=problem,
        estimator=hg.Unrolled(solver=hg.Momentum(lr=0.1), inner_steps=3),
        optimizer=lambda u: torch.optim.SGD(u, lr=0.1),
        outer_steps=2,
        retrain=True,
    )
    trainer.fit()
    assert not multiprocessing.active_children()
    problem.inner_batch(3)
    assert len(multiprocessing.active_children()) == 1
    with pytest.raises(KeyboardInterrupt), reading(problem):
        raise KeyboardInterrupt
    assert not multiprocessing.active_children()
    problem.inner_batch(0)
    del problem, trainer
    gc.collect()
    assert not multiprocessing.active_children()


def test_a_problem_that_streams_can_be_copied_stored_and_moved():
    problem = problem_on(Made(1), stream=True, num_workers=1)
    wanted = outcome(problem)
    for other in (copy.deepcopy(problem), pickle.loads(pickle.dumps(problem))):
        require_same(outcome(other), wanted)
    X, y = problem.float().part("dev")
    assert (X.dtype, y.dtype) == (torch.float32, torch.int64)
    assert problem.inner_batch(0).examples[0].dtype == torch.float32


def test_no_warning_is_raised_where_reading_is_quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcome(problem_on(Made(1), stream=True, num_workers=1))
        gc.collect()


def test_too_little_shared_memory_is_said(monkeypatch):
    def full(tensors, *args, **kwargs):
        raise RuntimeError("unable to resize file </torch_7_8_0> to the right size: File too large (27)")

    monkeypatch.setattr(torch, "stack", full)
    with pytest.raises(
        OSError, match=r"train part needs shared memory for a batch, but unable to resize.*num_workers=0"
    ):
        Collation(default_collate, "train")([Made(1)[0], Made(1)[1]])


def test_workers_without_a_stream_are_said_to_have_no_effect():
    with pytest.warns(UserWarning, match=r"num_workers=2 has no effect.*more than 1 GiB.*stream=True"):
        problem_on(Made(1), num_workers=2)
