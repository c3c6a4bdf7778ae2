"""States outside memory: the same bits, less memory, and nothing left behind."""

import errno
import gc
import weakref
from pathlib import Path

import pytest
import torch
from runs import STEPS, case, problems
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import hypergrad as hg
from hypergrad.core.autodiff import leaves
from hypergrad.tape.depot import Depot
from hypergrad.training.dynamics import Dynamics

PLAIN = {"store": hg.Store(), "checkpoint": hg.Checkpoint(slots=4), "checkpoint-1": hg.Checkpoint(slots=1)}
OUTSIDE = {
    "store": hg.Store(offload="disk"),
    "checkpoint": hg.Checkpoint(slots=4, offload="disk"),
    "checkpoint-1": hg.Checkpoint(slots=1, offload="disk"),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where temporary folders are made, which must be empty at the end."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield tmp_path
    gc.collect()
    assert not list(tmp_path.glob("hypergrad-*"))


@pytest.mark.parametrize("budget", [0.0, 600.0])
@pytest.mark.parametrize("tape", OUTSIDE)
@pytest.mark.parametrize("solver", ["momentum", "adam"])
@pytest.mark.parametrize("problem", problems())
def test_the_bits_are_those_of_the_plain_tape(problem, solver, tape, budget, folder):
    problem, solver, hparams, start = case(problem, solver)

    def found(tape):
        estimate = hg.Unrolled(solver=solver, tape=tape, inner_steps=STEPS).estimate(problem, hparams, start)
        return [*estimate.grad.values(), *estimate.params.values()]

    outside = type(OUTSIDE[tape])(**{**vars(OUTSIDE[tape]), "budget": budget})
    assert all(torch.equal(x, y) for x, y in zip(found(outside), found(PLAIN[tape]), strict=True))


class Peak(TorchDispatchMode):
    """The most bytes of tensors that were alive at the same time, of those made within."""

    def __init__(self):
        super().__init__()
        self.alive, self.now, self.most = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and id(x.untyped_storage()) not in self.alive:
                storage = x.untyped_storage()
                size = storage.nbytes()
                self.alive[id(storage)] = weakref.finalize(storage, self._freed, id(storage), size)
                self.now += size
                self.most = max(self.most, self.now)
        return result

    def _freed(self, key, size):
        self.now -= size
        del self.alive[key]


class Wide(hg.InnerProblem):
    """5000 parameters and no data."""

    def init_params(self):
        return {"w": torch.ones(5000)}

    def hyperparameters(self):
        return {"l2": hg.Hyperparameter(1.0)}

    def inner_loss(self, params, hparams, batch):
        return hparams["l2"] * params["w"].square().sum()

    def outer_loss(self, params, hparams, batch):
        return params["w"].sum()


def peak(tape, num_steps):
    problem, solver = Wide(), hg.Momentum(lr=0.02)
    dynamics = Dynamics(problem, solver, leaves(problem.init_hparams()))
    start = solver.init(problem.init_params())
    with Peak() as bytes_alive:
        trajectory = tape.record(dynamics, start, range(num_steps))
        for _ in trajectory.pull_back(trajectory.end):
            pass
    return bytes_alive.most


def test_memory_does_not_grow_with_the_steps(folder):
    state = 2 * 8 * 5000
    assert peak(hg.Store(), 60) - peak(hg.Store(), 20) == pytest.approx(40 * state, rel=0.01)
    outside = hg.Store(offload="disk")
    few, many = peak(outside, 20), peak(outside, 60)
    assert many - few <= 2 * state
    within = hg.Store(offload="disk", budget=10 * state)
    assert peak(within, 60) - many == pytest.approx(10 * state, abs=2 * state)


def test_what_is_planned():
    problem = hg.Quadratic(size=300)
    state = 2 * 8 * 300
    outside, within = hg.Store(offload="disk"), hg.Checkpoint(slots=20, offload="disk", budget=5.5 * state)
    plans = [
        hg.Unrolled(solver=hg.Momentum(lr=0.02), inner_steps=400, tape=tape).plan(problem) for tape in (outside, within)
    ]
    store, found = plans[0].costs["Store()"], plans[0].costs[repr(outside)]
    assert store is not None
    assert found is not None
    assert found.offloaded == 400 * state
    assert found.memory == store.memory - 398 * state
    assert found.gradients == store.gradients
    assert store.offloaded == 0
    lines = str(plans[0]).splitlines()
    assert lines[2].split() == ["tape", "MB", "gradients", "MB", "offloaded"]
    assert lines[-1].split()[-1] == f"{400 * state / 1e6:.3g}"
    checkpoint, found = plans[1].costs["Checkpoint(slots='auto')"], plans[1].costs[repr(within)]
    assert checkpoint is not None
    assert found is not None
    assert found.offloaded == 15 * state
    assert found.memory == checkpoint.memory - 13 * state


def test_auto_moves_states_out_where_fewer_gradients_are_needed_than_without():
    problem = hg.Quadratic(size=300)
    solver, state = hg.GradientDescent(lr=0.02), 8 * 300
    graph = hg.Unrolled(solver=solver, inner_steps=400).plan(problem).costs["Graph()"]
    assert graph is not None
    budget = graph.memory / 400 + 20 * state
    plain, outside = (
        hg.Unrolled(solver=solver, inner_steps=400, tape=hg.AutoTape(budget=budget, offload=offload)).plan(problem)
        for offload in (None, "disk")
    )
    *_, plain = plain.costs.values()
    *_, outside = outside.costs.values()
    assert plain is not None
    assert outside is not None
    assert outside.gradients == 800 < plain.gradients
    assert outside.memory <= budget
    assert outside.offloaded >= 380 * state


def estimate(tape, problem=None, steps=30):
    problem = problem or hg.Quadratic(size=50)
    estimator = hg.Unrolled(solver=hg.Momentum(lr=0.02), tape=tape, inner_steps=steps)
    return estimator.estimate(problem, problem.init_hparams(), problem.init_params())


class Failing(hg.Quadratic):
    """Raises in the inner loss at some call."""

    def __init__(self, at):
        super().__init__(size=50)
        self.at, self.calls = at, 0

    def inner_loss(self, params, hparams, batch):
        self.calls += 1
        if self.calls == self.at:
            raise KeyError(f"call {self.at}")
        return super().inner_loss(params, hparams, batch)


@pytest.mark.parametrize("at", [10, 45])
@pytest.mark.parametrize("tape", OUTSIDE.values(), ids=OUTSIDE)
def test_the_folder_is_deleted_after_an_error(tape, at, folder):
    problem = Failing(at)
    with pytest.raises(KeyError, match=f"call {at}"):
        estimate(tape, problem)
    assert not list(folder.glob("hypergrad-*"))


def test_the_folder_is_deleted_if_the_way_back_is_never_used(folder):
    problem = hg.Quadratic(size=50)
    dynamics = Dynamics(problem, hg.GradientDescent(lr=0.02), leaves(problem.init_hparams()))
    for tape in OUTSIDE.values():
        trajectory = tape.record(dynamics, {"params": problem.init_params()}, range(30))
        assert list(folder.glob("hypergrad-*"))
        trajectory.close()
        assert not list(folder.glob("hypergrad-*"))
        tape.record(dynamics, {"params": problem.init_params()}, range(30))
        gc.collect()
        assert not list(folder.glob("hypergrad-*"))


def test_a_full_disk_is_told_with_the_folder_and_the_bytes(folder, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        OSError, match=r"A state of 800 bytes could not be .*hypergrad-.* bytes are free: .*No space.*TMPDIR"
    ):
        estimate(hg.Store(offload="disk"))


def test_a_folder_that_does_not_exist_is_refused(tmp_path, monkeypatch):
    """tempfile would write to another one without a word, such as /tmp in memory."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    with pytest.raises(NotADirectoryError, match="TMPDIR, but '.*nowhere' is no folder .* Create it, or set TMPDIR"):
        estimate(hg.Store(offload="disk"))


def test_pinned_memory_needs_a_gpu():
    for tape in (hg.Store(offload="cpu"), hg.Checkpoint(offload="cpu")):
        with pytest.raises(ValueError, match="out of the memory of a GPU, but these are on the device cpu already"):
            estimate(tape)


class Copies:
    """Stands for `Transfer`, without a GPU: events are the order in which things happened."""

    def __init__(self):
        self.log = []

    def out(self, state):
        self.log.append("out")
        return {group: {name: x.clone() for name, x in tensors.items()} for group, tensors in state.items()}, "sent"

    def back(self, host):
        self.log.append("back")
        return {group: {name: x.clone() for name, x in tensors.items()} for group, tensors in host.items()}, "came"

    def use(self, state, event):
        self.log.append(event)


def test_a_state_is_read_ahead_of_its_use():
    depot = Depot("cpu", 0.0)
    depot._transfer = copies = Copies()  # pyright: ignore[reportAttributeAccessIssue]
    states = [{"params": {"w": torch.full((3,), float(k))}} for k in range(3)]
    for k, state in enumerate(states):
        depot.put(k, state)
    found = [depot.take(k) for k in (2, 1, 0)]
    assert all(torch.equal(x["params"]["w"], y["params"]["w"]) for x, y in zip(found, states[::-1], strict=True))
    assert copies.log == ["out"] * 3 + ["back", "came", "back", "came", "back", "came"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"offload": "gpu"}, "Store.offload must be 'cpu', 'disk' or None, but it is 'gpu'"),
        ({"offload": "disk", "budget": -1.0}, "Store.budget must be at least 0"),
        ({"budget": 10.0}, "Store.budget = 10 bytes is for states that stay while others are moved out; set offload"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        hg.Store(**settings)
    with pytest.raises(ValueError, match="AutoTape.offload must be"):
        hg.AutoTape(offload="gpu")


def test_parts_of_a_larger_tensor_are_written_alone(folder):
    depot = Depot("disk", 0.0)
    whole = torch.arange(1e6)
    depot.put(0, {"params": {"w": whole[5:9]}})
    found = depot.get(0)
    (file,) = Path(next(folder.glob("hypergrad-*"))).iterdir()
    assert file.stat().st_size < 10_000
    assert torch.equal(found["params"]["w"], whole[5:9])
    depot.close()
